//! Finds the crate's own error inside of the errors of other crates.

use std::error::Error;
use std::io;
use std::sync::Arc;

use super::TokenError;

impl TokenError {
    /// Finds the first `TokenError` in an error and its causes.
    ///
    /// It looks through tower's boxed errors, `reqwest_middleware::Error` (of each version that is
    /// enabled), `std::io::Error`, and every wrapper that returns what it wraps from
    /// [`source`](Error::source), such as those of reqwest-retry and tonic.
    ///
    /// ```
    /// use bearer_auth::{BoxError, TokenError, TokenErrorKind};
    ///
    /// let error: BoxError = TokenError::transient("no connection").into();
    /// let found = TokenError::find(error.as_ref()).map(TokenError::kind);
    /// assert_eq!(found, Some(TokenErrorKind::Source));
    /// ```
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let found = error
                .downcast_ref::<Self>()
                .or_else(|| error.downcast_ref::<Box<Self>>().map(|inner| &**inner))
                .or_else(|| error.downcast_ref::<Arc<Self>>().map(|inner| &**inner));
            if found.is_some() {
                return found;
            }
            next = inner(error);
        }
        None
    }
}

/// Returns the error inside of `error`.
///
/// The `source` of a wrapper that shows the inner error's text as its own is the source of the
/// inner error, which would skip the inner error itself.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    #[cfg(feature = "reqwest-middleware")]
    if let Some(reqwest_middleware::Error::Middleware(inner)) = error.downcast_ref() {
        return Some(inner.as_ref());
    }
    #[cfg(feature = "reqwest-middleware-0-4")]
    if let Some(reqwest_middleware_0_4::Error::Middleware(inner)) = error.downcast_ref() {
        return Some(inner.as_ref());
    }
    if let Some(inner) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return Some(inner);
    }
    if let Some(inner) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**inner);
    }
    error.source()
}
