//! The status of a token, for readiness probes.

use std::time::{Duration, SystemTime};

use bearer_auth::{
    BearerAuthLayer, MockTokenSource, StaticTokenSource, TokenCache, TokenError, TokenErrorKind,
    TokenRequest, TokenState,
};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::{advance, sleep};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::api::INVALID_TOKEN;

const LIFE: Duration = Duration::from_secs(900);

fn tokens() -> MockTokenSource {
    MockTokenSource::new().with_lifetime(LIFE)
}

async fn secs(secs: u64) {
    advance(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_token_that_was_never_fetched() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    for status in [cache.status(), cache.status_of(&TokenRequest::scope("a"))] {
        assert_eq!(status.state(), TokenState::Absent);
        assert!(!status.is_ready());
        assert!(!status.is_fetching());
        assert_eq!(status.expires_at(), None);
        assert_eq!(status.age(), None);
        assert_eq!(status.retry_after(), None);
        assert!(status.last_error().is_none());
    }
    assert_eq!(tokens.fetches(), 0, "it never fetches");
}

#[tokio::test(start_paused = true)]
async fn the_status_follows_the_life_of_a_token() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let request = TokenRequest::scope("a");
    let token = cache.token_for(&request).await.unwrap();
    for (age, state, is_ready) in [
        (0, TokenState::Fresh, true),
        (799, TokenState::Fresh, true),
        (846, TokenState::Due, true),
        (891, TokenState::Late, true),
        (900, TokenState::Expired, false),
        (2_000, TokenState::Expired, false),
    ] {
        let before = cache.status_of(&request).age().unwrap();
        advance(Duration::from_secs(age) - before).await;
        let status = cache.status_of(&request);
        assert_eq!(status.state(), state, "{age} s");
        assert_eq!(status.is_ready(), is_ready, "{age} s");
        assert_eq!(status.age(), Some(Duration::from_secs(age)));
        assert_eq!(status.expires_at(), token.expires_at());
        assert!(status.expires_at() > Some(SystemTime::UNIX_EPOCH));
    }
    assert_eq!(tokens.fetches(), 1, "it never fetches");
}

#[tokio::test(start_paused = true)]
async fn a_token_without_expiry_has_no_end() {
    let cache = TokenCache::new(StaticTokenSource::new("opaque").unwrap());
    cache.token().await.unwrap();
    let status = cache.status();
    assert_eq!(status.state(), TokenState::Fresh);
    assert_eq!(status.expires_at(), None);
    assert_eq!(status.age(), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_in_progress_is_visible_and_blocks_nothing() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let hold = tokens.hold();
    let caller = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(cache.status().is_fetching());
    assert!(!cache.status().is_ready());
    drop(hold);
    caller.await.unwrap().unwrap();
    assert!(!cache.status().is_fetching());
    assert!(cache.status().is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_failure_stays_visible_until_a_fetch_succeeds() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    tokens.fail_next(TokenError::permanent("no").with_retry_after(Duration::from_secs(10)));
    cache.token().await.unwrap_err();
    secs(4).await;
    let status = cache.status();
    assert_eq!(status.state(), TokenState::Absent);
    assert_eq!(status.retry_after(), Some(Duration::from_secs(6)));
    let error = status.last_error().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Source);
    assert!(error.is_paused());

    secs(6).await;
    let status = cache.status();
    assert_eq!(status.retry_after(), None, "the pause has ended");
    assert!(status.last_error().is_some());

    cache.token().await.unwrap();
    assert!(cache.status().last_error().is_none());
}

/// A failed background refresh is visible before the token expires.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_visible_beside_a_usable_token() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    tokens.fail_next(TokenError::permanent("no"));
    secs(850).await;
    cache.token().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let status = cache.status();
    assert_eq!(status.state(), TokenState::Due);
    assert!(status.is_ready());
    assert!(status.last_error().is_some());
    assert!(status.retry_after().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_withdrawn_is_rejected() {
    let tokens = tokens();
    let layer = BearerAuthLayer::new(tokens.clone());
    let cache = layer.cache().clone();
    cache.token().await.unwrap();
    tokens.fail_next(TokenError::permanent("no"));
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        if request.headers()[AUTHORIZATION] == "Bearer mock-token-1" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge = HeaderValue::from_static(INVALID_TOKEN);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        Ok::<_, std::convert::Infallible>(response)
    }));
    let request = Request::get("https://api.example.com").body(()).unwrap();
    service.oneshot(request).await.unwrap();
    let status = cache.status();
    assert_eq!(status.state(), TokenState::Rejected);
    assert!(!status.is_ready());
    assert_eq!(status.expires_at(), None);
    secs(5).await;
    let token = cache.token().await.unwrap();
    assert_eq!(cache.status().state(), TokenState::Fresh);

    cache.invalidate(&token);
    assert_eq!(cache.status().state(), TokenState::Rejected);
}

#[tokio::test(start_paused = true)]
async fn asking_for_the_status_is_no_use_of_the_token() {
    let cache = TokenCache::builder(tokens())
        .max_entries(2)
        .build()
        .unwrap();
    let [a, b, c] = ["a", "b", "c"].map(TokenRequest::scope);
    cache.token_for(&a).await.unwrap();
    secs(2).await;
    cache.token_for(&b).await.unwrap();
    secs(2).await;
    assert!(cache.status_of(&a).is_ready());
    secs(2).await;
    cache.token_for(&c).await.unwrap();
    secs(2).await;
    assert_eq!(cache.status_of(&a).state(), TokenState::Absent, "evicted");
    assert!(cache.status_of(&b).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_closed_cache_still_has_a_status() {
    let cache = TokenCache::new(tokens());
    cache.token().await.unwrap();
    cache.close().await;
    assert!(cache.status().is_ready());
}

#[tokio::test(start_paused = true)]
async fn regular_questions_keep_a_service_without_traffic_ready() {
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(900));
    let cache = TokenCache::new(tokens.clone());
    let asks = cache.clone();
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_secs(10));
        loop {
            interval.tick().await;
            asks.token().await.unwrap();
        }
    });
    for second in 0..3600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(cache.status().is_ready(), "after {second} s");
    }
    assert_eq!(tokens.fetches(), 5, "one per 800 to 855 s");
}
