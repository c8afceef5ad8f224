//! Properties of the parser for generated lines.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::policy::challenge::{MAX_CHALLENGES, MAX_PARAMS, is_token_byte};

/// Generates bytes, most of which have a meaning in the grammar.
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

/// Generates the text of a quoted string, without line breaks because they become spaces.
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

/// Generates a parameter and its text.
fn param_and_text() -> impl Strategy<Value = ((String, String), String)> {
    let plain = token().prop_filter("a leading single quote has a meaning", |value| {
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

/// Generates a challenge and its well-formed text.
fn challenge_and_text() -> impl Strategy<Value = (Challenge, String)> {
    let token68 =
        "[A-Za-z0-9._~+/-]{1,8}={0,2}".prop_map(|text| (Some(text.clone()), vec![], text));
    let comma = prop::sample::select(vec![", ", ",", " ,\t", ",,"]);
    let params = (vec(param_and_text(), 0..4), comma).prop_map(|(params, comma)| {
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

/// Generates malformed text whose quoted strings are terminated, so that a comma can follow it.
fn malformed_text() -> impl Strategy<Value = String> {
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

/// Returns the challenge that the parser must always find.
fn invalid_token() -> Challenge {
    Challenge {
        scheme: "Bearer".into(),
        token68: None,
        params: vec![("error".into(), "invalid_token".into())],
    }
}

proptest! {
    #[test]
    fn the_results_for_any_bytes_are_within_the_limits(lines in vec(vec(byte(), 0..300), 0..6)) {
        let challenges = parse(lines.iter().map(Vec::as_slice));
        prop_assert!(challenges.len() <= MAX_CHALLENGES);
        for challenge in &challenges {
            prop_assert!(!challenge.scheme().is_empty());
            prop_assert!(challenge.scheme().bytes().all(is_token_byte));
            prop_assert!(challenge.params.len() <= MAX_PARAMS);
            for (name, value) in &challenge.params {
                prop_assert!(!name.is_empty() && *name == name.to_ascii_lowercase());
                prop_assert!(!value.contains(['\r', '\n']));
            }
        }
    }

    #[test]
    fn well_formed_challenges_round_trip(
        lines in vec(vec(challenge_and_text(), 0..4), 0..4),
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
    fn a_bearer_challenge_is_found_between_arbitrary_lines(
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
    fn a_bearer_challenge_is_found_between_malformed_elements(
        before in malformed_text(),
        after in malformed_text(),
    ) {
        let line = format!(r#"{before}, Bearer error="invalid_token", Basic {after}"#);
        let challenges = parse_line(&line);
        let bearer = challenges.iter().find(|one| one.is_bearer());
        let error = bearer.and_then(|one| one.param("error"));
        prop_assert_eq!(error, Some("invalid_token"), "{}", line);
    }

    #[test]
    fn quoted_text_is_one_parameter(text in quotable()) {
        let line = format!("Basic realm={}", quoted(&text));
        let expected = Challenge {
            scheme: "Basic".into(),
            token68: None,
            params: vec![("realm".into(), text)],
        };
        prop_assert_eq!(parse_line(&line), vec![expected]);
    }

    #[test]
    fn unterminated_quoted_text_is_dropped(text in quotable()) {
        let mut line = format!("Basic realm={}", quoted(&text));
        line.pop();
        prop_assert_eq!(read(&line), "Basic");
    }
}
