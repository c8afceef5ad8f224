//! The lifetime of a token (rules A of `docs/behaviour.md`), on tokio's paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bearer_auth::{
    AccessToken, MockTokenSource, StaticTokenSource, TokenCache, TokenError, TokenErrorKind,
    TokenRequest, source_fn,
};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::clock::ManualClock;

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

/// Lets a background fetch finish.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// Returns the token, which must be available without waiting.
async fn at_once(cache: &TokenCache) -> AccessToken {
    let before = Instant::now();
    let token = cache.token().await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO, "the caller waited");
    token
}

#[tokio::test(start_paused = true)]
async fn a_token_is_fresh_then_due_then_expired() {
    for (lifetime, fresh_until, due_at, expired_at) in [
        (900.0, 799.9, 845.1, 900.0),
        (5.0, 3.49, 3.76, 5.0),
        (86_400.0, 86_089.9, 86_240.1, 86_400.0),
    ] {
        let tokens = MockTokenSource::new().with_lifetime(secs(lifetime));
        let cache = TokenCache::builder(tokens.clone())
            .fetch_timeout(secs(1_000.0))
            .build()
            .unwrap();
        cache.token().await.unwrap();
        advance(secs(fresh_until)).await;
        at_once(&cache).await;
        settle().await;
        assert_eq!(tokens.fetches(), 1, "{lifetime} s: still fresh");

        let hold = tokens.hold();
        advance(secs(due_at - fresh_until)).await;
        for _ in 0..100 {
            assert_eq!(at_once(&cache).await.expose_secret(), "mock-token-1");
        }
        settle().await;
        assert_eq!(
            tokens.fetches(),
            2,
            "{lifetime} s: one refresh in the background"
        );

        advance(secs(expired_at - due_at)).await;
        let waiting = timeout(secs(1.0), cache.token()).await;
        assert!(
            waiting.is_err(),
            "{lifetime} s: an expired token is never returned"
        );
        drop(hold);
        assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-2");
        assert_eq!(tokens.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_lifetimes_pass_without_a_wait() {
    let tokens = MockTokenSource::new()
        .with_lifetime(secs(900.0))
        .with_latency(Duration::from_millis(500));
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    let end = Instant::now() + secs(9_000.0);
    while Instant::now() < end {
        let token = at_once(&cache).await;
        assert!(token.expires_at().is_some());
        advance(secs(1.0)).await;
    }
    assert!(
        (11..=12).contains(&tokens.fetches()),
        "{} fetches",
        tokens.fetches()
    );
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_counts_from_before_the_token_request() {
    let tokens = MockTokenSource::new()
        .with_lifetime(secs(100.0))
        .with_latency(secs(20.0));
    let cache = TokenCache::new(tokens.clone());
    let before = SystemTime::now();
    let token = cache.token().await.unwrap();
    // The wall clock does not move with the paused one.
    let expires_in = token.expires_at().unwrap().duration_since(before).unwrap();
    assert!(
        (99.0..101.0).contains(&expires_in.as_secs_f64()),
        "{expires_in:?}"
    );
    advance(secs(74.9)).await;
    at_once(&cache).await;
    let hold = tokens.hold();
    advance(secs(5.1)).await;
    assert!(
        timeout(secs(1.0), cache.token()).await.is_err(),
        "expired 100 s after the request"
    );
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn without_callers_nothing_is_fetched() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    sleep(secs(100_000.0)).await;
    assert_eq!(tokens.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_a_lifetime_gets_the_default() {
    for (cache, expired_at) in [
        (
            TokenCache::builder(without_lifetime()).build().unwrap(),
            290.0,
        ),
        (
            TokenCache::builder(without_lifetime())
                .default_lifetime(secs(60.0))
                .build()
                .unwrap(),
            57.0,
        ),
    ] {
        let first = cache.token().await.unwrap();
        assert!(first.expires_at().is_some(), "no token is cached for ever");
        advance(secs(expired_at - 1.0)).await;
        assert_eq!(at_once(&cache).await.expose_secret(), first.expose_secret());
        settle().await;
        advance(secs(1.0)).await;
        assert_ne!(
            cache.token().await.unwrap().expose_secret(),
            first.expose_secret()
        );
    }
}

/// Returns a source whose tokens have no lifetime and numbered values.
fn without_lifetime() -> impl bearer_auth::TokenSource {
    let count = AtomicUsize::new(0);
    source_fn(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(AccessToken::new(format!("token-{number}"))?) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_static_token_never_expires() {
    let cache = TokenCache::new(StaticTokenSource::new("for-ever").unwrap());
    let token = cache.token().await.unwrap();
    assert_eq!(token.expires_at(), None);
    advance(secs(1e8)).await;
    assert_eq!(at_once(&cache).await.expose_secret(), "for-ever");
}

#[tokio::test(start_paused = true)]
async fn lifetimes_of_a_second_or_two_cost_at_most_one_fetch_a_second() {
    for (lifetime, most) in [(0.3, 11), (1.0, 11), (2.0, 10)] {
        let tokens = MockTokenSource::new().with_lifetime(secs(lifetime));
        let cache = TokenCache::new(tokens.clone());
        let end = Instant::now() + secs(10.0);
        while Instant::now() < end {
            cache.token().await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        assert!(
            tokens.fetches() <= most,
            "{lifetime} s: {} fetches in 10 s",
            tokens.fetches()
        );
    }
}

/// The fetch timeout covers the tries, not the wait that keeps fetches a second apart.
#[tokio::test(start_paused = true)]
async fn a_delayed_fetch_has_its_whole_timeout() {
    let tokens = MockTokenSource::new()
        .with_lifetime(secs(0.1))
        .with_latency(secs(0.15));
    let cache = TokenCache::builder(tokens.clone())
        .fetch_timeout(secs(0.2))
        .build()
        .unwrap();
    for expected in ["mock-token-1", "mock-token-2"] {
        assert_eq!(cache.token().await.unwrap().expose_secret(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_two_seconds_is_served_until_it_expires() {
    let tokens = MockTokenSource::new().with_lifetime(secs(2.0));
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    let hold = tokens.hold();
    advance(secs(1.99)).await;
    assert_eq!(at_once(&cache).await.expose_secret(), "mock-token-1");
    advance(secs(0.01)).await;
    assert!(timeout(secs(1.0), cache.token()).await.is_err());
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn callers_that_waited_get_the_token_however_late_it_arrives() {
    let tokens = MockTokenSource::new()
        .with_lifetime(secs(2.0))
        .with_latency(secs(5.0));
    let cache = TokenCache::new(tokens.clone());
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-2");
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_token_is_fetched_at_most_once_a_second() {
    // A caching proxy: the same token for 60 s, each time with the lifetime that remains.
    let (start, fetches) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&fetches);
    let source = source_fn(move |_| {
        let age = start.elapsed();
        log.lock().unwrap().push(age);
        let number = age.as_secs() / 60;
        let remaining = secs(60.0).saturating_sub(age - secs(60.0 * number as f64));
        async move { Ok(AccessToken::new(format!("{number}"))?.with_lifetime(remaining)) }
    });
    let cache = TokenCache::new(source);
    while start.elapsed() < secs(180.0) {
        let token: u64 = cache
            .token()
            .await
            .unwrap()
            .expose_secret()
            .parse()
            .unwrap();
        assert!(
            start.elapsed() <= secs(60.0 * (token + 1) as f64),
            "returned after it expired"
        );
        sleep(Duration::from_millis(50)).await;
    }
    let fetches = fetches.lock().unwrap();
    for pair in fetches.windows(2) {
        assert!(pair[1] - pair[0] >= secs(1.0), "{pair:?}");
    }
    assert!(
        fetches.len() <= 3 * 8,
        "{} fetches in three lifetimes",
        fetches.len()
    );
}

#[tokio::test(start_paused = true)]
async fn jitter_differs_by_token() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = TokenCache::new(tokens.clone());
    let requests: Vec<_> = (0..500)
        .map(|it| TokenRequest::scope(format!("tenant/{it}")))
        .collect();
    for request in &requests {
        cache.token_for(request).await.unwrap();
    }
    advance(secs(799.0)).await;
    let mut refreshed = Vec::new();
    for _ in 0..50 {
        let before = tokens.fetches();
        for request in &requests {
            cache.token_for(request).await.unwrap();
        }
        settle().await;
        refreshed.push(tokens.fetches() - before);
        advance(secs(1.0)).await;
    }
    assert_eq!(
        refreshed.iter().sum::<usize>(),
        500,
        "all between 800 s and 845 s: {refreshed:?}"
    );
    assert_eq!(refreshed[0], 0);
    assert!(
        refreshed.iter().all(|count| *count <= 40),
        "spread over 45 s: {refreshed:?}"
    );
}

fn on_manual_clock() -> (TokenCache, MockTokenSource, ManualClock) {
    let (tokens, clock) = (
        MockTokenSource::new().with_lifetime(secs(900.0)),
        ManualClock::new(),
    );
    (
        TokenCache::builder(tokens.clone())
            .clock(clock.clone())
            .build()
            .unwrap(),
        tokens,
        clock,
    )
}

#[tokio::test]
async fn a_token_that_expired_while_the_machine_was_suspended_is_not_returned() {
    let (cache, tokens, clock) = on_manual_clock();
    cache.token().await.unwrap();
    // The monotonic clock stopped for an hour. The wall clock is read a second later.
    clock.advance(1.0, 3_600.0);
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-2");
    assert_eq!(tokens.fetches(), 2);
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_neither_extends_a_token_nor_causes_repeated_fetches() {
    let (cache, tokens, clock) = on_manual_clock();
    cache.token().await.unwrap();
    clock.advance(1.0, -3_600.0);
    for _ in 0..100 {
        cache.token().await.unwrap();
        clock.advance(7.9, 7.9);
    }
    assert_eq!(tokens.fetches(), 1, "set back: no fetch for 791 s");
    clock.advance(99.0, 99.0);
    cache.token().await.unwrap();
    assert_eq!(tokens.fetches(), 2, "expired by the monotonic clock");

    clock.advance(1.0, 3_600.0);
    for _ in 0..100 {
        cache.token().await.unwrap();
        clock.advance(1.0, 1.0);
    }
    assert_eq!(tokens.fetches(), 3, "set forward: one refresh");
}

#[tokio::test]
async fn an_invalidated_token_is_replaced_unless_it_already_was() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let other = TokenCache::new(tokens.clone());
    let first = cache.token().await.unwrap();
    let foreign = other.token().await.unwrap();
    cache.invalidate(&foreign);
    cache.invalidate(&AccessToken::new("mock-token-1").unwrap());
    assert_eq!(
        cache.token().await.unwrap().expose_secret(),
        first.expose_secret()
    );
    for round in 3..6 {
        let token = cache.token().await.unwrap();
        cache.invalidate(&token);
        cache.invalidate(&first);
        assert_eq!(
            cache.token().await.unwrap().expose_secret(),
            format!("mock-token-{round}")
        );
    }
    assert_eq!(tokens.fetches(), 5);
}

/// With `test-util`, which the mock enables, a cache follows tokio's clock unless it is told not to.
#[tokio::test(start_paused = true)]
async fn the_system_clock_is_not_paused_with_that_of_tokio() {
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(60));
    let builder = TokenCache::builder(tokens.clone()).system_clock();
    let system = builder.build().unwrap();
    let pausable = TokenCache::new(tokens.clone());
    for cache in [&system, &pausable] {
        cache.token().await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(61)).await;
    system.token().await.unwrap();
    assert_eq!(tokens.fetches(), 2, "the token is a moment old");
    pausable.token().await.unwrap();
    assert_eq!(tokens.fetches(), 3, "the token has expired");
}

/// In real time: the fast path reads a clock that is up to 40 ms ahead, and no caller may notice.
#[tokio::test]
async fn a_token_is_served_until_its_end_by_the_system_clock() {
    const LIFE: Duration = Duration::from_secs(1);
    let tokens = MockTokenSource::new().with_lifetime(LIFE);
    let builder = TokenCache::builder(tokens.clone()).system_clock();
    let cache = builder.build().unwrap();
    let before = std::time::Instant::now();
    let first = cache.token().await.unwrap();
    // The source fails from now on, so a second fetch cannot replace the token.
    tokens.fail_times(usize::MAX, TokenError::permanent("down"));
    let mut served_until = before;
    let error = loop {
        let asked = std::time::Instant::now();
        match cache.token().await {
            Ok(token) => {
                assert_eq!(token.expose_secret(), first.expose_secret());
                served_until = asked;
            }
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(error.kind(), TokenErrorKind::Source);
    assert!(before.elapsed() >= LIFE, "failed with a valid token");
    let served = served_until - before;
    // The token's life counts from a moment after `before`, and the machine may be busy.
    assert!(served < LIFE + Duration::from_millis(200), "{served:?}");
}
