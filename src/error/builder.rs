//! Builds errors with all details, for custom sources and for tests.

use std::time::Duration;

use http::StatusCode;

use super::{BoxError, TokenError, TokenErrorKind, safe_code};

impl TokenError {
    /// Creates a builder for an error of this kind, with the details of a token endpoint's
    /// response.
    ///
    /// It is for custom sources that talk to a token endpoint, and for tests. Other sources need
    /// only [`transient`](Self::transient) and [`permanent`](Self::permanent).
    ///
    /// ```
    /// use bearer_auth::{TokenError, TokenErrorKind};
    ///
    /// let error = TokenError::builder(TokenErrorKind::InvalidClient)
    ///     .status(401)
    ///     .oauth_error("invalid_client")
    ///     .build();
    /// assert_eq!(error.oauth_error(), Some("invalid_client"));
    /// assert!(!error.is_transient());
    /// ```
    pub fn builder(kind: TokenErrorKind) -> TokenErrorBuilder {
        TokenErrorBuilder {
            error: Self::new(kind, is_mostly_transient(kind)),
        }
    }
}

/// Builds a [`TokenError`], see [`TokenError::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenErrorBuilder {
    error: TokenError,
}

impl TokenErrorBuilder {
    /// Sets the status of the token endpoint's response.
    ///
    /// A number outside of 100 to 999 is not a status (RFC 9110 §15): the error then has none.
    ///
    /// Default: none.
    pub fn status(self, status: u16) -> Self {
        let status = StatusCode::from_u16(status).ok();
        self.edit(|error| error.edit(|details| details.status = status))
    }

    /// Sets the server's error code (RFC 6749 §5.2).
    ///
    /// A code that is not 1 to 64 of `[A-Za-z0-9_.-]` is not safe to log: the error then has none.
    ///
    /// Default: none.
    pub fn oauth_error(self, code: &str) -> Self {
        let code = safe_code(code);
        self.edit(|error| error.edit(|details| details.oauth_error = code))
    }

    /// Sets the server's own text (RFC 6749 §5.2), which only
    /// [`error_description`](TokenError::error_description) returns.
    ///
    /// Default: none.
    pub fn error_description(self, description: impl Into<String>) -> Self {
        let description = description.into().into_boxed_str();
        self.edit(|error| error.edit(|details| details.error_description = Some(description)))
    }

    /// Sets the time to wait before the next try, as [`TokenError::with_retry_after`] does.
    ///
    /// Default: none, and the cache's settings alone decide the pause.
    pub fn retry_after(self, wait: Duration) -> Self {
        self.edit(|error| error.with_retry_after(wait))
    }

    /// Sets if the same request may succeed later with nothing changed.
    ///
    /// Default: as the docs of the [`TokenErrorKind`] say; true for
    /// [`Source`](TokenErrorKind::Source) and [`CredentialFile`](TokenErrorKind::CredentialFile).
    pub fn transient(self, transient: bool) -> Self {
        self.edit(|error| error.edit(|details| details.transient = transient))
    }

    /// Sets the [`source`](std::error::Error::source) of the error.
    ///
    /// Default: none.
    pub fn cause(self, cause: impl Into<BoxError>) -> Self {
        self.edit(|error| error.with_cause(cause))
    }

    /// Builds the error.
    pub fn build(self) -> TokenError {
        self.error
    }

    fn edit(self, change: impl FnOnce(TokenError) -> TokenError) -> Self {
        Self {
            error: change(self.error),
        }
    }
}

/// Returns true if errors of this kind are transient unless something else is said.
fn is_mostly_transient(kind: TokenErrorKind) -> bool {
    use TokenErrorKind as Kind;

    matches!(
        kind,
        Kind::Connection
            | Kind::Timeout
            | Kind::Throttled
            | Kind::Unavailable
            | Kind::InvalidResponse
            | Kind::CredentialFile
            | Kind::Source
            | Kind::SourcePanicked
    )
}
