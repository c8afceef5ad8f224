//! The errors of this crate, with texts that say what to do.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::token::request::TokenRequest;

mod builder;
mod find;
pub(crate) mod invalid;
mod output;

pub use builder::TokenErrorBuilder;
pub use invalid::{InvalidSetting, InvalidToken};

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
    /// Differs between the caller of the failed fetch and those that the pause affects.
    is_paused: bool,
    /// A cache pauses for exactly `retry_after`, and adds no time of its own.
    is_pause_exact: bool,
}

#[derive(Clone)]
struct Details {
    kind: TokenErrorKind,
    transient: bool,
    /// Another try in the same fetch cannot succeed.
    is_final: bool,
    /// A time limit ended the try, so another try is worth it however long this one took.
    retryable_timeout: bool,
    /// The token request was not sent.
    // Only the refresh token grant asks.
    #[cfg_attr(not(feature = "client-credentials"), allow(dead_code))]
    is_unsent: bool,
    limit: Option<Duration>,
    limited: Limited,
    status: Option<StatusCode>,
    oauth_error: Option<Box<str>>,
    error_description: Option<Box<str>>,
    token_request: Option<TokenRequest>,
    token_endpoint: Option<Box<str>>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// The time that a limit was set for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limited {
    /// A fetch.
    Fetch,
    /// The wait of a caller for a fetch in progress.
    Wait,
    /// The wait of a caller whose fetch was queued for most of it.
    Queue,
}

/// The kinds of [`TokenError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenErrorKind {
    /// The token endpoint could not be reached, or the connection broke. Transient.
    Connection,
    /// The fetch reached its time limit
    /// ([`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout)), its last try reached its own
    /// (`try_timeout` of `ClientCredentialsBuilder`, or a limit of the HTTP client), or the caller
    /// reached that of its wait ([`wait_timeout`](crate::TokenCacheBuilder::wait_timeout)).
    /// Transient.
    Timeout,
    /// The token endpoint asks for fewer requests: status 429, or an error code that says so.
    /// Transient.
    Throttled,
    /// The token endpoint failed: status 408 or 5xx, or the error code `temporarily_unavailable`,
    /// `server_error` or `unknown_error`. Transient.
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
    /// The metadata of the issuer (RFC 8414) is not there or cannot be used. Nothing was sent but
    /// requests for it. Transient for a status of 408, 429 or 5xx, and for a response that is no
    /// metadata; permanent for metadata that fails a check.
    Discovery,
    /// The file of a secret, key or assertion cannot be used. Nothing was sent. Transient if it is
    /// missing, unreadable or empty, as one that is being replaced; permanent for other content.
    CredentialFile,
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
    /// A token must be fetched, and the cache was [closed](crate::TokenCache::close). Permanent.
    Closed,
    /// The source asked its own cache for the token that it was to fetch. Permanent.
    FetchCycle,
    /// There is no refresh token that may be sent: none is stored, the server does not accept it
    /// (`invalid_grant`, RFC 6749 §5.2), or it may have been used up by a token request whose
    /// answer was lost. Or the subject token of an exchange has expired (RFC 8693). A new login is
    /// needed. Permanent.
    LoginRequired,
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

    /// Returns true if this call fetched nothing, because the source is paused after a failure.
    ///
    /// The error is that of the failed fetch. [`retry_after`](Self::retry_after) returns the time
    /// until the pause ends.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Returns the request that failed, such as that of a tenant, if the error comes from a cache.
    ///
    /// It is not in the error's text.
    pub fn token_request(&self) -> Option<&TokenRequest> {
        self.details.token_request.as_ref()
    }

    /// Returns the host of the token endpoint, with the port if it is not the scheme's default,
    /// and without path and query. `None` if the source does not name it.
    ///
    /// It is not in the error's text.
    pub fn token_endpoint(&self) -> Option<&str> {
        self.details.token_endpoint.as_deref()
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
                is_final: false,
                retryable_timeout: false,
                is_unsent: false,
                limit: None,
                limited: Limited::Fetch,
                status: None,
                oauth_error: None,
                error_description: None,
                token_request: None,
                token_endpoint: None,
                cause: None,
            }),
            retry_after: None,
            is_paused: false,
            is_pause_exact: false,
        }
    }

    /// Creates the error of a fetch that reached its time limit.
    pub(crate) fn timeout(limit: Duration) -> Self {
        Self::of_limit(Limited::Fetch, limit)
    }

    /// Creates the error of a caller that reached its time limit before the fetch did.
    pub(crate) fn wait_timeout(limit: Duration) -> Self {
        Self::of_limit(Limited::Wait, limit)
    }

    /// Creates the error of a caller that waited for a slot for most of its time limit.
    pub(crate) fn queue_timeout(limit: Duration) -> Self {
        Self::of_limit(Limited::Queue, limit)
    }

    fn of_limit(limited: Limited, limit: Duration) -> Self {
        Self::new(TokenErrorKind::Timeout, true).edit(|details| {
            details.limit = Some(limit);
            details.limited = limited;
        })
    }

    /// Returns true if most of the time limit was spent in the queue of fetches.
    #[cfg(feature = "tracing")]
    pub(crate) fn is_queue_timeout(&self) -> bool {
        self.details.limited == Limited::Queue
    }

    /// Returns the error for a caller that comes while the source is paused.
    pub(crate) fn paused(mut self, remaining: Duration) -> Self {
        self.is_paused = true;
        self.with_exact_pause(remaining)
    }

    /// Sets exactly the pause that follows, from a source that counts failures itself.
    pub(crate) fn with_exact_pause(mut self, pause: Duration) -> Self {
        self.is_pause_exact = true;
        self.with_retry_after(pause)
    }

    pub(crate) fn is_pause_exact(&self) -> bool {
        self.is_pause_exact
    }

    /// Returns true if another try in the same fetch cannot succeed, although a later fetch may.
    pub(crate) fn is_final(&self) -> bool {
        self.details.is_final
    }

    pub(crate) fn with_cause(self, cause: impl Into<BoxError>) -> Self {
        let cause = Arc::from(cause.into());
        self.edit(|details| details.cause = Some(cause))
    }

    /// Adds the request that the cache fetched a token for.
    pub(crate) fn with_token_request(self, request: &TokenRequest) -> Self {
        if self.details.token_request.is_some() {
            // Added when the fetch failed, and shared by all its callers.
            return self;
        }
        self.edit(|details| details.token_request = Some(request.clone()))
    }

    /// Adds the host of the token endpoint, and its port if that is not the default.
    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_token_endpoint(self, host: &str) -> Self {
        self.edit(|details| details.token_endpoint = Some(host.into()))
    }

    /// Marks a failure that another try in the same fetch cannot end.
    #[cfg(any(feature = "client-credentials", feature = "fleet"))]
    pub(crate) fn without_retry(self) -> Self {
        self.edit(|details| details.is_final = true)
    }

    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_kind(self, kind: TokenErrorKind) -> Self {
        self.edit(|details| details.kind = kind)
    }

    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        self.edit(|details| details.status = Some(status))
    }

    /// Adds what the server says.
    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_oauth_error(self, code: &str, description: Option<String>) -> Self {
        self.edit(|details| {
            details.oauth_error = safe_code(code);
            details.error_description = description.map(String::into_boxed_str);
        })
    }

    /// Marks a try that a time limit ended: it may be tried again whatever it took.
    #[cfg(feature = "client-credentials")]
    pub(crate) fn with_retryable_timeout(self) -> Self {
        self.edit(|details| details.retryable_timeout = true)
    }

    /// Notes that the token request was not sent: the token endpoint knows nothing of it.
    pub(crate) fn with_unsent(self) -> Self {
        self.edit(|details| details.is_unsent = true)
    }

    /// Returns true if the token request was certainly not sent.
    pub(crate) fn is_unsent(&self) -> bool {
        self.details.is_unsent
    }

    /// Returns true if a time limit of one try ended it.
    pub(crate) fn is_retryable_timeout(&self) -> bool {
        self.details.retryable_timeout
    }

    /// Returns true if a source that failed with this error after `took` is called again within the
    /// same fetch.
    pub(crate) fn allows_another_try(&self, took: Duration) -> bool {
        /// After more than this, only if a time limit ended the try.
        const QUICK_FAILURE: Duration = Duration::from_secs(1);

        self.is_transient()
            && !self.is_final()
            && !self.is_paused
            && self.retry_after.is_none()
            && (self.is_retryable_timeout() || took < QUICK_FAILURE)
    }

    /// Changes the details of this error only: its clones keep theirs.
    fn edit(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(Arc::make_mut(&mut self.details));
        self
    }
}

impl Details {
    /// Returns the cause if the error's own text contains it.
    fn shown_cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        let cause = self.cause.as_deref()?;
        (cause.is::<InvalidToken>() || cause.is::<InvalidSetting>()).then_some(cause)
    }
}

/// Returns the code, or `None` if it has other characters, which could add lines or secrets to a
/// log.
pub(crate) fn safe_code(code: &str) -> Option<Box<str>> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_safe = (1..=64).contains(&code.len()) && code.bytes().all(allowed);
    is_safe.then(|| code.into())
}

impl Error for TokenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // A report should not show the cause twice.
        if self.details.shown_cause().is_some() {
            return None;
        }
        self.details.cause.as_deref().map(|cause| cause as _)
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
                "the token endpoint asks for fewer token requests: wait, lower \
                 `max_concurrent_fetches`, or limit the token transport"
            }
            Self::Unavailable => {
                "the token endpoint is failing: wait until it recovers, or ask its operator"
            }
            Self::InvalidResponse => {
                "the response is not a token response: check that the token URL is the URL of the \
                 token endpoint"
            }
            Self::InvalidClient => {
                "the token endpoint does not accept the client: check `client_id`, its secret, key \
                 or assertion, and `client_authentication`"
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
            Self::Discovery => {
                "the issuer's metadata cannot be used, see the cause: check the issuer, and that \
                 the token endpoint is at its origin or allowed by `allow_token_origin`"
            }
            Self::CredentialFile => {
                "the file of the secret, key or assertion cannot be used, see the cause: check its \
                 path, that this process may read it, and its content"
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
            Self::Closed => {
                "the token cache was closed: use it before the shutdown, or make another one"
            }
            Self::FetchCycle => {
                "the token source asked its own cache for the token that it fetches: use another \
                 cache or another token request"
            }
            Self::LoginRequired => {
                "there is no refresh token or subject token that may be sent: log in again"
            }
            Self::RequestAuthMissing => {
                "neither the request nor its task chose a token: add a `RequestAuth`"
            }
        }
    }
}

#[cfg(test)]
mod tests;
