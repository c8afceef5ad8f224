//! Parses the response of the token endpoint (RFC 6749 §5) into a token or a typed error.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::clock;
use crate::error::{TokenError, TokenErrorKind};
use crate::token::{AccessToken, LONGEST_LIFE};

/// The maximum length of a body, in bytes. Longer ones are not parsed.
pub(crate) const LONGEST_BODY: usize = 256 * 1024;

/// The error codes that waiting does not fix, even in a response with status 200.
const PERMANENT_CODES: [&str; 5] = [
    "invalid_client",
    "unauthorized_client",
    "invalid_scope",
    "invalid_target",
    "unsupported_grant_type",
];

const NOT_AN_OBJECT: &str = "the body is not a JSON object in UTF-8";

/// The members of the JSON object that are used. Their types are lenient, as real servers differ.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Members<'a> {
    access_token: Value,
    token_type: Value,
    /// Unparsed, since a number may exceed every numeric type.
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
    scope: Value,
    error: Value,
    error_description: Value,
}

/// Parses a response of the token endpoint.
///
/// `body` is `None` if it was longer than [`LONGEST_BODY`].
pub(crate) fn parse(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
) -> Result<AccessToken, TokenError> {
    let error = match body.map(members) {
        Some(Ok(members)) if status.is_success() && text(&members.error).is_none() => {
            match token(members) {
                Ok(token) => return Ok(token),
                Err(cause) => invalid_response(status).with_cause(cause),
            }
        }
        Some(Ok(members)) => error_response(status, Some(&members)),
        _ if !status.is_success() => error_response(status, None),
        Some(Err(cause)) => invalid_response(status).with_cause(cause),
        None => {
            let cause = format!("the body is longer than {LONGEST_BODY} bytes");
            invalid_response(status).with_cause(cause)
        }
    };
    Err(match retry_after(headers) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    })
}

fn members(body: &[u8]) -> Result<Members<'_>, &'static str> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err("the body is empty");
    }
    // serde would accept an array as the members in order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(NOT_AN_OBJECT);
    }
    // serde's message is dropped, since it may repeat parts of the body.
    serde_json::from_slice(body).map_err(|_| NOT_AN_OBJECT)
}

fn token(members: Members<'_>) -> Result<AccessToken, &'static str> {
    let Value::String(value) = members.access_token else {
        return Err("the body has no `access_token` that is a string");
    };
    let is_bearer = match &members.token_type {
        Value::Null => true,
        Value::String(token_type) => token_type.eq_ignore_ascii_case("bearer"),
        _ => false,
    };
    if !is_bearer {
        return Err("the `token_type` is not Bearer (RFC 6750)");
    }
    let mut token = AccessToken::new(value)
        .map_err(|_| "the `access_token` is not one or more of the bytes 0x21 to 0x7E")?;
    if let Some(lifetime) = members.expires_in.and_then(lifetime) {
        token = token.with_lifetime(lifetime);
    }
    if let Value::String(scope) = members.scope {
        token = token.with_scope(scope);
    }
    Ok(token)
}

/// Returns the lifetime if it is a positive number, also in a string. Any other value is ignored.
fn lifetime(expires_in: &RawValue) -> Option<Duration> {
    let raw = expires_in.get();
    let text: String = if raw.starts_with('"') {
        serde_json::from_str(raw).ok()?
    } else {
        raw.to_owned()
    };
    let text: &str = text.trim();
    // Rust parses `inf` and `NaN` as numbers, which JSON does not know.
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first))
        || !text.contains(|char: char| char.is_ascii_digit())
    {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    if seconds <= 0.0 {
        return None;
    }
    Some(
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(LONGEST_LIFE)
            .min(LONGEST_LIFE),
    )
}

/// Returns the error for a response that is not a token response, by its error code and status.
fn error_response(status: StatusCode, members: Option<&Members<'_>>) -> TokenError {
    let code = members.and_then(|members| text(&members.error));
    let description = members
        .and_then(|members| text(&members.error_description))
        .map(str::to_owned);
    let (kind, transient) = kind(status, code.unwrap_or_default());
    let error = TokenError::new(kind, transient).with_status(status);
    match code {
        Some(code) => error.with_oauth_error(code, description),
        None => error,
    }
}

fn kind(status: StatusCode, code: &str) -> (TokenErrorKind, bool) {
    use TokenErrorKind as Kind;

    let by_code = match code {
        "too_many_requests" | "slow_down" => Some((Kind::Throttled, true)),
        "temporarily_unavailable" => Some((Kind::Unavailable, true)),
        "invalid_client" | "unauthorized_client" => Some((Kind::InvalidClient, false)),
        "invalid_scope" | "invalid_target" => Some((Kind::InvalidScope, false)),
        code if PERMANENT_CODES.contains(&code) => Some((Kind::Refused, false)),
        _ => None,
    };
    match status.as_u16() {
        200..=299 => by_code.unwrap_or((Kind::InvalidResponse, true)),
        300..=399 => (Kind::Redirected, false),
        408 => (Kind::Unavailable, true),
        429 => (Kind::Throttled, true),
        400..=499 => by_code.unwrap_or((Kind::Refused, false)),
        500..=599 => (Kind::Unavailable, true),
        _ => (Kind::InvalidResponse, true),
    }
}

fn invalid_response(status: StatusCode) -> TokenError {
    TokenError::new(TokenErrorKind::InvalidResponse, true).with_status(status)
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// Returns the time to wait by the `Retry-After` header, in seconds or as an HTTP date (RFC 9110
/// §10.2.3). A date in the past means zero.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow still mean a long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(clock::wall_now()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
