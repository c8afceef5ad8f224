//! `WWW-Authenticate` fields: what challenges are read, and whether they reject the token.
//!
//! Input: the field's lines, with NUL between them, which no field can hold.
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
    let read = challenges(lines.iter().copied());
    within_the_limits(&read);
    lines_are_independent(&lines, &read);
    empty_elements_change_nothing(&lines, &read);
    written_by_the_grammar_they_are_the_same(&read);
    invalid_token_is_found(&lines, &read);
    quoted_text_is_no_challenge(data);
    the_verdict_follows_the_challenges(&lines, &read);
});

fn within_the_limits(read: &[Challenge]) {
    assert!(read.len() <= MAX_CHALLENGES);
    for challenge in read {
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

fn lines_are_independent(lines: &[&[u8]], read: &[Challenge]) {
    let one_by_one = lines.iter().flat_map(|line| challenges([*line]));
    assert!(one_by_one.take(MAX_CHALLENGES).eq(read.iter().cloned()));
}

fn empty_elements_change_nothing(lines: &[&[u8]], read: &[Challenge]) {
    let padded: Vec<Vec<u8>> = lines
        .iter()
        .map(|line| [b" ,\t,".as_slice(), line, b" ,, "].concat())
        .collect();
    assert_eq!(challenges(padded.iter().map(Vec::as_slice)), read);
}

fn written_by_the_grammar_they_are_the_same(read: &[Challenge]) {
    let written: Vec<String> = read.iter().map(written).collect();
    assert_eq!(challenges([written.join(", ").as_bytes()]), read);
    assert_eq!(challenges(written.iter().map(String::as_bytes)), read);
}

fn invalid_token_is_found(lines: &[&[u8]], read: &[Challenge]) {
    let bearer = challenges([INVALID_TOKEN]);
    let params = vec![("error".to_owned(), "invalid_token".to_owned())];
    assert!(
        matches!(&bearer[..], [one] if one.scheme == "Bearer" && one.token68.is_none() && one.params == params)
    );

    let behind: Vec<&[u8]> = lines.iter().copied().chain([INVALID_TOKEN]).collect();
    let all = [read, &bearer].concat();
    assert_eq!(
        challenges(behind.iter().copied()),
        all[..all.len().min(MAX_CHALLENGES)]
    );
    if read.len() < MAX_CHALLENGES {
        assert_ne!(rejects(StatusCode::UNAUTHORIZED, &behind), Some(false));
    }

    let before: Vec<&[u8]> = [INVALID_TOKEN]
        .into_iter()
        .chain(lines.iter().copied())
        .collect();
    assert_eq!(challenges(before.iter().copied()).first(), bearer.first());
    assert_ne!(rejects(StatusCode::UNAUTHORIZED, &before), Some(false));

    // In one line with what goes before, if that leaves no quoted string open.
    let mut line: Vec<String> = read.iter().map(written).collect();
    line.push(String::from_utf8_lossy(INVALID_TOKEN).into_owned());
    assert_eq!(
        challenges([line.join(",").as_bytes()]),
        all[..all.len().min(MAX_CHALLENGES)]
    );
}

fn quoted_text_is_no_challenge(data: &[u8]) {
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

    let cut_off = &line.as_bytes()[..line.len() - 1];
    assert_eq!(challenges([cut_off]), [basic(Vec::new())]);

    for junk in ["Basic, ", "Basic, =", "Basic a==", "Basic realm=\"x\"y="] {
        let line = format!("{junk}{}", quoted(&text));
        assert_eq!(challenges([line.as_bytes()]), [basic(Vec::new())]);
    }
}

fn the_verdict_follows_the_challenges(lines: &[&[u8]], read: &[Challenge]) {
    let speaks_of = |challenge: &Challenge, code: Option<&str>| {
        let mut errors = challenge.params.iter().filter(|(name, _)| name == "error");
        match code {
            None => errors.next().is_none(),
            Some(code) => errors.any(|(_, value)| value.eq_ignore_ascii_case(code)),
        }
    };
    let expected = read.is_empty()
        || read.iter().any(|it| {
            it.scheme.eq_ignore_ascii_case("bearer")
                && (speaks_of(it, None) || speaks_of(it, Some("invalid_token")))
        });
    if let Some(rejected) = rejects(StatusCode::UNAUTHORIZED, lines) {
        assert_eq!(rejected, expected, "{read:?}");
    }
    let shouted: Vec<Vec<u8>> = lines.iter().map(|line| line.to_ascii_uppercase()).collect();
    let shouted: Vec<&[u8]> = shouted.iter().map(Vec::as_slice).collect();
    assert_eq!(
        rejects(StatusCode::UNAUTHORIZED, &shouted),
        rejects(StatusCode::UNAUTHORIZED, lines)
    );
    for status in [StatusCode::OK, StatusCode::FORBIDDEN] {
        assert_ne!(rejects(status, lines), Some(true));
    }
}

/// The verdict on an answer with this field; `None` if no header can hold these lines.
fn rejects(status: StatusCode, lines: &[&[u8]]) -> Option<bool> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(line).ok()?);
    }
    Some(BearerChallenge.rejects(status, &headers))
}

/// By the grammar of RFC 9110 §11, with every value quoted.
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

/// `token` of RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}
