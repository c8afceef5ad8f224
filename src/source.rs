//! Where tokens come from.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::TokenError;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

#[cfg(feature = "client-credentials")]
pub(crate) mod client_credentials;
pub(crate) mod static_token;

/// Obtains access tokens.
///
/// One method, object-safe, and implemented for `Arc<T>` and `Box<T>` as well, so that sources wrap
/// each other. For a source in a few lines see [`source_fn`].
///
/// ```
/// use bearer_auth::{AccessToken, TokenError, TokenRequest, TokenSource};
///
/// struct FromEnvironment;
///
/// #[async_trait::async_trait]
/// impl TokenSource for FromEnvironment {
///     async fn fetch(&self, _request: &TokenRequest) -> Result<AccessToken, TokenError> {
///         let token = std::env::var("API_TOKEN").map_err(TokenError::permanent)?;
///         Ok(AccessToken::new(token)?)
///     }
/// }
/// ```
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a new token.
    ///
    /// Never caches and never retries a rejection: that is [`TokenCache`](crate::TokenCache)'s work,
    /// which also runs this in a task of its own with a time limit.
    ///
    /// # Errors
    ///
    /// [`TokenError::transient`] for what may pass, [`TokenError::permanent`] for what will not.
    ///
    /// # Cancel safety
    ///
    /// The cache drops this future when the limit has passed, when its runtime is shut down, and
    /// when the last handle of the cache is gone.
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError>;
}

#[async_trait]
impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        (**self).fetch(request).await
    }
}

#[async_trait]
impl<T: TokenSource + ?Sized> TokenSource for Box<T> {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        (**self).fetch(request).await
    }
}

/// Makes a [`TokenSource`] of an async function.
///
/// ```
/// use std::time::Duration;
/// use bearer_auth::{AccessToken, TokenRequest};
///
/// let source = bearer_auth::source_fn(|request: TokenRequest| async move {
///     let scope = request.scopes().unwrap_or("default").to_owned();
///     Ok(AccessToken::new(format!("token-for-{scope}"))?.with_lifetime(Duration::from_secs(900)))
/// });
/// ```
pub fn source_fn<F, Fut>(f: F) -> SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, TokenError>> + Send,
{
    SourceFn { f }
}

/// See [`source_fn`].
#[derive(Clone, Copy)]
pub struct SourceFn<F> {
    f: F,
}

#[async_trait]
impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AccessToken, TokenError>> + Send,
{
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        (self.f)(request.clone()).await
    }
}

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFn").finish_non_exhaustive()
    }
}
