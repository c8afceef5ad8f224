//! Credentials of their own for tenants.

use std::fmt;
use std::future::Future;

use async_trait::async_trait;

use crate::error::TokenError;
use crate::source::TokenSource;
use crate::source::context::FetchContext;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// A [`TokenSource`] for tenants that have credentials of their own, which a function loads on
/// demand: from a database or a vault.
///
/// The function is called for each fetch, so that credentials which were replaced are picked up and
/// nothing is kept for tenants that are gone. The cache shares one fetch per tenant, loading
/// included. An error of the function concerns this tenant only; return
/// [`TokenError::permanent`] for a tenant without credentials.
///
/// ```
/// use bearer_auth::{ClientCredentials, TenantCredentials, TokenError, TokenRequest};
///
/// # async fn load_secret(tenant: &str) -> Option<String> { None }
/// let source = TenantCredentials::new(|request: TokenRequest| async move {
///     let tenant = request.scopes().unwrap_or_default();
///     let secret = load_secret(tenant).await;
///     let secret = secret.ok_or_else(|| TokenError::permanent("a tenant without credentials"))?;
///     Ok(ClientCredentials::builder("https://identity.example.com/connect/token")
///         .client_id(tenant)
///         .client_secret(secret)
///         .build()?)
/// });
/// # let _ = source;
/// ```
///
/// Each call builds a source, which takes about as long as building an HTTP client. If that
/// matters, build the sources once and return clones: they are cheap.
#[derive(Clone, Copy)]
pub struct TenantCredentials<F> {
    load: F,
}

impl<F, Fut, S> TenantCredentials<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<S, TokenError>> + Send,
    S: TokenSource,
{
    /// Creates a source that loads the source of each tenant with `load`.
    pub fn new(load: F) -> Self {
        Self { load }
    }
}

#[async_trait]
impl<F, Fut, S> TokenSource for TenantCredentials<F>
where
    F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<S, TokenError>> + Send,
    S: TokenSource,
{
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        (self.load)(request.clone()).await?.fetch(request).await
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        let source = (self.load)(request.clone()).await?;
        source.fetch_with(request, context).await
    }
}

impl<F> fmt::Debug for TenantCredentials<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantCredentials").finish_non_exhaustive()
    }
}
