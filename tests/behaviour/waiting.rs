//! Callers that wait, runtimes that are polled now and then, and the end of a cache.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, MockTokenSource, TokenCache, TokenError, TokenErrorKind, TokenRequest,
    TokenSource, source_fn,
};
use futures_util::future::join_all;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, sleep};

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn tenant(number: usize) -> TokenRequest {
    TokenRequest::scope(format!("tenant/{number}"))
}

/// Each call has a `block_on` of its own, so the runtime is not polled between calls.
#[test]
fn a_runtime_that_is_polled_per_call_costs_no_error() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetches);
    let source = source_fn(move |_| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            // As a connection does, it needs more than one poll after its timer.
            for _ in 0..3 {
                sleep(Duration::from_millis(2)).await;
                tokio::task::yield_now().await;
            }
            // Lives of a second are refreshed in the background after it.
            Ok(AccessToken::new(format!("token-{number}"))?.with_lifetime(secs(5.0)))
        }
    });
    let clock = crate::support::clock::ManualClock::new();
    let cache = TokenCache::builder(source)
        .fetch_timeout(Duration::from_millis(150))
        .clock(clock.clone())
        .build()
        .unwrap();
    let runtime = current_thread();
    for call in 0..10 {
        runtime
            .block_on(cache.token())
            .unwrap_or_else(|error| panic!("call {call}: {error}"));
        clock.advance(0.75, 0.75);
        // Past the time limit of a fetch in the background.
        thread::sleep(Duration::from_millis(250));
    }
}

/// A source that blocks its thread has failed: that is not the fault of the runtime.
#[test]
fn a_source_that_blocks_its_thread_times_out() {
    let cache = TokenCache::builder(source_fn(|_| async {
        thread::sleep(Duration::from_millis(100));
        std::future::pending::<Result<AccessToken, TokenError>>().await
    }))
    .fetch_timeout(Duration::from_millis(20))
    .build()
    .unwrap();
    let error = current_thread().block_on(cache.token()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert!(error.retry_after().is_some(), "a pause follows");
}

#[tokio::test(start_paused = true)]
async fn hanging_tenants_delay_a_healthy_one_by_at_most_5_s() {
    let cache = TokenCache::new(source_fn(|request: TokenRequest| async move {
        if request != tenant(640) {
            std::future::pending::<()>().await;
        }
        Ok(AccessToken::new("healthy")?)
    }));
    let mut hanging = tokio::task::JoinSet::new();
    for number in 0..640 {
        let cache = cache.clone();
        hanging.spawn(async move { cache.token_for(&tenant(number)).await });
    }
    tokio::task::yield_now().await;
    let started = Instant::now();
    cache.token_for(&tenant(640)).await.unwrap();
    assert!(started.elapsed() <= secs(5.0), "{:?}", started.elapsed());
    let started = Instant::now();
    for result in hanging.join_all().await {
        assert_eq!(result.unwrap_err().kind(), TokenErrorKind::Timeout);
    }
    assert!(started.elapsed() <= secs(35.0), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_again_when_slow_fetches_have_ended() {
    let running = Arc::new(Mutex::new((0, 0)));
    let counted = Arc::clone(&running);
    let tokens = MockTokenSource::new().with_latency(secs(3.0));
    let source = {
        let tokens = tokens.clone();
        source_fn(move |request: TokenRequest| {
            let (counted, tokens) = (Arc::clone(&counted), tokens.clone());
            async move {
                {
                    let mut running = counted.lock().unwrap();
                    running.0 += 1;
                    running.1 = running.0.max(running.1);
                }
                let token = tokens.fetch(&request).await;
                counted.lock().unwrap().0 -= 1;
                token
            }
        })
    };
    let cache = TokenCache::builder(source)
        .max_concurrent_fetches(2)
        .build()
        .unwrap();
    let tenants = |range: std::ops::Range<usize>| {
        let calls: Vec<_> = range.map(tenant).collect();
        let cache = cache.clone();
        async move { join_all(calls.iter().map(|it| cache.token_for(it))).await }
    };
    tenants(0..8).await;
    assert!(running.lock().unwrap().1 > 2, "slow fetches make room");
    running.lock().unwrap().1 = 0;
    let quick = tokio::time::timeout(secs(1.0), tenants(8..16)).await;
    assert!(quick.is_err());
    assert_eq!(running.lock().unwrap().1, 2, "the limit holds");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_its_limit() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .wait_timeout(secs(3.0))
        .build()
        .unwrap();
    let hold = tokens.hold();
    let started = Instant::now();
    let error = cache.token().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_transient()),
        (TokenErrorKind::Timeout, true)
    );
    // Another `fetch_timeout` would change nothing.
    let text = error.to_string();
    assert!(text.contains("still in progress after 3 s"), "{text}");
    assert!(text.contains("raise `wait_timeout`"), "{text}");
    assert!(started.elapsed() < secs(3.1), "{:?}", started.elapsed());
    drop(hold);
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
    assert_eq!(tokens.fetches(), 1, "the fetch went on");
}

/// Nothing is wrong with a token endpoint that was asked late.
#[tokio::test(start_paused = true)]
async fn the_error_of_a_caller_whose_fetch_was_queued_for_most_of_its_wait_says_so() {
    for (in_queue, text) in [
        (secs(0.4), "was still in progress after 1 s"),
        (secs(0.6), "was queued for most of 1 s"),
        (secs(2.0), "was still queued after 1 s"),
    ] {
        let source = source_fn(move |request| async move {
            let is_first = request == tenant(1);
            sleep(if is_first { in_queue } else { secs(10.0) }).await;
            Ok(AccessToken::new("opaque")?)
        });
        let cache = TokenCache::builder(source)
            .max_concurrent_fetches(1)
            .wait_timeout(secs(1.0))
            .build()
            .unwrap();
        let (first, second) = (tenant(1), tenant(2));
        let callers = [&first, &second].map(|it| cache.token_for(it));
        let error = join_all(callers).await.pop().unwrap().unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        assert!(error.to_string().contains(text), "{in_queue:?}: {error}");
    }
}

/// A timer for each caller would cost more than the rest of the wait.
#[tokio::test(start_paused = true)]
async fn callers_share_one_timer_that_ends_with_the_fetch() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let hold = tokens.hold();
    let mut calls = pin!(join_all((0..100).map(|_| cache.token())));
    let mut context = Context::from_waker(Waker::noop());
    assert!(calls.as_mut().poll(&mut context).is_pending());
    assert_eq!(alive() - before, 2, "the fetch and one timer");
    drop(hold);
    assert!(calls.await.iter().all(Result::is_ok));
    sleep(secs(0.1)).await;
    assert_eq!(alive(), before);
}

/// So their memory is read in the order in which it was allocated: among thousands of callers, a
/// random order takes twice the time.
#[tokio::test(start_paused = true)]
async fn callers_continue_in_the_order_in_which_they_came() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let hold = tokens.hold();
    let order = Arc::new(Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..100)
        .map(|number| {
            let (cache, order) = (cache.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                cache.token().await.unwrap();
                order.lock().unwrap().push(number);
            })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(hold);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
}

/// A source over a cache that is set later.
#[derive(Clone, Default)]
struct Nested {
    cache: Arc<OnceLock<TokenCache>>,
}

#[async_trait]
impl TokenSource for Nested {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let number = request.scopes().and_then(|it| it.strip_prefix("level/"));
        let cache = self.cache.get().unwrap();
        match number.map(|it| it.parse::<usize>().unwrap()) {
            Some(level) if level % 1_000 == 0 => Ok(AccessToken::new("below")?),
            Some(level) => {
                let below = level - level % 1_000;
                let below = TokenRequest::scope(format!("level/{below}"));
                cache.token_for(&below).await
            }
            // The same request again.
            None => cache.token_for(request).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_its_own_cache_for_the_same_token_gets_an_error_at_once() {
    let source = Nested::default();
    let cache = TokenCache::new(source.clone());
    source.cache.set(cache.clone()).unwrap();
    let started = Instant::now();
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::FetchCycle);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// 64 tenants, as many as fetches may run at once, whose sources each need another token first.
#[tokio::test(start_paused = true)]
async fn a_fetch_within_a_fetch_needs_no_slot() {
    let source = Nested::default();
    let cache = TokenCache::new(source.clone());
    source.cache.set(cache.clone()).unwrap();
    let requests: Vec<_> = (0..64)
        .map(|it| TokenRequest::scope(format!("level/{}", it * 1_000 + 1)))
        .collect();
    let started = Instant::now();
    for token in join_all(requests.iter().map(|it| cache.token_for(it))).await {
        assert_eq!(token.unwrap().expose_secret(), "below");
    }
    assert!(started.elapsed() < secs(1.0), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn peek_never_fetches_and_returns_late_tokens() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = TokenCache::new(tokens.clone());
    assert!(cache.peek().is_none() && cache.peek_for(&tenant(1)).is_none());
    cache.token().await.unwrap();
    cache.token_for(&tenant(1)).await.unwrap();
    sleep(secs(899.0)).await;
    assert_eq!(cache.peek().unwrap().expose_secret(), "mock-token-1");
    assert_eq!(
        cache.peek_for(&tenant(1)).unwrap().expose_secret(),
        "mock-token-2"
    );
    sleep(secs(1.0)).await;
    assert!(cache.peek().is_none());
    assert_eq!(tokens.fetches(), 2);
    let token = cache.token().await.unwrap();
    cache.invalidate(&token);
    assert!(cache.peek().is_none());
}

#[test]
fn a_thread_without_a_runtime_gets_tokens_through_the_runtime_of_the_settings() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let tokens = MockTokenSource::new().with_latency(Duration::from_millis(5));
    let cache = TokenCache::builder(tokens.clone())
        .runtime(runtime.handle().clone())
        .build()
        .unwrap();
    let token = cache.token_blocking().unwrap();
    assert_eq!(token.expose_secret(), "mock-token-1");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let cache = cache.clone();
            thread::spawn(move || cache.token_for_blocking(&tenant(1)).unwrap())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap().expose_secret(), "mock-token-2");
    }
    // Any caller may be on another runtime, or on one without timers.
    let bare = Builder::new_current_thread().build().unwrap();
    cache.invalidate(&token);
    assert_eq!(
        bare.block_on(cache.token()).unwrap().expose_secret(),
        "mock-token-3"
    );
}

#[test]
fn a_thread_without_any_runtime_gets_a_token_that_is_there_or_an_error() {
    let cache = TokenCache::new(MockTokenSource::new());
    let error = cache.token_blocking().unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::NoRuntime);
    current_thread().block_on(cache.token()).unwrap();
    cache.token_blocking().unwrap();
}

/// The fetch needs the thread that is blocked.
#[test]
fn blocking_the_only_thread_of_a_runtime_ends_with_the_limit_of_the_wait() {
    let cache = TokenCache::builder(MockTokenSource::new())
        .wait_timeout(Duration::from_millis(20))
        .build()
        .unwrap();
    let error = current_thread().block_on(async { cache.token_blocking().unwrap_err() });
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    let text = error.to_string();
    assert!(text.contains("raise `wait_timeout`"), "{text}");
}

#[test]
fn a_runtime_without_timers_is_an_invalid_setting() {
    let bare = Builder::new_current_thread().build().unwrap();
    let error = TokenCache::builder(MockTokenSource::new())
        .runtime(bare.handle().clone())
        .build()
        .unwrap_err();
    assert_eq!(error.setting(), "runtime");
}

#[test]
fn a_fetch_lost_with_the_runtime_of_the_settings_is_not_taken_over() {
    let runtime = current_thread();
    let cache = TokenCache::builder(MockTokenSource::new())
        .runtime(runtime.handle().clone())
        .build()
        .unwrap();
    drop(runtime);
    let error = current_thread().block_on(cache.token()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::NoRuntime);
}

#[tokio::test(start_paused = true)]
async fn a_closed_cache_serves_its_tokens_and_fetches_no_others() {
    let tokens = MockTokenSource::new().with_lifetime(secs(900.0));
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    let hold = tokens.hold();
    let waiting = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.token_for(&tenant(1)).await })
    };
    sleep(secs(0.1)).await;
    let started = Instant::now();
    cache.close().await;
    cache.clone().close().await;
    assert!(started.elapsed() <= secs(1.0));
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind(), error.is_transient()),
        (TokenErrorKind::Closed, false)
    );
    drop(hold);
    for (age, works) in [(0.0, true), (850.0, true), (40.0, true), (20.0, false)] {
        sleep(secs(age)).await;
        let result = cache.token().await;
        assert_eq!(result.is_ok(), works, "{result:?}");
        if let Err(error) = result {
            assert_eq!(error.kind(), TokenErrorKind::Closed);
            assert_eq!(error.retry_after(), None, "no pause");
        }
    }
    assert_eq!(tokens.fetches(), 2);
}

/// tokio's own panic about missing timers is caught; its message is printed once per runtime.
#[test]
fn a_runtime_without_timers_is_remembered() {
    let cache = TokenCache::new(MockTokenSource::new());
    let bare = Builder::new_current_thread().build().unwrap();
    for _ in 0..3 {
        let error = bare.block_on(cache.token()).unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::NoRuntime);
    }
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(cache.token()).poll(&mut context).is_ready());
}
