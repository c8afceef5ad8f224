//! Retries outside of the layer that wait for `TokenError::retry_after`, in paused time.

use std::convert::Infallible;
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource, TokenCache, TokenError};
use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tower::retry::{Policy, RetryLayer};
use tower::{ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Tries again when the pause after a failed fetch ends, as in the guide.
#[derive(Clone)]
struct WaitForToken {
    tries: usize,
}

impl<B: Clone, R> Policy<Request<B>, R, BoxError> for WaitForToken {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request<B>, result: &mut Result<R, BoxError>) -> Option<Sleep> {
        let error = TokenError::find(&**result.as_ref().err()?)?;
        self.tries = self.tries.checked_sub(1)?;
        error
            .is_transient()
            .then(|| sleep(error.retry_after().unwrap_or(SECOND)))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }
}

/// Sends a request through the retry policy. Returns the error's text, if there is one.
async fn send(cache: &TokenCache) -> Result<StatusCode, BoxError> {
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(WaitForToken { tries: 5 }))
        .layer(BearerAuthLayer::from_cache(cache.clone()))
        .service(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(()))
        }));
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    Ok(service.oneshot(request).await?.status())
}

#[tokio::test(start_paused = true)]
async fn the_pause_of_a_throttled_endpoint_is_waited_out() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
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
    assert_eq!(tokens.fetches(), 2, "one that failed, one after the pause");
    let took = start.elapsed();
    assert!((SECOND * 40..SECOND * 55).contains(&took), "{took:?}");
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
    use reqwest_retry::RetryTransientMiddleware;
    use reqwest_retry::policies::ExponentialBackoff;

    let tokens = MockTokenSource::new();
    let throttled = TokenError::transient("throttled").with_retry_after(SECOND * 40);
    tokens.fail_times(9, throttled);
    let policy = ExponentialBackoff::builder().build_with_max_retries(2);
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .with(BearerAuthLayer::new(tokens))
        .build();
    let error = client.get("https://api.example.com/").send().await;
    let error = error.unwrap_err();
    let found = TokenError::find(&error).expect("inside of `RetryError`");
    assert!(found.retry_after().is_some_and(|wait| wait > SECOND * 30));
}
