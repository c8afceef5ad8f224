//! `WWW-Authenticate`: the parsed challenges, and the decision to reject the token.
//!
//! Input: the lines of the field, separated by NUL, which no field can contain.
#![no_main]

use bearer_auth::fuzzing::{Challenge, challenges};
use bearer_auth::{BearerChallenge, RejectionPolicy};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;

const MAX_CHALLENGES: usize = 64;
const MAX_PARAMS: usize = 64;
const INVALID_TOKEN: &[u8] = br#"Bearer error="invalid_token""#;

fuzz_target!(|data: &[u8]| {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == 0).collect();
    let parsed = challenges(lines.iter().copied());
    check_limits(&parsed);
    check_lines_are_independent(&lines, &parsed);
    check_empty_elements_are_ignored(&lines, &parsed);
    check_round_trip(&parsed);
    check_invalid_token_is_found(&lines, &parsed);
    check_quoted_text_is_not_a_challenge(data);
    check_decision(&lines, &parsed);
});

fn check_limits(parsed: &[Challenge]) {
    assert!(parsed.len() <= MAX_CHALLENGES);
    for challenge in parsed {
        assert!(is_token(&challenge.scheme), "{challenge:?}");
        assert!(challenge.params.len() <= MAX_PARAMS);
        if let Some(token68) = &challenge.token68 {
            let plain = token68.trim_end_matches('=');
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert!(
                !plain.is_empty() && plain.bytes().all(allowed),
                "{challenge:?}"
            );
        }
        for (name, value) in &challenge.params {
            assert!(
                is_token(name) && *name == name.to_ascii_lowercase(),
                "{challenge:?}"
            );
            assert!(!value.contains(['\r', '\n']), "{challenge:?}");
        }
    }
}

fn check_lines_are_independent(lines: &[&[u8]], parsed: &[Challenge]) {
    let one_by_one = lines.iter().flat_map(|line| challenges([*line]));
    assert!(one_by_one.take(MAX_CHALLENGES).eq(parsed.iter().cloned()));
}

fn check_empty_elements_are_ignored(lines: &[&[u8]], parsed: &[Challenge]) {
    let padded: Vec<Vec<u8>> = lines
        .iter()
        .map(|line| [b" ,\t,".as_slice(), line, b" ,, "].concat())
        .collect();
    assert_eq!(challenges(padded.iter().map(Vec::as_slice)), parsed);
}

/// Writing the challenges by the grammar and parsing the text returns the same challenges.
fn check_round_trip(parsed: &[Challenge]) {
    let written: Vec<String> = parsed.iter().map(written).collect();
    assert_eq!(challenges([written.join(", ").as_bytes()]), parsed);
    assert_eq!(challenges(written.iter().map(String::as_bytes)), parsed);
}

/// An `invalid_token` challenge is found, whatever precedes or follows it.
fn check_invalid_token_is_found(lines: &[&[u8]], parsed: &[Challenge]) {
    let bearer = challenges([INVALID_TOKEN]);
    let params = vec![("error".to_owned(), "invalid_token".to_owned())];
    assert!(
        matches!(&bearer[..], [one] if one.scheme == "Bearer" && one.token68.is_none() && one.params == params)
    );

    let last: Vec<&[u8]> = lines.iter().copied().chain([INVALID_TOKEN]).collect();
    let all = [parsed, &bearer].concat();
    assert_eq!(
        challenges(last.iter().copied()),
        all[..all.len().min(MAX_CHALLENGES)]
    );
    if parsed.len() < MAX_CHALLENGES {
        assert_ne!(rejects(StatusCode::UNAUTHORIZED, &last), Some(false));
    }

    let first: Vec<&[u8]> = [INVALID_TOKEN]
        .into_iter()
        .chain(lines.iter().copied())
        .collect();
    assert_eq!(challenges(first.iter().copied()).first(), bearer.first());
    assert_ne!(rejects(StatusCode::UNAUTHORIZED, &first), Some(false));

    // On one line with the other challenges, written so that no quoted string stays open.
    let mut line: Vec<String> = parsed.iter().map(written).collect();
    line.push(String::from_utf8_lossy(INVALID_TOKEN).into_owned());
    assert_eq!(
        challenges([line.join(",").as_bytes()]),
        all[..all.len().min(MAX_CHALLENGES)]
    );
}

fn check_quoted_text_is_not_a_challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace(['\r', '\n'], " ");
    let line = format!("Basic realm={}", quoted(&text));
    let basic = |params| Challenge {
        scheme: "Basic".to_owned(),
        token68: None,
        params,
    };
    let realm = basic(vec![("realm".to_owned(), text.clone())]);
    assert_eq!(challenges([line.as_bytes()]), [realm]);
    assert_ne!(
        rejects(StatusCode::UNAUTHORIZED, &[line.as_bytes()]),
        Some(true)
    );

    let truncated = &line.as_bytes()[..line.len() - 1];
    assert_eq!(challenges([truncated]), [basic(Vec::new())]);

    for malformed in ["Basic, ", "Basic, =", "Basic a==", "Basic realm=\"x\"y="] {
        let line = format!("{malformed}{}", quoted(&text));
        assert_eq!(challenges([line.as_bytes()]), [basic(Vec::new())]);
    }
}

/// A token is rejected if there is no challenge, or a Bearer challenge without an error or with
/// `invalid_token`.
fn check_decision(lines: &[&[u8]], parsed: &[Challenge]) {
    let has_error = |challenge: &Challenge, code: Option<&str>| {
        let mut errors = challenge.params.iter().filter(|(name, _)| name == "error");
        match code {
            None => errors.next().is_none(),
            Some(code) => errors.any(|(_, value)| value.eq_ignore_ascii_case(code)),
        }
    };
    let expected = parsed.is_empty()
        || parsed.iter().any(|it| {
            it.scheme.eq_ignore_ascii_case("bearer")
                && (has_error(it, None) || has_error(it, Some("invalid_token")))
        });
    if let Some(rejected) = rejects(StatusCode::UNAUTHORIZED, lines) {
        assert_eq!(rejected, expected, "{parsed:?}");
    }
    let uppercase: Vec<Vec<u8>> = lines.iter().map(|line| line.to_ascii_uppercase()).collect();
    let uppercase: Vec<&[u8]> = uppercase.iter().map(Vec::as_slice).collect();
    assert_eq!(
        rejects(StatusCode::UNAUTHORIZED, &uppercase),
        rejects(StatusCode::UNAUTHORIZED, lines)
    );
    for status in [StatusCode::OK, StatusCode::FORBIDDEN] {
        assert_ne!(rejects(status, lines), Some(true));
    }
}

/// Returns true if a response with these lines rejects the token, and `None` if a line is not a
/// valid header value.
fn rejects(status: StatusCode, lines: &[&[u8]]) -> Option<bool> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(line).ok()?);
    }
    Some(BearerChallenge.rejects(status, &headers))
}

/// Returns the challenge by the grammar of RFC 9110 §11, with every value quoted.
fn written(challenge: &Challenge) -> String {
    let token68 = challenge.token68.clone();
    let params = challenge.params.iter();
    let params = params.map(|(name, value)| format!("{name}={}", quoted(value)));
    let rest: Vec<String> = token68.into_iter().chain(params).collect();
    format!("{} {}", challenge.scheme, rest.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// Returns true for a `token` of RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}
