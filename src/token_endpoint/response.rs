//! Parses the response of the token endpoint (RFC 6749 §5) into a token or a typed error.

use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::clock;
use crate::error::{TokenError, TokenErrorKind};
use crate::token::{AccessToken, LONGEST_LIFE};
use crate::token_endpoint::response::members::{Members, text};
use crate::token_endpoint::response::repair::repaired;

mod members;
mod repair;

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

/// The values of `token_type` that mean Bearer, in any case. Apigee sends the second.
const BEARER_TYPES: [&str; 2] = ["Bearer", "BearerToken"];

impl AccessToken {
    /// Reads a token from the response of a token endpoint (RFC 6749 §5), for a custom source that
    /// sends the token request itself.
    ///
    /// Reads it as [`ClientCredentials`](crate::ClientCredentials) does: `expires_in` may be a
    /// number in a string, an absent `token_type` means Bearer, text need not be UTF-8, and of a
    /// repeated member the last one counts.
    ///
    /// ```
    /// use bearer_auth::{AccessToken, TokenError, TokenRequest, TokenSource};
    ///
    /// struct RefreshToken {
    ///     client: reqwest::Client,
    ///     refresh_token: String,
    /// }
    ///
    /// #[async_trait::async_trait]
    /// impl TokenSource for RefreshToken {
    ///     async fn fetch(&self, _: &TokenRequest) -> Result<AccessToken, TokenError> {
    ///         let request = self
    ///             .client
    ///             .post("https://identity.example.com/connect/token")
    ///             .header("content-type", "application/x-www-form-urlencoded")
    ///             // This refresh token needs no encoding.
    ///             .body(format!("grant_type=refresh_token&refresh_token={}", self.refresh_token));
    ///         let response = request.send().await.map_err(TokenError::transient)?;
    ///         let (status, headers) = (response.status(), response.headers().clone());
    ///         let body = response.bytes().await.map_err(TokenError::transient)?;
    ///         AccessToken::from_token_response(status, &headers, &body)
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns a [`TokenError`] if the response is not a token response (RFC 6749 §5.1). Its kind
    /// follows from the status and the error code (RFC 6749 §5.2), and it has the time of the
    /// `Retry-After` header. A body of more than 256 KiB is an error, too.
    pub fn from_token_response(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, TokenError> {
        parse(
            status,
            headers,
            (body.len() <= LONGEST_BODY).then_some(body),
        )
    }
}

/// A token response (RFC 6749 §5.1).
pub(crate) struct TokenResponse {
    pub(crate) token: AccessToken,
    pub(crate) refresh_token: Option<Zeroizing<String>>,
}

/// Parses a response of the token endpoint into the access token.
pub(crate) fn parse(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
) -> Result<AccessToken, TokenError> {
    parse_all(status, headers, body).map(|response| response.token)
}

/// Parses a response of the token endpoint.
///
/// `body` is `None` if it was longer than [`LONGEST_BODY`].
pub(crate) fn parse_all(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<&[u8]>,
) -> Result<TokenResponse, TokenError> {
    let body = body.map(repaired);
    let error = match body.as_ref().map(|body| Members::parse(body)) {
        Some(Ok(members)) if status.is_success() && code(&members).is_none() => {
            match token(&members, status) {
                Ok(token) => {
                    let refresh_token = text(members.refresh_token).map(Zeroizing::new);
                    return Ok(TokenResponse {
                        token,
                        refresh_token: refresh_token.filter(|token| !token.is_empty()),
                    });
                }
                Err(error) => error,
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

fn token(members: &Members<'_>, status: StatusCode) -> Result<AccessToken, TokenError> {
    let invalid = |cause: &'static str| invalid_response(status).with_cause(cause);
    let Some(value) = text(members.access_token) else {
        return Err(invalid("the body has no `access_token` that is a string"));
    };
    if !is_bearer(members.token_type) {
        // The server would return the same type again.
        return Err(invalid("the `token_type` is not Bearer (RFC 6750)").without_retry());
    }
    let mut token = AccessToken::new(value)
        .map_err(|_| invalid("the `access_token` is not one or more of the bytes 0x21 to 0x7E"))?;
    token = match members.expires_in.and_then(lifetime) {
        Some(Duration::ZERO) => token.with_ended_lifetime(),
        Some(lifetime) => token.with_lifetime(lifetime),
        None => token,
    };
    if let Some(scope) = text(members.scope) {
        token = token.with_scope(scope);
    }
    Ok(token)
}

/// Returns true for an absent type, and for one that means Bearer.
fn is_bearer(token_type: Option<&RawValue>) -> bool {
    if token_type.is_none_or(|raw| raw.get() == "null") {
        return true;
    }
    text(token_type).is_some_and(|token_type| {
        let is_same = |bearer: &&str| token_type.eq_ignore_ascii_case(bearer);
        BEARER_TYPES.iter().any(is_same)
    })
}

/// Returns the lifetime if it is a number, also in a string; zero if it is zero or less. Any other
/// value is ignored.
fn lifetime(expires_in: &RawValue) -> Option<Duration> {
    // A number is read from its text, since it may exceed every numeric type.
    let text = text(Some(expires_in)).unwrap_or_else(|| expires_in.get().to_owned());
    let text: &str = text.trim();
    // Rust parses `inf` and `NaN` as numbers, which JSON does not know.
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first))
        || !text.contains(|char: char| char.is_ascii_digit())
    {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    if seconds <= 0.0 {
        return Some(Duration::ZERO);
    }
    Some(
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(LONGEST_LIFE)
            .min(LONGEST_LIFE),
    )
}

/// Returns the error for a response that is not a token response, by its error code and status.
fn error_response(status: StatusCode, members: Option<&Members<'_>>) -> TokenError {
    let code = members.and_then(code);
    let (kind, transient) = kind(status, code.as_deref().unwrap_or_default());
    let error = TokenError::new(kind, transient).with_status(status);
    match code {
        Some(code) => {
            let description = members.and_then(|members| text(members.error_description));
            error.with_oauth_error(&code, description.filter(|text| !text.is_empty()))
        }
        None => error,
    }
}

/// Returns the error code if there is one.
fn code(members: &Members<'_>) -> Option<String> {
    text(members.error).filter(|code| !code.is_empty())
}

fn kind(status: StatusCode, code: &str) -> (TokenErrorKind, bool) {
    use TokenErrorKind as Kind;

    let by_code = match code {
        "too_many_requests" | "slow_down" => Some((Kind::Throttled, true)),
        "temporarily_unavailable" | "server_error" | "unknown_error" => {
            Some((Kind::Unavailable, true))
        }
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

/// Returns the time to wait by the `Retry-After` header, in seconds or as an HTTP date (RFC 9110
/// §10.2.3). A date in the past means zero.
///
/// A date counts from the response's own `Date`, since the server's clock may differ from the local
/// one.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow still mean a long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = date(headers, &RETRY_AFTER)?;
    let now = date(headers, &DATE).unwrap_or_else(clock::wall_now);
    Some(until.duration_since(now).unwrap_or_default())
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests;
