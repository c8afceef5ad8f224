//! Retries that wait until the token endpoint may be called again: with tower, and with
//! reqwest-retry.
//!
//! `cargo run --example retries` uses a mock server on loopback.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer};
use http::{Request, StatusCode};
use reqwest_middleware::ClientBuilder;
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use tokio::time::Instant;
use tower::retry::RetryLayer;
use tower::{ServiceBuilder, ServiceExt};

mod policies;

use policies::{RetryTokenErrors, TokenErrors, WaitForToken};

const RETRIES: u32 = 3;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    with_tower().await?;
    with_reqwest_retry().await
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
