//! Retries that wait until the token endpoint may be called again: with tower, and with
//! reqwest-retry.
//!
//! `cargo run --example retries` uses a mock server on loopback.

use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer, TokenError};
use http::{Extensions, Request, Response, StatusCode};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_retry::{
    DefaultRetryableStrategy, RetryTransientMiddleware, Retryable, RetryableStrategy,
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower::retry::{Policy, RetryLayer};
use tower::{ServiceBuilder, ServiceExt};

const RETRIES: u32 = 3;
/// The wait after a failure that does not tell how long to wait.
const DEFAULT_WAIT: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    with_tower().await?;
    with_reqwest_retry().await
}

/// A policy for tower's retry layer. Add the errors of your API to it.
#[derive(Clone)]
struct RetryTokenErrors {
    left: u32,
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

async fn with_tower() -> Result<(), BoxError> {
    let server = start().await?;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryTokenErrors { left: RETRIES }))
        .layer(layer(&server)?)
        .service(client);
    let start = Instant::now();
    let request = Request::get(server.api_url()).body(http_body_util::Empty::new())?;
    let response = service.oneshot(request).await?;
    check("tower", response.status(), start, &server);
    Ok(())
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
struct TokenErrors;

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
struct WaitForToken;

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

async fn with_reqwest_retry() -> Result<(), BoxError> {
    let server = start().await?;
    let backoff = ExponentialBackoff::builder()
        .retry_bounds(Duration::from_millis(100), Duration::from_secs(10))
        .build_with_max_retries(RETRIES);
    let retry = RetryTransientMiddleware::new_with_policy_and_strategy(backoff, TokenErrors);
    let client = ClientBuilder::new(loopback().build()?)
        .with(retry)
        .with(WaitForToken)
        .with(layer(&server)?)
        .build();
    let start = Instant::now();
    let response = client.get(server.api_url()).send().await?;
    check("reqwest-retry", response.status(), start, &server);
    Ok(())
}

/// Starts a server whose token endpoint asks the first caller to wait for 2 s.
async fn start() -> Result<MockAuthServer, BoxError> {
    let server = MockAuthServer::start().await?;
    let wait = Duration::from_secs(2);
    server.fail_token_requests_with_retry_after(1, StatusCode::TOO_MANY_REQUESTS, wait);
    Ok(server)
}

fn check(name: &str, status: StatusCode, start: Instant, server: &MockAuthServer) {
    let (took, requests) = (start.elapsed(), server.token_requests());
    println!("{name}: {status} after {took:.1?} and {requests} token requests");
    assert_eq!((status, requests), (StatusCode::OK, 2));
    assert!(took >= Duration::from_secs(2));
}

fn layer(server: &MockAuthServer) -> Result<BearerAuthLayer, BoxError> {
    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .reqwest_builder(loopback())
        .build()?;
    Ok(BearerAuthLayer::new(source).allow_origin(server.origin())?)
}

/// Ignores proxy settings of the environment, since a proxy cannot reach this machine's loopback.
fn loopback() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}
