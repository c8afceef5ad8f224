//! Literal cases first, then properties, then the cases of other projects.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::{Challenge, MAX_CHALLENGES, MAX_PARAMS, parse};

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

#[test]
fn a_challenge_is_a_scheme_and_parameters() {
    let challenges = parse_line(r#"BEARER Realm="example", error="invalid_token""#);
    let [challenge] = challenges.as_slice() else {
        panic!("one challenge: {challenges:?}");
    };
    assert_eq!(challenge.scheme(), "BEARER");
    assert!(challenge.is_bearer());
    assert_eq!(challenge.param("realm"), Some("example"));
    assert_eq!(challenge.param("ERROR"), Some("invalid_token"));
    assert_eq!(challenge.param("scope"), None);
}

#[test]
fn other_schemes_are_not_bearer() {
    for line in ["Basic", "BearerToken", "Bear", "DPoP"] {
        let challenges = parse_line(line);
        assert_eq!(challenges.len(), 1, "{line}");
        assert!(!challenges.iter().any(Challenge::is_bearer), "{line}");
    }
}

#[test]
fn a_scheme_needs_no_parameters() {
    assert_eq!(read("Bearer"), "Bearer");
    assert_eq!(read("Bearer,"), "Bearer");
    assert_eq!(read("  Bearer \t "), "Bearer");
    assert_eq!(
        read(r#"Basic realm="x", Bearer"#),
        r#"Basic realm="x"; Bearer"#
    );
    assert_eq!(read("Bearer, Basic"), "Bearer; Basic");
}

#[test]
fn one_line_holds_several_challenges() {
    assert_eq!(
        read(
            r#"Basic realm="a", charset="UTF-8", Bearer realm="b",error=invalid_token, Negotiate"#
        ),
        r#"Basic realm="a" charset="UTF-8"; Bearer realm="b" error="invalid_token"; Negotiate"#,
    );
}

#[test]
fn lines_are_read_one_by_one_and_in_order() {
    let lines = [
        r#"Basic realm="open"#,
        r#"error="x""#,
        "",
        "Bearer",
        "error=y",
    ];
    assert_eq!(shown(&parse(lines.map(str::as_bytes))), "Basic; Bearer");
}

#[test]
fn empty_elements_are_skipped() {
    assert_eq!(read(""), "");
    assert_eq!(read(" ,\t, ,"), "");
    assert_eq!(
        read(",, Bearer ,, a=1 ,,b=2,, Basic,,"),
        r#"Bearer a="1" b="2"; Basic"#
    );
}

#[test]
fn parameters_follow_a_scheme_even_behind_a_comma() {
    assert_eq!(
        read(r#"Bearer, error="invalid_token""#),
        r#"Bearer error="invalid_token""#,
    );
}

#[test]
fn parameters_before_any_scheme_are_dropped() {
    assert_eq!(read(r#"error="invalid_token""#), "");
    assert_eq!(read(r#"error="a, Bearer", Bearer"#), "Bearer");
    assert_eq!(read("Bearer=x"), "");
    assert_eq!(read("Basic =, Bearer"), "Bearer");
}

#[test]
fn a_parameter_without_a_value_is_a_challenge_or_nothing() {
    assert_eq!(
        read(r#"Bearer realm="x", flag"#),
        r#"Bearer realm="x"; flag"#
    );
    assert_eq!(
        read(r#"Bearer realm="x", a=, b= ,c=1"#),
        r#"Bearer realm="x" c="1""#
    );
}

#[test]
fn commas_between_parameters_may_be_missing() {
    assert_eq!(
        read(r#"Bearer scope="" error="insufficient_scope" error_description="not enough", Basic"#),
        r#"Bearer scope="" error="insufficient_scope" error_description="not enough"; Basic"#,
    );
    assert_eq!(read("Bearer a=1\tb=2"), r#"Bearer a="1" b="2""#);
}

#[test]
fn whitespace_is_space_tab_and_line_folds() {
    assert_eq!(
        read("Bearer\r\n\trealm \t=\r\n \"a\r\n b\"\t,\r\n error\t=\tinvalid_token\r\n"),
        "Bearer realm=\"a   b\" error=\"invalid_token\"",
    );
    assert_eq!(read("Bearer\u{b}, Basic"), "Basic");
}

#[test]
fn quoted_strings_are_unescaped() {
    assert_eq!(
        read(r#"Bearer a="say \"hi\", \\ \x""#),
        r#"Bearer a="say \"hi\", \\ x""#,
    );
    assert_eq!(read(r#"Bearer a="", b=c"#), r#"Bearer a="" b="c""#);
}

#[test]
fn quoted_text_is_never_a_challenge() {
    for line in [
        r#"Basic realm="Bearer error=invalid_token""#,
        r#"Basic realm="x, Bearer error=invalid_token""#,
        r#"Basic realm="\", Bearer error=invalid_token""#,
        r#"Basic realm="\\\", Bearer error=invalid_token, \"""#,
        r#"Basic realm = "x, Bearer error=invalid_token, "#,
        r#"Basic "x, Bearer error=invalid_token""#,
        r#"Basic x=y="z, Bearer error=invalid_token""#,
        r#"Basic "a"="z, Bearer error=invalid_token""#,
        r#"Basic ?, "x, Bearer error=invalid_token""#,
    ] {
        let challenges = parse_line(line);
        let [basic] = challenges.as_slice() else {
            panic!("{line}: {challenges:?}");
        };
        assert_eq!(basic.scheme(), "Basic", "{line}");
    }
    assert_eq!(read(r#""x, Bearer error=invalid_token""#), "");
}

#[test]
fn unquoted_values_run_to_whitespace_or_a_comma() {
    assert_eq!(
        read(r"Bearer a=user@example.com, b=https://x.example/?q=1;r, c=\f, d=1/2=="),
        r#"Bearer a="user@example.com" b="https://x.example/?q=1;r" c="\\f" d="1/2==""#,
    );
    assert_eq!(
        read("Bearer realm=My House, error=x"),
        r#"Bearer realm="My" error="x""#
    );
    assert_eq!(read("Bearer realm==x, error=y"), r#"Bearer error="y""#);
}

#[test]
fn single_quotes_around_an_unquoted_value_are_removed() {
    assert_eq!(
        read("Bearer error='invalid_token', a='', b=', c='x, d=it's"),
        r#"Bearer error="invalid_token" a="" b="'" c="'x" d="it's""#,
    );
    assert_eq!(read(r#"Bearer a="'x'""#), r#"Bearer a="'x'""#);
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced() {
    let line = b"Bearer a=\"f\xe4\", b=\"\xc3\xa4\", c=\xff";
    assert_eq!(
        shown(&parse([line.as_slice()])),
        "Bearer a=\"f\u{fffd}\" b=\"\u{e4}\" c=\"\u{fffd}\"",
    );
    assert_eq!(shown(&parse([b"B\xe4sic, Bearer".as_slice()])), "Bearer");
}

#[test]
fn token68_stands_alone_behind_its_scheme() {
    let challenges = parse_line("Negotiate YII/w-._~+==");
    assert_eq!(challenges[0].token68.as_deref(), Some("YII/w-._~+=="));
    assert_eq!(read("Negotiate abc== , Bearer"), "Negotiate abc==; Bearer");
    assert_eq!(read("Bearer error="), "Bearer error=");
    assert_eq!(read("Bearer error= , a=1"), r#"Bearer error= a="1""#);
    assert_eq!(read(r#"Bearer realm= "x""#), r#"Bearer realm="x""#);
    assert_eq!(read("Negotiate a==b, Bearer"), "Negotiate; Bearer");
    assert_eq!(read("Negotiate abc== ?, Bearer"), "Negotiate; Bearer");
    assert_eq!(read("Negotiate, abc==, Bearer"), "Negotiate; Bearer");
}

#[test]
fn duplicates_are_all_kept() {
    let challenges = parse_line(r#"Bearer error="invalid_request", Error=invalid_token"#);
    assert_eq!(challenges[0].param("error"), Some("invalid_request"));
    let values: Vec<_> = challenges[0].values("error").collect();
    assert_eq!(values, ["invalid_request", "invalid_token"]);
}

#[test]
fn an_unterminated_quoted_string_costs_its_parameter_only() {
    assert_eq!(
        read(r#"Bearer error="invalid_token", error_description="it exp"#),
        r#"Bearer error="invalid_token""#,
    );
    assert_eq!(
        read(r#"Bearer realm="a", error="inv"#),
        r#"Bearer realm="a""#
    );
    assert_eq!(read(r#"Bearer realm="a\"#), "Bearer");
    assert_eq!(read(r#"Bearer realm="a\""#), "Bearer");
    assert_eq!(read(r#"Basic, Bearer a=1 b=""#), r#"Basic; Bearer a="1""#);
}

#[test]
fn a_quoted_string_with_something_glued_to_it_costs_its_parameter_only() {
    assert_eq!(read(r#"Bearer a="b"c, d="e""#), r#"Bearer d="e""#);
    assert_eq!(read(r#"Bearer a="b";c="d", e=f"#), r#"Bearer e="f""#);
    // A missing quote swallows the beginning of the next parameter.
    assert_eq!(
        read(r#"Bearer error="invalid_token, error_description="expired""#),
        "Bearer",
    );
}

#[test]
fn a_bearer_challenge_is_found_beside_broken_ones() {
    let bearer = r#"Bearer error="invalid_token""#;
    for broken in [
        "?",
        "@Basic realm=\"x\"",
        "Basic ???",
        "Basic realm",
        "Basic realm=",
        "Basic realm==",
        "Basic =x",
        "= =",
        r#"Basic realm="a"b"#,
        r#"Basic realm="my"house""#,
        r#"Basic realm="a"""#,
        r#"Basic realm=""a"""#,
        r#"Basic realm=""""#,
        r#"Basic realm="5" disk""#,
        r#"Basic realm=my"house"#,
        r#"Basic realm"x""#,
        r#"Basic "quoted, text" "and, more""#,
        r#"Basic realm="\\""#,
        "Basic realm=\\\"x",
        "NTLM a==b",
        "\u{0}\u{7f}\u{e4}",
        "Basic realm='x, y'",
    ] {
        for line in [
            format!("{broken}, {bearer}"),
            format!("{bearer}, {broken}"),
            format!("{broken},{bearer},{broken}"),
        ] {
            let found = parse_line(&line)
                .iter()
                .any(|one| one.is_bearer() && one.param("error") == Some("invalid_token"));
            assert!(found, "{line}: {}", read(&line));
        }
    }
}

#[test]
fn parameters_behind_junk_still_count() {
    assert_eq!(
        read(r#"Bearer ???, error="invalid_token""#),
        r#"Bearer error="invalid_token""#,
    );
}

#[test]
fn challenges_beyond_the_limit_are_ignored() {
    let line = vec!["Basic"; MAX_CHALLENGES - 1].join(",");
    let lines = [line.as_str(), "Bearer a=1,Bearer b=2, c=3", "Bearer"];
    let challenges = parse(lines.map(str::as_bytes));
    assert_eq!(challenges.len(), MAX_CHALLENGES);
    assert_eq!(shown(&challenges[MAX_CHALLENGES - 1..]), r#"Bearer a="1""#);
}

#[test]
fn parameters_beyond_the_limit_are_ignored() {
    let params: Vec<_> = (0..=MAX_PARAMS).map(|n| format!("p{n}={n}")).collect();
    let line = format!("Bearer {}, Basic a=1", params.join(", "));
    let challenges = parse_line(&line);
    assert_eq!(challenges.len(), 2);
    assert_eq!(challenges[0].params.len(), MAX_PARAMS);
    assert_eq!(challenges[0].param("p63"), Some("63"));
    assert_eq!(challenges[0].param("p64"), None);
    assert_eq!(challenges[1].param("a"), Some("1"));
}

/// In quadratic time each of these lines would take minutes.
#[test]
fn long_hostile_lines_take_linear_time() {
    for unit in [
        ",",
        " ",
        "a",
        "=",
        "\"",
        "\\",
        "'",
        "a ",
        "a=",
        "a =",
        "a, ",
        "a=\"",
        "a=\"\\",
        "\"\"",
        "?a=\"b\"c ",
        "a=b ",
        "x a=b, ",
    ] {
        let line = format!("Basic {}", unit.repeat((1 << 18) / unit.len()));
        assert!(parse_line(&line).len() <= MAX_CHALLENGES, "{unit}");
    }
}

/// Bytes that mean something to the grammar, more often than others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => prop::sample::select(b" ,=\"\\'\t".as_slice()),
        2 => prop::sample::select(b"aZ0-/?\r\n".as_slice()),
        1 => any::<u8>(),
    ]
}

fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}"
}

/// The text of a quoted string: anything but the line breaks that become spaces.
fn quotable() -> impl Strategy<Value = String> {
    let hint = prop::sample::select(vec![
        "Bearer",
        ", Bearer ",
        "error=invalid_token",
        "\"",
        "\\",
        ",",
        "=",
    ]);
    let part = prop_oneof![hint.prop_map(str::to_owned), "[^\r\n]{0,4}"];
    vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// A parameter and one way to write it.
fn written_param() -> impl Strategy<Value = ((String, String), String)> {
    let plain = token().prop_filter("single quotes mean something", |value| {
        !value.starts_with('\'')
    });
    let value = prop_oneof![
        plain.prop_map(|value| (value.clone(), value)),
        quotable().prop_map(|value| (value.clone(), quoted(&value))),
    ];
    let equals = prop::sample::select(vec!["=", " = ", "\t=", "= "]);
    (token(), equals, value).prop_map(|(name, equals, (value, written))| {
        let line = format!("{name}{equals}{written}");
        ((name.to_ascii_lowercase(), value), line)
    })
}

/// A challenge and one well-formed way to write it.
fn written_challenge() -> impl Strategy<Value = (Challenge, String)> {
    let token68 =
        "[A-Za-z0-9._~+/-]{1,8}={0,2}".prop_map(|text| (Some(text.clone()), vec![], text));
    let comma = prop::sample::select(vec![", ", ",", " ,\t", ",,"]);
    let params = (vec(written_param(), 0..4), comma).prop_map(|(params, comma)| {
        let (params, lines): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        (None, params, lines.join(comma))
    });
    (token(), prop_oneof![1 => token68, 3 => params]).prop_map(
        |(scheme, (token68, params, rest))| {
            let line = format!("{scheme} {rest}");
            let challenge = Challenge {
                scheme,
                token68,
                params,
            };
            (challenge, line)
        },
    )
}

/// Junk whose quoted strings are whole, so that the comma behind it can be seen.
fn closed_junk() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec!["Basic", "realm=", "=", "?", "\\", "'", "a=b", ""])
            .prop_map(str::to_owned),
        quotable().prop_map(|text| quoted(&text)),
    ];
    let joint = prop::sample::select(vec![" ", ",", ", ", " = ", "="]);
    vec((piece, joint), 0..8).prop_map(|pieces| {
        pieces
            .into_iter()
            .map(|(piece, joint)| format!("{piece}{joint}"))
            .collect()
    })
}

/// The challenge that must never be missed.
fn invalid_token() -> Challenge {
    Challenge {
        scheme: "Bearer".into(),
        token68: None,
        params: vec![("error".into(), "invalid_token".into())],
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_the_limits(lines in vec(vec(byte(), 0..300), 0..6)) {
        let challenges = parse(lines.iter().map(Vec::as_slice));
        prop_assert!(challenges.len() <= MAX_CHALLENGES);
        for challenge in &challenges {
            prop_assert!(!challenge.scheme().is_empty());
            prop_assert!(challenge.scheme().bytes().all(super::is_token_byte));
            prop_assert!(challenge.params.len() <= MAX_PARAMS);
            for (name, value) in &challenge.params {
                prop_assert!(!name.is_empty() && *name == name.to_ascii_lowercase());
                prop_assert!(!value.contains(['\r', '\n']));
            }
        }
    }

    #[test]
    fn well_formed_challenges_round_trip(
        lines in vec(vec(written_challenge(), 0..4), 0..4),
        comma in prop::sample::select(vec![",", ", ", " , ,", "\t,\r\n "]),
    ) {
        let written: Vec<String> = lines
            .iter()
            .map(|line| line.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>())
            .map(|line| line.join(comma))
            .collect();
        let expected: Vec<_> = lines.into_iter().flatten().map(|(one, _)| one).collect();
        prop_assert_eq!(parse(written.iter().map(String::as_bytes)), expected);
    }

    #[test]
    fn a_bearer_line_is_found_beside_lines_of_junk(
        before in vec(vec(byte(), 0..40), 0..3),
        after in vec(vec(byte(), 0..40), 0..3),
    ) {
        let lines = before
            .iter()
            .map(Vec::as_slice)
            .chain([br#"Bearer error="invalid_token""#.as_slice()])
            .chain(after.iter().map(Vec::as_slice));
        prop_assert!(parse(lines).contains(&invalid_token()));
    }

    #[test]
    fn a_bearer_element_is_found_beside_junk_with_whole_quotes(
        before in closed_junk(),
        after in closed_junk(),
    ) {
        let line = format!(r#"{before}, Bearer error="invalid_token", Basic {after}"#);
        let challenges = parse_line(&line);
        let bearer = challenges.iter().find(|one| one.is_bearer());
        let error = bearer.and_then(|one| one.param("error"));
        prop_assert_eq!(error, Some("invalid_token"), "{}", line);
    }

    #[test]
    fn quoted_text_yields_its_parameter_and_nothing_else(text in quotable()) {
        let line = format!("Basic realm={}", quoted(&text));
        let expected = Challenge {
            scheme: "Basic".into(),
            token68: None,
            params: vec![("realm".into(), text)],
        };
        prop_assert_eq!(parse_line(&line), vec![expected]);
    }

    #[test]
    fn unterminated_quoted_text_yields_nothing(text in quotable()) {
        let mut line = format!("Basic realm={}", quoted(&text));
        line.pop();
        prop_assert_eq!(read(&line), "Basic");
    }
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
        serde_json::from_str(include_str!("../../tests/vectors/challenges.json")).unwrap();
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
