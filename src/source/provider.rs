//! A user's async function that provides security tokens, stored without its type.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::TokenError;
use crate::token::request::TokenRequest;
use crate::token::security_token::SecurityToken;

type Provided = Pin<Box<dyn Future<Output = Result<SecurityToken, TokenError>> + Send>>;

#[derive(Clone)]
pub(crate) struct Provider(Arc<dyn Fn(&TokenRequest) -> Provided + Send + Sync>);

impl Provider {
    /// Creates a provider from a function. `input` gets its argument from the request.
    pub(crate) fn new<A, F, Fut>(
        input: impl Fn(&TokenRequest) -> A + Send + Sync + 'static,
        f: F,
    ) -> Self
    where
        F: Fn(A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SecurityToken, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(f(input(request)))))
    }

    pub(crate) async fn provide(
        &self,
        request: &TokenRequest,
    ) -> Result<SecurityToken, TokenError> {
        (self.0)(request).await
    }
}
