//! What can go wrong, and what to do about it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// A boxed error, by tower's convention.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why there is no token.
///
/// Cheap to clone: everyone who waited for one flight gets the same failure. Its text says what to
/// do and is safe to log: no token, no secret, no response body, no URL.
#[derive(Clone)]
pub struct TokenError {
    details: Arc<Details>,
    retry_after: Option<Duration>,
}

struct Details {
    kind: TokenErrorKind,
    transient: bool,
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
    /// No answer within the flight's limit
    /// ([`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout)). Transient.
    Timeout,
    /// The token endpoint asks for fewer requests: 429, or a code that says so. Transient.
    Throttled,
    /// The token endpoint failed: 408, 5xx or `temporarily_unavailable`. Transient.
    Unavailable,
    /// The answer is no token response (RFC 6749 §5.1), nor an error that is known. Transient.
    InvalidResponse,
    /// The client is not known, or may not use this grant: `invalid_client`,
    /// `unauthorized_client` (RFC 6749 §5.2). Permanent.
    InvalidClient,
    /// The scope or target is refused: `invalid_scope` (RFC 6749 §5.2), `invalid_target`
    /// (RFC 8707 §2). Permanent.
    InvalidScope,
    /// The token request is refused for another reason: any other 4xx, or `unsupported_grant_type`
    /// (RFC 6749 §5.2). Permanent.
    Refused,
    /// The token endpoint redirects; no redirect is followed with a secret. Permanent.
    Redirected,
    /// A custom source's own error, see [`TokenError::transient`] and [`TokenError::permanent`].
    Source,
    /// The source panicked. Transient.
    SourcePanicked,
    /// The source made a token that no header can carry ([`InvalidToken`]). Permanent.
    InvalidToken,
    /// A setting can't work ([`InvalidSetting`]). Permanent.
    InvalidSetting,
    /// The caller is not on a tokio runtime with timers, and no token is at hand. Permanent.
    NoRuntime,
    /// Neither the request nor its task chose a token, though
    /// [`require_request_auth`](crate::BearerAuthLayer::require_request_auth) is set. Permanent.
    RequestAuthMissing,
}

impl TokenError {
    /// A source's own failure that may pass.
    ///
    /// It is tried again, in the flight and after a pause.
    ///
    /// `error` is the [`source`](std::error::Error::source) of this one, whose own text doesn't repeat
    /// it: print the chain to see both.
    pub fn transient(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Source, true).with_cause(error)
    }

    /// A source's own failure that will not pass by itself.
    ///
    /// It is not tried again in the flight, only after a pause. `error` becomes the
    /// [`source`](std::error::Error::source) of this one, as with [`transient`](Self::transient).
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self::new(TokenErrorKind::Source, false).with_cause(error)
    }

    /// Says how long to wait before the next try, as `Retry-After` does (RFC 9110 §10.2.3).
    ///
    /// The pause is at least that long, up to 1 h. Default: nothing is said, and the pause is the cache's.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> TokenErrorKind {
        self.details.kind
    }

    /// Whether the same request may succeed later with nothing changed.
    pub fn is_transient(&self) -> bool {
        self.details.transient
    }

    /// How long it is until the token endpoint is asked again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The status that the token endpoint answered with.
    pub fn status(&self) -> Option<StatusCode> {
        self.details.status
    }

    /// The server's error code (RFC 6749 §5.2), if it is 1 to 64 of `[A-Za-z0-9_.-]`.
    pub fn oauth_error(&self) -> Option<&str> {
        self.details.oauth_error.as_deref()
    }

    /// The server's own words (`error_description`, RFC 6749 §5.2), for an operator's eyes.
    ///
    /// In no `Display` or `Debug`: a server may repeat what it was sent.
    pub fn error_description(&self) -> Option<&str> {
        self.details.error_description.as_deref()
    }

    pub(crate) fn new(kind: TokenErrorKind, transient: bool) -> Self {
        Self {
            details: Arc::new(Details {
                kind,
                transient,
                status: None,
                oauth_error: None,
                error_description: None,
                cause: None,
            }),
            retry_after: None,
        }
    }

    /// Creates the error of a fetch that reached its time limit.
    pub(crate) fn timeout(_limit: Duration) -> Self {
        Self::new(TokenErrorKind::Timeout, true)
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

    /// Keeps a code of the agreed characters only: anything else could smuggle text into a log.
    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_oauth_error(self, code: &str, description: Option<String>) -> Self {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let sound = (1..=64).contains(&code.len()) && code.bytes().all(allowed);
        self.edit(|details| {
            details.oauth_error = sound.then(|| code.into());
            details.error_description = description.map(String::into_boxed_str);
        })
    }

    /// Changes an error that nobody else holds yet, as all are while they are made.
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
        f.write_str(details.kind.text(details.transient))?;
        match (details.status, &details.oauth_error) {
            (Some(status), Some(code)) => write!(f, " ({code}, HTTP {})", status.as_u16())?,
            (Some(status), None) => write!(f, " (HTTP {})", status.as_u16())?,
            (None, Some(code)) => write!(f, " ({code})")?,
            (None, None) => {}
        }
        if let Some(wait) = self.retry_after {
            write!(
                f,
                "; the source is asked again in {:.1} s at the earliest",
                wait.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.details.kind)
            .field("transient", &self.details.transient)
            .field("status", &self.details.status)
            .field("oauth_error", &self.details.oauth_error)
            .field("retry_after", &self.retry_after)
            .field("cause", &self.details.cause)
            .finish_non_exhaustive()
    }
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.details.cause.as_deref().map(|cause| cause as _)
    }
}

impl From<InvalidToken> for TokenError {
    fn from(error: InvalidToken) -> Self {
        Self::new(TokenErrorKind::InvalidToken, false).with_cause(error)
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
                "the token endpoint can't be reached: check its host, port, proxy and TLS settings"
            }
            Self::Timeout => {
                "no token within the limit: check the token endpoint, or raise `fetch_timeout`"
            }
            Self::Throttled => {
                "the token endpoint asks for fewer token requests: wait for `retry_after`, or lower \
                 `max_concurrent_fetches`"
            }
            Self::Unavailable => {
                "the token endpoint fails: wait for `retry_after`, or ask those who run it"
            }
            Self::InvalidResponse => {
                "the answer is no token response: check that the token URL is the token endpoint's"
            }
            Self::InvalidClient => {
                "the token endpoint refuses the client: check `client_id`, `client_secret` and \
                 `client_authentication`"
            }
            Self::InvalidScope => "the token endpoint refuses the scope or target: check it",
            Self::Refused => {
                "the token endpoint refuses the token request: see `oauth_error` and \
                 `error_description` for why"
            }
            Self::Redirected => {
                "the token endpoint redirects, which is not followed with a secret: use its final \
                 URL"
            }
            Self::Source if transient => "the token source failed and may recover",
            Self::Source => "the token source failed and needs attention",
            Self::SourcePanicked => {
                "the token source panicked: mend it, it is asked again after a pause"
            }
            Self::InvalidToken => {
                "the token source made a token that can't be sent: mend it, as the cause says"
            }
            Self::InvalidSetting => {
                "a setting of the token source or cache can't work: change it, as the cause says"
            }
            Self::NoRuntime => {
                "a token must be fetched, which needs a tokio runtime with timers: call from within \
                 one built with `enable_all`"
            }
            Self::RequestAuthMissing => {
                "neither the request nor its task chose a token: add a `RequestAuth`"
            }
        }
    }
}

/// A value that can't be an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidToken {
    /// Where the first byte is that can't be sent; `None` for an empty value.
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
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            None => {
                f.write_str("the access token is empty: expected one or more bytes 0x21 to 0x7E")
            }
            Some(position) => write!(
                f,
                "the access token can't be sent: expected bytes 0x21 to 0x7E only, found another at \
                 position {position} (a line end or a blank that was read with it?)"
            ),
        }
    }
}

impl Error for InvalidToken {}

/// A setting that can't work: says which one, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    setting: &'static str,
    expected: Cow<'static, str>,
}

impl InvalidSetting {
    pub(crate) fn new(setting: &'static str, expected: impl Into<Cow<'static, str>>) -> Self {
        Self {
            setting,
            expected: expected.into(),
        }
    }

    /// The setting's name, as its setter is called.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid `{}`: expected {}", self.setting, self.expected)
    }
}

impl Error for InvalidSetting {}
