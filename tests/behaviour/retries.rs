//! Retries outside of the layer that wait for `TokenError::retry_after`, in paused time. The policies
//! are those of the example.

use std::convert::Infallible;
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource, TokenCache, TokenError};
use http::{Extensions, HeaderMap, Request, Response, StatusCode};
use reqwest_middleware::{ClientBuilder, Middleware, Next};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::retry::RetryLayer;
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[path = "../../examples/retries/policies.rs"]
mod policies;

use policies::{RetryTokenErrors, TokenErrors, WaitForToken};

const SECOND: Duration = Duration::from_secs(1);

/// An API that rejects the first token.
fn status_for(headers: &HeaderMap) -> StatusCode {
    match headers.get("authorization") {
        Some(token) if token == "Bearer mock-token-1" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    }
}

/// Sends a request through the retry policy.
async fn send(cache: &TokenCache) -> Result<StatusCode, BoxError> {
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryTokenErrors { left: 5 }))
        .layer(BearerAuthLayer::from_cache(cache.clone()))
        .service(service_fn(async |request: Request<()>| {
            let mut response = Response::new(());
            *response.status_mut() = status_for(request.headers());
            Ok::<_, Infallible>(response)
        }));
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    Ok(service.oneshot(request).await?.status())
}

#[tokio::test(start_paused = true)]
async fn the_pause_of_a_throttled_endpoint_is_waited_out() {
    let (tokens, cache) = past_the_rejected_token().await;
    let throttled = TokenError::transient("throttled").with_retry_after(SECOND * 40);
    tokens.fail_next(throttled);
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let cache = cache.clone();
        calls.spawn(async move { send(&cache).await });
    }
    for status in calls.join_all().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(
        tokens.fetches(),
        3,
        "one before, one that failed, one after the pause"
    );
    let took = start.elapsed();
    assert!((SECOND * 40..SECOND * 55).contains(&took), "{took:?}");
}

/// Returns a source and a cache whose next token is not the one that the API rejects.
async fn past_the_rejected_token() -> (MockTokenSource, TokenCache) {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    cache.invalidate(&cache.token().await.unwrap());
    (tokens, cache)
}

/// Returns a source whose next fetch fails, and a cache with a token that the API rejects.
async fn rejected_while_down() -> (MockTokenSource, TokenCache) {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    tokens.fail_next(TokenError::transient("down").with_retry_after(SECOND * 40));
    (tokens, cache)
}

/// Asserts that the token after the outage of [`rejected_while_down`] came in one fetch.
fn assert_outage_was_waited_for(tokens: &MockTokenSource, start: Instant) {
    let fetches = tokens.fetches();
    assert_eq!(fetches, 3, "one before, one that failed, one after");
    let took = start.elapsed();
    assert!((SECOND * 40..SECOND * 55).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_rejected_during_an_outage_is_waited_for() {
    let (tokens, cache) = rejected_while_down().await;
    let start = Instant::now();
    assert_eq!(send(&cache).await.unwrap(), StatusCode::OK);
    assert_outage_was_waited_for(&tokens, start);
}

#[tokio::test(start_paused = true)]
async fn reqwest_retry_waits_for_a_token_rejected_during_an_outage() {
    let (tokens, cache) = rejected_while_down().await;
    let backoff = ExponentialBackoff::builder().build_with_max_retries(2);
    let retry = RetryTransientMiddleware::new_with_policy_and_strategy(backoff, TokenErrors);
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(retry)
        .with(WaitForToken)
        .with(BearerAuthLayer::from_cache(cache))
        .with(FakeApi)
        .build();
    let start = Instant::now();
    let response = client.get("https://api.example.com/").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_outage_was_waited_for(&tokens, start);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_of_the_retries_leaves_the_cause_in_the_status() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    tokens.fail_next(TokenError::transient("down").with_retry_after(SECOND * 40));
    let call = tokio::time::timeout(SECOND * 20, send(&cache));
    assert!(call.await.is_err(), "it waits for longer than that");
    let error = cache.status().last_error().unwrap();
    assert!(error.is_transient());
}

/// Answers in place of an API.
struct FakeApi;

#[async_trait]
impl Middleware for FakeApi {
    async fn handle(
        &self,
        request: reqwest::Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let mut response = Response::new("");
        *response.status_mut() = status_for(request.headers());
        Ok(response.into())
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stays_down_is_not_hammered() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    tokens.fail_times(usize::MAX, TokenError::transient("down"));
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let cache = cache.clone();
        calls.spawn(async move { send(&cache).await });
    }
    for status in calls.join_all().await {
        let error = status.unwrap_err();
        assert!(TokenError::find(&*error).is_some());
    }
    // A fetch has up to three tries, and there is one per pause.
    let fetches = tokens.fetches();
    assert!(
        (6..=18).contains(&fetches),
        "{fetches} fetches by 600 tries"
    );
}

#[tokio::test(start_paused = true)]
async fn a_permanent_error_is_not_retried() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    tokens.fail_times(9, TokenError::permanent("a wrong secret"));
    let start = Instant::now();
    assert!(send(&cache).await.is_err());
    assert_eq!((tokens.fetches(), start.elapsed()), (1, Duration::ZERO));
}

#[tokio::test]
async fn the_error_is_found_in_that_of_reqwest_retry() {
    let tokens = MockTokenSource::new();
    let throttled = TokenError::transient("throttled").with_retry_after(SECOND * 40);
    tokens.fail_times(9, throttled);
    let policy = ExponentialBackoff::builder().build_with_max_retries(2);
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .with(BearerAuthLayer::new(tokens))
        .build();
    let error = client.get("https://api.example.com/").send().await;
    let error = error.unwrap_err();
    let found = TokenError::find(&error).expect("inside of `RetryError`");
    assert!(found.retry_after().is_some_and(|wait| wait > SECOND * 30));
}
