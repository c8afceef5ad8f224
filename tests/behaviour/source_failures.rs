//! Failures of the source (rules C of `docs/behaviour.md`), on tokio's paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{AccessToken, MockTokenSource, TokenCache, TokenError, TokenRequest, source_fn};
use tokio::time::{Instant, advance, sleep};

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_retried_twice_within_the_fetch() {
    let tokens = MockTokenSource::new();
    tokens.fail_times(2, TokenError::transient("down"));
    let cache = TokenCache::new(tokens.clone());
    let start = Instant::now();
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
    assert_eq!(tokens.fetches(), 3);
    assert!(
        start.elapsed() <= secs(0.6),
        "waits of at most 0.2 s and 0.4 s: {:?}",
        start.elapsed()
    );

    let tokens = MockTokenSource::new();
    tokens.fail_times(3, TokenError::transient("down"));
    let error = TokenCache::new(tokens.clone()).token().await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(tokens.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn permanent_slow_and_throttled_failures_are_not_retried() {
    for (tokens, error) in [
        (MockTokenSource::new(), TokenError::permanent("no")),
        (
            MockTokenSource::new(),
            TokenError::transient("later").with_retry_after(secs(1.0)),
        ),
        (
            MockTokenSource::new().with_latency(secs(1.0)),
            TokenError::transient("slow"),
        ),
    ] {
        tokens.fail_next(error);
        TokenCache::new(tokens.clone()).token().await.unwrap_err();
        assert_eq!(tokens.fetches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn each_failure_doubles_the_pause() {
    let tokens = MockTokenSource::new();
    tokens.fail_times(100, TokenError::permanent("no"));
    let cache = TokenCache::new(tokens.clone());
    let mut fetches = 0;
    for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
        cache.token().await.unwrap_err();
        fetches += 1;
        assert_eq!(tokens.fetches(), fetches);
        let error = cache.token().await.unwrap_err();
        let pause = error.retry_after().unwrap();
        assert!(
            (secs(expected)..=secs(expected * 1.25)).contains(&pause),
            "{pause:?}"
        );
        advance(pause / 2).await;
        let error = cache.token().await.unwrap_err();
        assert!(error.retry_after().unwrap() <= pause - pause / 2 + secs(0.001));
        assert_eq!(tokens.fetches(), fetches, "no fetch during the pause");
        advance(error.retry_after().unwrap()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_resets_the_pause() {
    let tokens = MockTokenSource::new().with_lifetime(secs(10.0));
    let cache = TokenCache::new(tokens.clone());
    for _ in 0..2 {
        tokens.fail_times(2, TokenError::permanent("no"));
        for at_most in [1.25, 2.5] {
            let pause = cache.token().await.unwrap_err().retry_after().unwrap();
            assert!(pause <= secs(at_most), "{pause:?}");
            sleep(pause).await;
        }
        cache.token().await.unwrap();
        advance(secs(10.0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_sets_the_pause_within_its_bounds() {
    for (requested, pause) in [(60.0, 60.0), (0.0, 1.0), (7_200.0, 3_600.0)] {
        let tokens = MockTokenSource::new();
        tokens.fail_next(TokenError::transient("later").with_retry_after(secs(requested)));
        let cache = TokenCache::new(tokens.clone());
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.retry_after(), Some(secs(pause)));
        advance(secs(pause - 0.01)).await;
        cache.token().await.unwrap_err();
        assert_eq!(tokens.fetches(), 1);
        advance(secs(0.01)).await;
        cache.token().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_valid_token_is_served_through_an_outage() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    tokens.fail_times(1_000, TokenError::transient("down"));
    advance(secs(846.0)).await;
    for _ in 0..430 {
        let before = Instant::now();
        assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
        assert_eq!(before.elapsed(), Duration::ZERO, "the caller waited");
        sleep(secs(0.1)).await;
    }
    // The token is due for 43 s: pauses of 1, 2, 4, 8, 16, 32 s, three tries each.
    assert!(
        tokens.fetches() <= 1 + 6 * 3,
        "{} fetches",
        tokens.fetches()
    );
    // Late until 900 s, then expired.
    sleep(secs(12.0)).await;
    cache.token().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_a_second_cost_a_handful_of_fetches() {
    let tokens = MockTokenSource::new();
    tokens.fail_times(10_000, TokenError::transient("503"));
    let cache = TokenCache::new(tokens.clone());
    let end = Instant::now() + secs(5.0);
    while Instant::now() < end {
        let before = Instant::now();
        cache.token().await.unwrap_err();
        assert!(before.elapsed() < secs(1.0));
        sleep(secs(0.005)).await;
    }
    assert!(tokens.fetches() <= 10, "{} fetches", tokens.fetches());
}

#[tokio::test(start_paused = true)]
async fn tenants_do_not_share_failures() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetches);
    let cache = TokenCache::new(source_fn(move |request: TokenRequest| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            match request.scopes() {
                Some("bad") => Err(TokenError::permanent("invalid_scope")),
                Some("hanging") => std::future::pending().await,
                _ => Ok(AccessToken::new("good")?),
            }
        }
    }));
    let [bad, hanging, good] = ["bad", "hanging", "good"].map(TokenRequest::scope);
    cache.token_for(&bad).await.unwrap_err();
    let stuck = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token_for(&hanging).await }
    });
    tokio::task::yield_now().await;
    let before = Instant::now();
    cache.token_for(&good).await.unwrap();
    cache.token().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(fetches.load(Ordering::Relaxed), 4);
    stuck.abort();
}
