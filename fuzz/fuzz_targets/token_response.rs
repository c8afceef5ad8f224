//! Responses of a token endpoint: the parsed token or error, and the text of the error.
//!
//! Input: two bytes for the status, two for a position in the body, a `Retry-After` that ends with
//! a line feed, the body.
#![no_main]

use std::error::Error;
use std::time::Duration;

use bearer_auth::fuzzing::token_response;
use bearer_auth::{AccessToken, TokenError, TokenErrorKind};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Map, Value};

const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Visible ASCII, so that a token can contain it, with characters that no error code has.
const MARKER: &str = "do<not>log";

type Outcome = Result<(AccessToken, Option<Duration>), TokenError>;

fuzz_target!(|data: &[u8]| -> Corpus { run(data).map_or(Corpus::Reject, |()| Corpus::Keep) });

fn run(data: &[u8]) -> Option<()> {
    let ([high, low, at_high, at_low], rest) = data.split_first_chunk()?;
    let (retry_after, body) = rest.split_at(rest.iter().position(|byte| *byte == b'\n')?);
    let body = &body[1..];
    let status = 100 + u16::from_be_bytes([*high, *low]) % 900;
    let at = usize::from(u16::from_be_bytes([*at_high, *at_low])) % (body.len() + 1);

    let status = StatusCode::from_u16(status).ok()?;
    let mut headers = HeaderMap::new();
    if let Ok(retry_after) = HeaderValue::from_bytes(retry_after) {
        headers.insert(RETRY_AFTER, retry_after);
    }

    let outcome = token_response(status, &headers, Some(body));
    check_outcome(&outcome, status, &headers);
    let too_long = token_response(status, &headers, None);
    assert!(too_long.is_err());
    check_outcome(&too_long, status, &headers);

    let (before, after) = body.split_at(at);
    let marked = [before, MARKER.as_bytes(), after].concat();
    check_no_marker(&token_response(status, &headers, Some(&marked)));

    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    if let Ok(mut members) = serde_json::from_slice::<Map<String, Value>>(text) {
        if let Ok((token, _)) = &outcome {
            assert_eq!(
                Some(token.expose_secret()),
                str_of(&members, "access_token")
            );
        }
        let outcome = token_response(status, &headers, Some(&json(&members)));
        check_outcome(&outcome, status, &headers);
        check_members(&outcome, status, &members);

        let others = members.iter_mut().filter(|(name, _)| *name != "error");
        others.for_each(|(_, value)| mark(value));
        check_no_marker(&token_response(status, &headers, Some(&json(&members))));
        members.get_mut("error").map(mark);
        check_no_marker(&token_response(status, &headers, Some(&json(&members))));
    }
    Some(())
}

/// Checks rules that hold for every body.
fn check_outcome(outcome: &Outcome, status: StatusCode, headers: &HeaderMap) {
    match outcome {
        Ok((token, lifetime)) => {
            assert!(status.is_success(), "{status}");
            let value = token.expose_secret();
            assert!(!value.is_empty() && value.bytes().all(|byte| (0x21..=0x7E).contains(&byte)));
            assert_eq!(token.authorization(), &format!("Bearer {value}"));
            assert!(token.authorization().is_sensitive());
            let lifetime = lifetime.unwrap_or_default();
            assert!(lifetime <= TEN_YEARS, "{lifetime:?}");
            assert_eq!(token.expires_at().is_none(), lifetime.is_zero());
        }
        Err(error) => {
            assert_eq!(error.status(), Some(status));
            let code = error.oauth_error();
            assert!(code.is_none_or(is_plain), "{code:?}");
            let actual = (error.kind(), error.is_transient());
            assert_eq!(actual, expected_kind(status, code), "{status} {code:?}");
            check_retry_after(error.retry_after(), headers);
        }
    }
}

/// Compares the outcome with the members of the body, each of which occurs once.
fn check_members(outcome: &Outcome, status: StatusCode, members: &Map<String, Value>) {
    let error = str_of(members, "error").filter(|code| !code.is_empty());
    let token = str_of(members, "access_token")
        .filter(|it| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_graphic()));
    let is_bearer = match members.get("token_type") {
        None | Some(Value::Null) => true,
        Some(it) => it.as_str().is_some_and(|it| {
            let is_same = |bearer: &&str| it.eq_ignore_ascii_case(bearer);
            ["bearer", "bearertoken"].iter().any(is_same)
        }),
    };
    match outcome {
        Ok((granted, lifetime)) => {
            assert_eq!((error, is_bearer), (None, true));
            assert_eq!(Some(granted.expose_secret()), token);
            assert_eq!(granted.scope(), str_of(members, "scope"));
            let expected = members.get("expires_in").and_then(expected_lifetime);
            assert_eq!(*lifetime, expected);
        }
        Err(actual) => {
            assert!(!status.is_success() || error.is_some() || token.is_none() || !is_bearer);
            assert_eq!(actual.oauth_error(), error.filter(|code| is_plain(code)));
            let description = str_of(members, "error_description").filter(|it| !it.is_empty());
            assert_eq!(
                actual.error_description(),
                description.filter(|_| error.is_some())
            );
        }
    }
}

/// Returns a number, or a string that contains one, as seconds, between zero and ten years. Returns
/// nothing for anything else.
fn expected_lifetime(expires_in: &Value) -> Option<Duration> {
    let seconds: f64 = match expires_in {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => Some(text.trim())
            .filter(|text| is_numeric(text))
            .and_then(|text| text.parse().ok()),
        _ => None,
    }?;
    Some(Duration::from_secs_f64(
        seconds.clamp(0.0, TEN_YEARS.as_secs_f64()),
    ))
}

/// Returns true for an optional sign, digits with at most one point, and an optional exponent.
fn is_numeric(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = |text: &str| text.strip_prefix(['+', '-']).unwrap_or(text).to_owned();
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    digits(&unsigned(mantissa).replacen('.', "", 1)) && digits(&unsigned(exponent))
}

/// Returns the kind, and true for a transient error, by rules 11 and 15 of `docs/behaviour.md`.
fn expected_kind(status: StatusCode, code: Option<&str>) -> (TokenErrorKind, bool) {
    use TokenErrorKind as Kind;

    let status = status.as_u16();
    let code = code.unwrap_or_default();
    let code_counts = matches!(status / 100, 2 | 4) && status != 408 && status != 429;
    if status == 429 || code_counts && ["too_many_requests", "slow_down"].contains(&code) {
        return (Kind::Throttled, true);
    }
    let unavailable = ["temporarily_unavailable", "server_error", "unknown_error"];
    if status == 408 || status / 100 == 5 || code_counts && unavailable.contains(&code) {
        return (Kind::Unavailable, true);
    }
    if status / 100 == 3 {
        return (Kind::Redirected, false);
    }
    if code_counts {
        match code {
            "invalid_client" | "unauthorized_client" => return (Kind::InvalidClient, false),
            "invalid_scope" | "invalid_target" => return (Kind::InvalidScope, false),
            "unsupported_grant_type" => return (Kind::Refused, false),
            _ if status / 100 == 4 => return (Kind::Refused, false),
            _ => {}
        }
    }
    (Kind::InvalidResponse, true)
}

/// Seconds are returned unchanged. A date gives a duration or nothing, anything else gives nothing.
fn check_retry_after(retry_after: Option<Duration>, headers: &HeaderMap) {
    let value = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
    let value = value.unwrap_or_default().trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = value.trim_start_matches('0');
        let seconds = if digits.is_empty() {
            Ok(0)
        } else {
            digits.parse()
        };
        assert_eq!(
            retry_after,
            Some(Duration::from_secs(seconds.unwrap_or(u64::MAX)))
        );
    } else if retry_after.is_some() {
        assert!(value.is_ascii() && value.contains(':'), "{value}");
    }
}

/// Appends the marker to every string.
fn mark(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str(MARKER),
        Value::Array(values) => values.iter_mut().for_each(mark),
        Value::Object(members) => members.values_mut().for_each(mark),
        _ => {}
    }
}

/// The marker is in no `Debug` or `Display` output, except in that of a token's scope.
fn check_no_marker(outcome: &Outcome) {
    match outcome {
        Ok((token, _)) => {
            let shown = format!("{token:?} {token:#?}");
            let in_scope = token.scope().is_some_and(|it| it.contains(MARKER));
            assert!(in_scope || !shown.contains(MARKER), "{shown}");
        }
        Err(error) => {
            let shown = shown(error);
            assert!(!shown.contains(MARKER), "{shown}");
        }
    }
}

/// Returns everything that an error and its sources print.
fn shown(error: &TokenError) -> String {
    let mut shown = String::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        shown += &format!("{error}\n{error:?}\n{error:#?}\n");
        next = error.source();
    }
    shown
}

fn is_plain(code: &str) -> bool {
    (1..=64).contains(&code.len())
        && code
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn str_of<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

fn json(members: &Map<String, Value>) -> Vec<u8> {
    serde_json::to_vec(members).unwrap()
}
