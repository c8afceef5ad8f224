//! Tests of the challenge parser. This file runs the test vectors of other projects.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Challenge, parse};

mod grammar;
mod malformed;
mod properties;

fn parse_line(line: &str) -> Vec<Challenge> {
    parse([line.as_bytes()])
}

/// Parses a line and formats the challenges with [`shown`].
fn read(line: &str) -> String {
    shown(&parse_line(line))
}

/// Formats challenges as `Scheme name="value" name="value"; Scheme token68`.
fn shown(challenges: &[Challenge]) -> String {
    let one = |challenge: &Challenge| {
        let mut shown = challenge.scheme.clone();
        if let Some(token68) = &challenge.token68 {
            shown += &format!(" {token68}");
        }
        for (name, value) in &challenge.params {
            shown += &format!(" {name}={value:?}");
        }
        shown
    };
    challenges.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The cases in which this parser differs from the project that the case is from.
///
/// Each has the result of this parser, formatted by [`shown`].
const DIFFERENCES: &[(&str, &str)] = &[
    // Only the malformed part is dropped; the source drops the challenge or everything.
    ("o4w-7", "Scheme"),
    ("o4w-40", "Bearer"),
    ("o4w-41", "Bearer"),
    ("o4w-43", r#"Bearer error="ok""#),
    ("o4w-44", "Bearer"),
    ("o4w-45", "Negotiate"),
    ("reschke-26", "Basic"),
    ("okhttp-23", "Digest; Basic"),
    ("okhttp-24", "Digest; Basic"),
    ("okhttp-25", "Digest; Basic"),
    ("hc5-8", "blah"),
    // The value of an unterminated quoted string is dropped; the source keeps it.
    ("chromium-2", "Basic"),
    ("chromium-3", "Basic"),
    ("chromium-4", "Basic"),
    ("chromium-5", r#"Digest qop="auth-int" algorithm="md5""#),
    // All duplicates are kept; the source keeps the last one or rejects the challenge.
    ("o4w-14", r#"Scheme realm="foo" realm="bar""#),
    ("o4w-49", r#"Bearer error="a" error="b""#),
    ("reschke-10", r#"Basic realm="foo" realm="bar""#),
    ("okhttp-28", r#"Other realm="myotherrealm" realm="myrealm""#),
    // Values need no quotes, `=` may have spaces around it, and a comma may follow the scheme of a
    // challenge that has parameters.
    ("o4w-2", r#"Scheme realm="foo""#),
    ("o4w-6", r#"Scheme realm="\\f\\o\\o""#),
    ("reschke-3", r#"Basic realm="foo""#),
    ("reschke-4", r#"Basic realm="\\f\\o\\o""#),
    ("reschke-8", r#"Basic realm="foo""#),
    ("reschke-11", r#"Basic realm="foo""#),
    ("hc5-6", "This"),
    // Single quotes around an unquoted value are removed.
    ("o4w-11", r#"Scheme realm="foo""#),
    ("reschke-5", r#"Basic realm="foo""#),
    // Parameters after a token68 are kept.
    ("o4w-47", r#"Negotiate abc123== realm="ignored""#),
    ("okhttp-27", r#"Other abc== realm="myrealm""#),
    // A token68 keeps every `=`, and may look like a parameter without a value.
    ("chromium-6", "Digest qop="),
    ("chromium-9", "NTLM SGVsbG8sIFdvcmxkCg==="),
    // A single word is a challenge; the source reads it as a parameter without a value.
    (
        "oras-10",
        r#"Bearer realm="https://auth.example.io/token"; service"#,
    ),
    (
        "hc5-3",
        r#"Basic realm="blah" param1="this" param2="that"; Basic realm="\"yada\""; this; this-and-that"#,
    ),
    ("hc5-10", "blah blah; blah"),
    // All schemes are parsed alike. The sources reject a Basic challenge without a realm, reject
    // unknown schemes, or ignore the parameters of Basic.
    ("reschke-9", "Basic"),
    ("oras-1", "foo bar"),
    ("oras-2", r#"Basic realm="Test Registry""#),
    // Values are UTF-8; the source reads them as Latin-1.
    ("reschke-15", "Basic realm=\"foo-\u{fffd}\""),
    ("reschke-16", "Basic realm=\"foo-\u{e4}\""),
];

/// Checks that every case gives the result of its source or the one in [`DIFFERENCES`].
///
/// Two results are equal if the names, values, token68s and, ignoring case, the schemes are the
/// same. This parser keeps no parameters without a value, so a result with one is never equal.
#[test]
fn cases_of_other_projects() {
    let cases: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/challenges.json")).unwrap();
    let mut differences: BTreeMap<_, _> = DIFFERENCES.iter().copied().collect();
    assert_eq!(
        differences.len(),
        DIFFERENCES.len(),
        "a case is listed twice"
    );
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let lines: Vec<Vec<u8>> = array(&case["headers"]).iter().map(latin_1).collect();
        let challenges = parse(lines.iter().map(Vec::as_slice));
        let agrees = challenges
            .iter()
            .map(comparable)
            .eq(array(&case["expected"]).iter().map(expected));
        let ours = shown(&challenges);
        match differences.remove(id) {
            None if !agrees => wrong.push(format!("{id} is not listed, but the result is {ours}")),
            Some(_) if agrees => wrong.push(format!("{id} is listed, but equals its source")),
            Some(listed) if listed != ours => wrong.push(format!(
                "{id} is listed as {listed}, but the result is {ours}"
            )),
            _ => {}
        }
    }
    wrong.extend(
        differences
            .keys()
            .map(|id| format!("{id} is listed, but there is no such case")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A scheme, token68 and parameters, normalized for comparison.
type Comparable = (String, Option<String>, Vec<(String, Option<String>)>);

fn comparable(challenge: &Challenge) -> Comparable {
    let params = challenge.params.iter().cloned();
    let mut params: Vec<_> = params.map(|(name, value)| (name, Some(value))).collect();
    params.sort();
    (
        challenge.scheme.to_ascii_lowercase(),
        challenge.token68.clone(),
        params,
    )
}

fn expected(challenge: &Value) -> Comparable {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let params = challenge["params"].as_object().unwrap();
    let mut params: Vec<_> = params
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    params.sort();
    (
        text(&challenge["scheme"]).unwrap().to_ascii_lowercase(),
        text(&challenge["token68"]),
        params,
    )
}

/// Returns the elements of an array, or none for `null`.
fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn latin_1(line: &Value) -> Vec<u8> {
    line.as_str()
        .unwrap()
        .chars()
        .map(|char| u8::try_from(char).unwrap())
        .collect()
}
