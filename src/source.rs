//! Token sources: the trait, and sources made of functions.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::TokenError;
use crate::source::context::FetchContext;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

#[cfg(feature = "client-credentials")]
pub(crate) mod client_credentials;
pub(crate) mod context;
pub(crate) mod env;
pub(crate) mod fallback;
#[cfg(feature = "token-file")]
pub(crate) mod file;
#[cfg(feature = "client-credentials")]
pub(crate) mod jwt_bearer;
#[cfg(feature = "client-credentials")]
mod provider;
#[cfg(feature = "client-credentials")]
pub(crate) mod refresh_token;
#[cfg(feature = "serde")]
pub(crate) mod settings;
#[cfg(feature = "fleet")]
pub(crate) mod shared;
pub(crate) mod static_token;
pub(crate) mod tenant_credentials;
#[cfg(feature = "client-credentials")]
pub(crate) mod token_exchange;

/// The upper bounds of the random waits before the second and third try of a fetch.
pub(crate) const TRY_WAITS: [Duration; 2] =
    [Duration::from_millis(200), Duration::from_millis(400)];

/// Obtains access tokens.
///
/// The trait is object-safe and also implemented for `Arc<T>` and `Box<T>`, so that sources can
/// wrap each other. For a source in a few lines, see [`source_fn`].
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
    /// An implementation neither caches tokens nor tries again after a failure: the
    /// [`TokenCache`](crate::TokenCache) does both. The cache calls this in a detached task with a
    /// time limit ([`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout)).
    ///
    /// # Errors
    ///
    /// Return [`TokenError::transient`] for a failure that may end by itself, and
    /// [`TokenError::permanent`] for any other.
    ///
    /// # Cancel safety
    ///
    /// The cache drops this future when the time limit has passed, when its runtime shuts down, and
    /// when the last handle of the cache is dropped.
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError>;

    /// Obtains a new token, knowing why: for sources that keep or share tokens themselves.
    ///
    /// The cache calls this method. A source that wraps another must implement it and forward the
    /// context.
    ///
    /// Default: calls [`fetch`](Self::fetch).
    ///
    /// # Errors
    ///
    /// The same as of [`fetch`](Self::fetch). An error of another cache whose
    /// [`is_paused`](TokenError::is_paused) is true sets exactly the rest of that pause: it counts
    /// as no failure and is not tried again in the fetch.
    ///
    /// # Cancel safety
    ///
    /// The same as of [`fetch`](Self::fetch).
    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        let _ = context;
        self.fetch(request).await
    }
}

#[async_trait]
impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        (**self).fetch(request).await
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        (**self).fetch_with(request, context).await
    }
}

#[async_trait]
impl<T: TokenSource + ?Sized> TokenSource for Box<T> {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        (**self).fetch(request).await
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        (**self).fetch_with(request, context).await
    }
}

/// Creates a [`TokenSource`] from an async function.
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

/// The source that [`source_fn`] creates.
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
