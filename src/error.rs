//! The errors of this crate, with texts that say what to do.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// A boxed error of any type, as tower's middleware uses it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The reason why there is no token.
///
/// Cheap to clone: all callers that wait for one fetch get the same error.
///
/// The text says what to do and is safe to log: it contains no token, secret, response body or URL.
/// It is the same each time that a failure is repeated, so that logs group; figures that change,
/// such as the remaining pause, are in the accessors and in `Debug`.
#[derive(Clone)]
pub struct TokenError {
    details: Arc<Details>,
    retry_after: Option<Duration>,
}

struct Details {
    kind: TokenErrorKind,
    transient: bool,
    /// A time limit ended the try, so another try is worth it however long this one took.
    retryable_timeout: bool,
    /// The configured time limit that was reached.
    limit: Option<Duration>,
    status: Option<StatusCode>,
    oauth_error: Option<Box<str>>,
    error_description: Option<Box<str>>,
    cause: Option<BoxError>,
}

/// The kinds of [`TokenError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The token endpoint could not be reached, or the connection broke. Transient.
    Connection,
    /// The fetch reached its time limit
    /// ([`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout)), or its last try reached its
    /// own (`try_timeout` of `ClientCredentialsBuilder`, or a limit of the HTTP client). Transient.
    Timeout,
    /// The token endpoint asks for fewer requests: status 429, or an error code that says so.
    /// Transient.
    Throttled,
    /// The token endpoint failed: status 408 or 5xx, or `temporarily_unavailable`. Transient.
    Unavailable,
    /// The response is neither a token response (RFC 6749 §5.1) nor a known error. Transient.
    InvalidResponse,
    /// The client is unknown, or may not use this grant: `invalid_client`, `unauthorized_client`
    /// (RFC 6749 §5.2). Permanent.
    InvalidClient,
    /// The token endpoint does not accept the scope or the target: `invalid_scope` (RFC 6749 §5.2),
    /// `invalid_target` (RFC 8707 §2). Permanent.
    InvalidScope,
    /// The token endpoint does not accept the token request for another reason: any other 4xx
    /// status, or `unsupported_grant_type` (RFC 6749 §5.2). Permanent.
    Refused,
    /// The token endpoint redirects. No redirect is followed with a secret. Permanent.
    Redirected,
    /// A custom source's own error, see [`TokenError::transient`] and [`TokenError::permanent`].
    Source,
    /// The source panicked. Transient.
    SourcePanicked,
    /// The source returned a token that no header can carry ([`InvalidToken`]). Permanent, except
    /// for an empty one: it may be read from a file that is being replaced.
    InvalidToken,
    /// A setting or a parameter of the token request is invalid ([`InvalidSetting`]). Permanent.
    InvalidSetting,
    /// A token must be fetched, and the caller is not on a tokio runtime with timers. Permanent.
    NoRuntime,
    /// Neither the request nor its task chose a token, although
    /// [`require_request_auth`](crate::BearerAuthLayer::require_request_auth) is set. Permanent.
    RequestAuthMissing,
}

impl TokenError {
    /// Creates the error of a source whose failure is temporary.
    ///
    /// The cache calls the source again, both within the fetch and after a pause.
    ///
    /// `error` becomes the [`source`](std::error::Error::source) of this error, whose own text does
    /// not repeat it: print the whole chain.
    pub fn transient(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Source, true).with_cause(error)
    }

    /// Creates the error of a source whose failure does not end by itself.
    ///
    /// The cache does not call the source again within the fetch, only after a pause. `error`
    /// becomes the [`source`](std::error::Error::source) of this error, as with
    /// [`transient`](Self::transient).
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Source, false).with_cause(error)
    }

    /// Sets the time to wait before the next try, like a `Retry-After` header (RFC 9110 §10.2.3).
    ///
    /// The cache's pause is at least this long, up to 1 h.
    ///
    /// Default: none, and the cache's settings alone decide the pause.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Returns the kind of failure.
    pub fn kind(&self) -> TokenErrorKind {
        self.details.kind
    }

    /// Returns true if the same request may succeed later with nothing changed.
    pub fn is_transient(&self) -> bool {
        self.details.transient
    }

    /// Returns the time until the source may be called again, if it is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the status of the token endpoint's response.
    pub fn status(&self) -> Option<StatusCode> {
        self.details.status
    }

    /// Returns the server's error code (RFC 6749 §5.2), if it is 1 to 64 of `[A-Za-z0-9_.-]`.
    pub fn oauth_error(&self) -> Option<&str> {
        self.details.oauth_error.as_deref()
    }

    /// Returns the server's own text (`error_description`, RFC 6749 §5.2), for an operator to read.
    ///
    /// It is neither in `Display` nor in `Debug`, since a server may repeat a secret that it got.
    pub fn error_description(&self) -> Option<&str> {
        self.details.error_description.as_deref()
    }

    pub(crate) fn new(kind: TokenErrorKind, transient: bool) -> Self {
        Self {
            details: Arc::new(Details {
                kind,
                transient,
                retryable_timeout: false,
                limit: None,
                status: None,
                oauth_error: None,
                error_description: None,
                cause: None,
            }),
            retry_after: None,
        }
    }

    /// Creates the error of a fetch that reached its time limit.
    pub(crate) fn timeout(limit: Duration) -> Self {
        Self::new(TokenErrorKind::Timeout, true).edit(|details| details.limit = Some(limit))
    }

    pub(crate) fn with_cause(self, cause: impl Into<BoxError>) -> Self {
        let cause = cause.into();
        self.edit(|details| details.cause = Some(cause))
    }

    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_kind(self, kind: TokenErrorKind) -> Self {
        self.edit(|details| details.kind = kind)
    }

    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        self.edit(|details| details.status = Some(status))
    }

    /// Adds what the server says. A code with other characters is dropped, since it could add lines
    /// or secrets to a log.
    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_oauth_error(self, code: &str, description: Option<String>) -> Self {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_safe = (1..=64).contains(&code.len()) && code.bytes().all(allowed);
        self.edit(|details| {
            details.oauth_error = is_safe.then(|| code.into());
            details.error_description = description.map(String::into_boxed_str);
        })
    }

    /// Marks a try that a time limit ended: it may be tried again whatever it took.
    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_retryable_timeout(self) -> Self {
        self.edit(|details| details.retryable_timeout = true)
    }

    /// Returns true if a time limit of one try ended it.
    pub(crate) fn is_retryable_timeout(&self) -> bool {
        self.details.retryable_timeout
    }

    /// Changes an error that is being made and has no clones yet.
    fn edit(mut self, change: impl FnOnce(&mut Details)) -> Self {
        if let Some(details) = Arc::get_mut(&mut self.details) {
            change(details);
        }
        self
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.details;
        match (details.kind, &details.cause, details.limit) {
            (TokenErrorKind::InvalidToken, Some(cause), _) => write!(f, "{cause}")?,
            (TokenErrorKind::InvalidSetting, Some(cause), _) => {
                write!(f, "invalid setting or request parameter: {cause}")?;
            }
            (TokenErrorKind::Timeout, _, Some(limit)) => {
                f.write_str("the token endpoint did not answer within ")?;
                write_limit(f, limit)?;
                f.write_str(": check that it is reachable, or raise `fetch_timeout`")?;
            }
            (kind, ..) => f.write_str(kind.text(details.transient))?,
        }
        match (details.status, &details.oauth_error) {
            (Some(status), Some(code)) => write!(f, " ({code}, HTTP {})", status.as_u16())?,
            (Some(status), None) => write!(f, " (HTTP {})", status.as_u16())?,
            (None, Some(code)) => write!(f, " ({code})")?,
            (None, None) => {}
        }
        match self.retry_after {
            Some(Duration::ZERO) => f.write_str("; it may be retried now"),
            Some(_) => f.write_str("; it may be retried after a pause, see `retry_after`"),
            None => Ok(()),
        }
    }
}

/// Writes whole seconds as `30 s`, and anything else in milliseconds, rounded up.
fn write_limit(f: &mut fmt::Formatter<'_>, limit: Duration) -> fmt::Result {
    if limit.subsec_nanos() == 0 {
        write!(f, "{} s", limit.as_secs())
    } else {
        write!(f, "{} ms", limit.as_nanos().div_ceil(1_000_000))
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.details.kind)
            .field("transient", &self.details.transient)
            .field("limit", &self.details.limit)
            .field("status", &self.details.status)
            .field("oauth_error", &self.details.oauth_error)
            .field("retry_after", &self.retry_after)
            .field("cause", &self.details.cause)
            .finish_non_exhaustive()
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.details.kind {
            // `Display` contains the cause, and a report should not show it twice.
            TokenErrorKind::InvalidToken | TokenErrorKind::InvalidSetting => None,
            _ => self.details.cause.as_deref().map(|cause| cause as _),
        }
    }
}

impl From<InvalidToken> for TokenError {
    /// Converts an empty token into a transient error and any other invalid one into a permanent
    /// error.
    ///
    /// A file that is being replaced is empty for a moment, so the cache tries again.
    fn from(error: InvalidToken) -> Self {
        Self::new(TokenErrorKind::InvalidToken, error.is_empty()).with_cause(error)
    }
}

impl From<InvalidSetting> for TokenError {
    fn from(error: InvalidSetting) -> Self {
        Self::new(TokenErrorKind::InvalidSetting, false).with_cause(error)
    }
}

impl TokenErrorKind {
    fn text(self, transient: bool) -> &'static str {
        match self {
            Self::Connection => {
                "the token endpoint cannot be reached: check its host, port, proxy and TLS settings"
            }
            Self::Timeout => {
                "the token endpoint did not answer in time: check that it is reachable, or raise \
                 the time limit"
            }
            Self::Throttled => {
                "the token endpoint asks for fewer token requests: wait, or lower \
                 `max_concurrent_fetches`"
            }
            Self::Unavailable => {
                "the token endpoint is failing: wait until it recovers, or ask its operator"
            }
            Self::InvalidResponse => {
                "the response is not a token response: check that the token URL is the URL of the \
                 token endpoint"
            }
            Self::InvalidClient => {
                "the token endpoint does not accept the client: check `client_id`, \
                 `client_secret` and `client_authentication`"
            }
            Self::InvalidScope => {
                "the token endpoint does not accept the scope, resource or audience: check their \
                 values"
            }
            Self::Refused => {
                "the token endpoint does not accept the token request: see `oauth_error` and \
                 `error_description` for the reason"
            }
            Self::Redirected => {
                "the token endpoint redirects, and no redirect is followed with a secret: set the \
                 token URL to the final URL"
            }
            Self::Source if transient => "the token source failed and may recover by itself",
            Self::Source => "the token source failed and will not recover by itself: fix the cause",
            Self::SourcePanicked => "the token source panicked: fix it",
            Self::InvalidToken => "the token source returned an invalid token: fix it",
            Self::InvalidSetting => "invalid setting or request parameter",
            Self::NoRuntime => {
                "fetching a token needs a tokio runtime with timers: call from within a runtime \
                 that was built with `enable_all`"
            }
            Self::RequestAuthMissing => {
                "neither the request nor its task chose a token: add a `RequestAuth`"
            }
        }
    }
}

/// A value that cannot be an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidToken {
    /// The position of the first byte that cannot be sent; `None` for an empty value.
    position: Option<usize>,
}

impl InvalidToken {
    pub(crate) fn empty() -> Self {
        Self { position: None }
    }

    pub(crate) fn at(position: usize) -> Self {
        Self {
            position: Some(position),
        }
    }

    /// Returns true if the value is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.position.is_none()
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            None => f.write_str(
                "the access token is empty: it must be one or more of the bytes 0x21 to 0x7E",
            ),
            Some(position) => write!(
                f,
                "the access token cannot be sent: it must be bytes 0x21 to 0x7E only, but there is \
                 another at position {position} (was a line break or space read with it?)"
            ),
        }
    }
}

impl Error for InvalidToken {}

/// A setting or request parameter with an invalid value, and the requirement that it must meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    setting: &'static str,
    requirement: Cow<'static, str>,
}

impl InvalidSetting {
    /// Creates the error of a setting that does not meet `requirement`, a text that begins with
    /// "must".
    pub(crate) fn new(setting: &'static str, requirement: impl Into<Cow<'static, str>>) -> Self {
        Self {
            setting,
            requirement: requirement.into(),
        }
    }

    /// Returns the name of the setting, which is the name of its setter.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.setting, self.requirement)
    }
}

impl Error for InvalidSetting {}

#[cfg(test)]
mod tests;
