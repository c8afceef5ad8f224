//! The cases of other projects here; literal cases and properties in the modules.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Challenge, parse};

mod broken;
mod grammar;
mod properties;

fn parse_line(line: &str) -> Vec<Challenge> {
    parse([line.as_bytes()])
}

/// Our reading of one line, in the notation of [`shown`].
fn read(line: &str) -> String {
    shown(&parse_line(line))
}

/// `Scheme name="value" name="value"; Scheme token68`: one string for a whole result.
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

/// Our reading of the cases in which we differ from their source, in the notation of [`shown`].
const DEPARTURES: &[(&str, &str)] = &[
    // What is broken costs itself only; the source drops its challenge, or everything.
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
    // Duplicates are all kept; the source keeps the last one, or refuses the challenge.
    ("o4w-14", r#"Scheme realm="foo" realm="bar""#),
    ("o4w-49", r#"Bearer error="a" error="b""#),
    ("reschke-10", r#"Basic realm="foo" realm="bar""#),
    ("okhttp-28", r#"Other realm="myotherrealm" realm="myrealm""#),
    // Values need no quotes, `=` may stand between spaces, a bare scheme may end in a comma and
    // still have parameters.
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
    // Parameters behind a token68 are kept.
    ("o4w-47", r#"Negotiate abc123== realm="ignored""#),
    ("okhttp-27", r#"Other abc== realm="myrealm""#),
    // A token68 keeps all its `=`, and may look like a parameter without a value.
    ("chromium-6", "Digest qop="),
    ("chromium-9", "NTLM SGVsbG8sIFdvcmxkCg==="),
    // A word alone is a challenge; the source takes it for a parameter without a value.
    (
        "oras-10",
        r#"Bearer realm="https://auth.example.io/token"; service"#,
    ),
    (
        "hc5-3",
        r#"Basic realm="blah" param1="this" param2="that"; Basic realm="\"yada\""; this; this-and-that"#,
    ),
    ("hc5-10", "blah blah; blah"),
    // Schemes are read without knowing them; the source refuses a Basic without realm, an unknown
    // scheme, and looks at no parameters of Basic.
    ("reschke-9", "Basic"),
    ("oras-1", "foo bar"),
    ("oras-2", r#"Basic realm="Test Registry""#),
    // Values are UTF-8; the source reads them as Latin-1.
    ("reschke-15", "Basic realm=\"foo-\u{fffd}\""),
    ("reschke-16", "Basic realm=\"foo-\u{e4}\""),
];

/// Every case agrees with its source or is a departure that says how we read it.
///
/// The two agree if the schemes, in any case, and all names, values and token68s are the same; a
/// parameter that the source has without a value never is, as we keep none.
#[test]
fn cases_of_other_projects() {
    let cases: Value =
        serde_json::from_str(include_str!("../../../tests/vectors/challenges.json")).unwrap();
    let mut departures: BTreeMap<_, _> = DEPARTURES.iter().copied().collect();
    assert_eq!(departures.len(), DEPARTURES.len(), "a case is listed twice");
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
        match departures.remove(id) {
            None if !agrees => wrong.push(format!("{id} is not listed, but we read {ours}")),
            Some(_) if agrees => wrong.push(format!("{id} is listed, but agrees")),
            Some(listed) if listed != ours => {
                wrong.push(format!("{id} is listed as {listed}, but we read {ours}"))
            }
            _ => {}
        }
    }
    wrong.extend(
        departures
            .keys()
            .map(|id| format!("{id} is listed, but no case")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Scheme, token68 and parameters in a form in which equal means that two readings agree.
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

/// The elements of an array, or none for `null`.
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
