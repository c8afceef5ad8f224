//! Late tokens, clocks that jump, and tokens that come from another cache: whatever happens, a valid
//! token is used and a dead one is not.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bearer_auth::{
    AccessToken, MockTokenSource, TokenCache, TokenError, TokenErrorKind, TokenRequest, source_fn,
};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, advance, sleep};

use crate::support::clock::ManualClock;

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn down() -> TokenError {
    TokenError::transient("down")
}

/// Returns a cache whose token was fetched with this life, `age` ago.
async fn aged(tokens: &MockTokenSource, age: f64) -> TokenCache {
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    advance(secs(age)).await;
    cache
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_no_caller_while_the_token_is_valid() {
    let tokens = MockTokenSource::new().with_lifetime(secs(60.0));
    // The due window has begun; the last 5 s are late.
    let cache = aged(&tokens, 54.5).await;
    tokens.fail_times(100_000, down());
    let started = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    while started.elapsed() < secs(5.0) {
        let cache = cache.clone();
        callers.spawn(async move { cache.token().await });
        advance(Duration::from_millis(5)).await;
    }
    let results = callers.join_all().await;
    assert!(results.len() >= 1_000, "{} callers", results.len());
    for result in results {
        assert_eq!(result.unwrap().expose_secret(), "mock-token-1");
    }
    sleep(secs(1.0)).await;
    assert!(cache.token().await.is_err(), "the token has expired");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_a_second_for_the_refresh_of_a_late_token() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = aged(&tokens, 895.0).await;
    let hold = tokens.hold();
    for waits in [1.0, 0.0, 0.0] {
        let before = Instant::now();
        let token = cache.token().await.unwrap();
        assert_eq!(token.expose_secret(), "mock-token-1");
        let waited = before.elapsed().as_secs_f64();
        assert!((waits..=waits + 0.01).contains(&waited), "{waited} s");
    }
    assert_eq!(tokens.fetches(), 2, "one refresh for all");
    advance(secs(4.0)).await;
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    sleep(secs(2.0)).await;
    assert!(!waiting.is_finished(), "an expired token is not used");
    drop(hold);
    let token = waiting.await.unwrap().unwrap();
    assert_eq!(token.expose_secret(), "mock-token-2");
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_late_token_expires_waits_for_the_refresh() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = aged(&tokens, 899.5).await;
    let hold = tokens.hold();
    let waiting = tokio::spawn(async move { cache.token().await });
    sleep(secs(2.0)).await;
    assert!(
        !waiting.is_finished(),
        "it failed while the refresh is in progress"
    );
    drop(hold);
    let token = waiting.await.unwrap().unwrap();
    assert_eq!(token.expose_secret(), "mock-token-2");
}

#[tokio::test(start_paused = true)]
async fn a_caller_gets_the_new_token_if_the_refresh_is_quick() {
    let tokens = MockTokenSource::new()
        .with_lifetime(secs(900.0))
        .with_latency(secs(0.5));
    let cache = aged(&tokens, 895.0).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-2");
}

#[tokio::test(start_paused = true)]
async fn a_late_token_needs_no_runtime() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = TokenCache::builder(tokens.clone());
    let clock = ManualClock::new();
    let cache = cache.clock(clock.clone()).build().unwrap();
    cache.token().await.unwrap();
    clock.advance(895.0, 895.0);
    let outside = std::thread::spawn(move || {
        let mut context = Context::from_waker(Waker::noop());
        let result = pin!(cache.token()).poll(&mut context);
        clock.advance(5.0, 5.0);
        (result, pin!(cache.token()).poll(&mut context))
    });
    let (late, expired) = outside.join().unwrap();
    assert!(matches!(late, Poll::Ready(Ok(_))), "{late:?}");
    let Poll::Ready(Err(error)) = expired else {
        panic!("{expired:?}");
    };
    assert_eq!(error.kind(), TokenErrorKind::NoRuntime);
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_while_the_machine_sleeps() {
    let tokens = MockTokenSource::new();
    let clock = ManualClock::new();
    let cache = TokenCache::builder(tokens.clone()).clock(clock.clone());
    let cache = cache.build().unwrap();
    tokens.fail_next(down().with_retry_after(secs(3_600.0)));
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(secs(3_600.0)));
    // The monotonic clock stands still during sleep.
    clock.advance(2.0, 8.0 * 3_600.0);
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
}

/// A cache in a `static`, used by a test that advances tokio's paused clock and by one after it.
#[test]
fn a_clock_that_goes_back_keeps_nothing_paused_or_alive() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = TokenCache::new(tokens.clone());
    let runtime = |is_paused| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(is_paused).build();
        runtime.unwrap()
    };
    runtime(true).block_on(async {
        cache.token().await.unwrap();
        // Expired, and a pause begins in the far future.
        advance(secs(5.0 * 3_600.0)).await;
        tokens.fail_next(TokenError::permanent("no"));
        let error = cache.token().await.unwrap_err();
        assert!(error.retry_after() <= Some(secs(1.25)));
    });
    let error = runtime(false).block_on(cache.token()).err();
    let pause = error.map(|error| error.retry_after().unwrap());
    assert!(pause <= Some(secs(1.25)), "{pause:?}");

    runtime(true).block_on(async {
        advance(secs(2.0)).await;
        assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-2");
        // Expires in this runtime's time, though not in that of the next.
        advance(secs(5.0 * 3_600.0)).await;
        let hold = tokens.hold();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(cache.token()).poll(&mut context).is_pending());
        drop(hold);
    });
    let token = runtime(false).block_on(cache.token()).unwrap();
    assert_ne!(token.expose_secret(), "mock-token-2", "it is dead");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_polled_late_does_not_get_an_invalidated_token() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let hold = tokens.hold();
    let mut waiter = pin!(cache.token());
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiter.as_mut().poll(&mut context).is_pending());
    drop(hold);
    sleep(secs(0.1)).await;
    cache.invalidate(&cache.token().await.unwrap());
    assert_eq!(waiter.await.unwrap().expose_secret(), "mock-token-2");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_cache_lives_for_what_is_left_of_it() {
    let clock = ManualClock::new();
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let shared = TokenCache::builder(tokens.clone()).clock(clock.clone());
    let shared = shared.build().unwrap();
    let end = shared.token().await.unwrap().expires_at().unwrap();
    clock.advance(780.0, 780.0);
    let cache = {
        let shared = shared.clone();
        TokenCache::builder(source_fn(move |_: TokenRequest| {
            let shared = shared.clone();
            async move { shared.token().await }
        }))
    };
    let cache = cache.clock(clock.clone()).build().unwrap();
    let token = cache.token().await.unwrap();
    assert_eq!(token.expires_at(), Some(end));
    tokens.fail_times(1_000, down());
    clock.advance(119.0, 119.0);
    let late: AccessToken = cache.token().await.unwrap();
    assert_eq!(late.expose_secret(), "mock-token-1");
    clock.advance(1.0, 1.0);
    assert!(cache.token().await.is_err(), "its end has come");
}

/// A server that returns the same token until it ends, with what is left of its life.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_that_the_server_repeats_stands() {
    let remaining = Mutex::new(vec![0, 0, 2, 30]);
    let cache = TokenCache::new(source_fn(move |_: TokenRequest| {
        let expires_in = remaining.lock().unwrap().pop().unwrap_or(0);
        let body = format!(r#"{{"access_token":"same","expires_in":{expires_in}}}"#);
        let token =
            AccessToken::from_token_response(StatusCode::OK, &HeaderMap::new(), body.as_bytes());
        async move { token }
    }));
    cache.token().await.unwrap();
    for age in [28.0, 1.0] {
        sleep(secs(age)).await;
        cache.token().await.unwrap();
        // A refresh in the background: 2 s are left, then none.
        sleep(secs(0.001)).await;
    }
    sleep(secs(0.9)).await;
    assert!(cache.peek().is_some(), "29.9 s after the first response");
    sleep(secs(0.2)).await;
    assert!(cache.peek().is_none());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidResponse);
    assert!(error.retry_after().is_some(), "a pause follows");
}
