//! Policies that retry the errors of tokens when the token endpoint may be called again.

use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{BoxError, TokenError};
use http::{Extensions, Request, Response};
use reqwest_middleware::{Middleware, Next};
use reqwest_retry::{DefaultRetryableStrategy, Retryable, RetryableStrategy};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower::retry::Policy;

/// The wait after a failure that does not tell how long to wait.
const DEFAULT_WAIT: Duration = Duration::from_millis(500);

/// A policy for tower's retry layer. Add the errors of your API to it.
#[derive(Clone)]
pub(crate) struct RetryTokenErrors {
    pub(crate) left: u32,
}

impl<B: Clone, R> Policy<Request<B>, Response<R>, BoxError> for RetryTokenErrors {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<R>, BoxError>,
    ) -> Option<Sleep> {
        let error = match result {
            // The token was rejected, and no other could be fetched.
            Ok(response) => response.extensions().get::<TokenError>()?,
            Err(error) => TokenError::find(&**error)?,
        };
        self.left = self.left.checked_sub(1)?;
        error
            .is_transient()
            .then(|| sleep(error.retry_after().unwrap_or(DEFAULT_WAIT)))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// Returns the error of a token: of no token at all, or of one that was rejected while no other
/// could be fetched.
fn token_error(result: &reqwest_middleware::Result<reqwest::Response>) -> Option<&TokenError> {
    match result {
        Ok(response) => response.extensions().get(),
        Err(error) => TokenError::find(error),
    }
}

/// Tells reqwest-retry which errors to retry. By default, it retries no error of a middleware.
pub(crate) struct TokenErrors;

impl RetryableStrategy for TokenErrors {
    fn handle(&self, result: &reqwest_middleware::Result<reqwest::Response>) -> Option<Retryable> {
        match token_error(result) {
            Some(error) if error.is_transient() => Some(Retryable::Transient),
            Some(_) => Some(Retryable::Fatal),
            None => DefaultRetryableStrategy.handle(result),
        }
    }
}

/// Delays the next try. reqwest-retry's own wait depends only on the number of tries, which share
/// their extensions.
pub(crate) struct WaitForToken;

#[derive(Clone)]
struct NotBefore(Instant);

#[async_trait]
impl Middleware for WaitForToken {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        if let Some(NotBefore(time)) = extensions.remove() {
            sleep_until(time).await;
        }
        let result = next.run(request, extensions).await;
        if let Some(wait) = token_error(&result).and_then(TokenError::retry_after) {
            extensions.insert(NotBefore(Instant::now() + wait));
        }
        result
    }
}
