//! Single flight (rules B of `docs/behaviour.md`): a fetch is shared, detached, taken over if its
//! runtime is gone, and limited in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bearer_auth::{
    AccessToken, MockTokenSource, TokenCache, TokenError, TokenErrorKind, TokenRequest, source_fn,
};
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};

const LATENCY: Duration = Duration::from_millis(50);

fn slow() -> (MockTokenSource, TokenCache) {
    let tokens = MockTokenSource::new().with_latency(LATENCY);
    (tokens.clone(), TokenCache::new(tokens))
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Polls once, in the context of the entered runtime, if there is one.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_cold_callers_share_one_fetch() {
    let (tokens, cache) = slow();
    let start = Instant::now();
    let callers = (0..10_000).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.token().await.unwrap() })
    });
    for token in join_all(callers).await {
        assert_eq!(token.unwrap().expose_secret(), "mock-token-1");
    }
    assert_eq!(tokens.fetches(), 1);
    assert!(start.elapsed() < LATENCY * 3 / 2, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_on_many_threads_share_one_fetch() {
    for _ in 0..20 {
        let (tokens, cache) = slow();
        let callers = (0..500).map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token().await.unwrap() })
        });
        join_all(callers).await;
        assert_eq!(tokens.fetches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_survives_its_first_caller() {
    let (tokens, cache) = slow();
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    sleep(LATENCY / 2).await;
    let second = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    tokio::task::yield_now().await;
    first.abort();
    assert_eq!(
        second.await.unwrap().unwrap().expose_secret(),
        "mock-token-1"
    );
    assert_eq!(tokens.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_survives_all_its_callers() {
    let (tokens, cache) = slow();
    assert!(timeout(LATENCY / 2, cache.token()).await.is_err());
    sleep(LATENCY).await;
    let start = Instant::now();
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
    assert_eq!((tokens.fetches(), start.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn callers_with_short_deadlines_do_not_starve_the_cache() {
    let (tokens, cache) = slow();
    let mut served = 0;
    for _ in 0..20 {
        served += usize::from(timeout(LATENCY / 5, cache.token()).await.is_ok());
    }
    assert!(served >= 15, "{served}");
    assert_eq!(tokens.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_callers_share_a_slow_failure() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetches);
    let cache = TokenCache::new(source_fn(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(Duration::from_secs(2)).await;
            Err(TokenError::transient("503"))
        }
    }));
    let start = Instant::now();
    for result in join_all((0..100).map(|_| cache.token())).await {
        assert_eq!(result.unwrap_err().kind(), TokenErrorKind::Source);
    }
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn one_timeout_covers_all_tries_of_a_fetch() {
    let tokens = MockTokenSource::new();
    let _hold = tokens.hold();
    for (cache, limit) in [
        (TokenCache::new(tokens.clone()), 30),
        (
            TokenCache::builder(tokens.clone())
                .fetch_timeout(Duration::from_secs(3))
                .build()
                .unwrap(),
            3,
        ),
    ] {
        let start = Instant::now();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        assert!(error.is_transient());
        assert_eq!(start.elapsed().as_secs(), limit);
        // During the pause the same error is returned at once.
        let fetches = tokens.fetches();
        assert_eq!(
            cache.token().await.unwrap_err().kind(),
            TokenErrorKind::Timeout
        );
        assert_eq!(
            (tokens.fetches(), start.elapsed().as_secs()),
            (fetches, limit)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_source_is_an_error_for_its_callers_and_the_cache_recovers() {
    for before_the_first_await in [true, false] {
        let calls = AtomicUsize::new(0);
        let cache = TokenCache::new(source_fn(move |_| {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            assert!(call > 0 || !before_the_first_await, "on purpose");
            async move {
                sleep(LATENCY).await;
                assert!(call > 0, "on purpose");
                Ok(AccessToken::new("recovered")?)
            }
        }));
        for result in join_all((0..10).map(|_| cache.token())).await {
            assert_eq!(result.unwrap_err().kind(), TokenErrorKind::SourcePanicked);
        }
        let error = cache.token().await.unwrap_err();
        assert_eq!(
            error.kind(),
            TokenErrorKind::SourcePanicked,
            "during the pause"
        );
        sleep(error.retry_after().unwrap()).await;
        assert_eq!(cache.token().await.unwrap().expose_secret(), "recovered");
    }
}

#[test]
fn a_fetch_lost_with_its_runtime_is_taken_over() {
    let (tokens, cache) = slow();
    let first = current_thread();
    first.block_on(async {
        // Starts the fetch, and stops driving it.
        assert!(timeout(LATENCY / 5, cache.token()).await.is_err());
    });
    let waiters = thread::spawn({
        let cache = cache.clone();
        move || {
            current_thread().block_on(async {
                let waiters = (0..50).map(|_| cache.token());
                join_all(waiters)
                    .await
                    .into_iter()
                    .map(Result::unwrap)
                    .collect::<Vec<_>>()
            })
        }
    });
    // They wait for the fetch on the first runtime, which is then dropped.
    thread::sleep(LATENCY / 5);
    drop(first);
    for token in waiters.join().unwrap() {
        assert_eq!(token.expose_secret(), "mock-token-1");
    }
    assert_eq!(tokens.fetches(), 2, "no failure, so no pause");
}

#[test]
fn a_caller_on_a_runtime_that_is_shutting_down_gets_an_error_and_does_not_loop() {
    let (_, cache) = slow();
    let runtime = current_thread();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _entered = handle.enter();
    let mut call = Box::pin(cache.token());
    let error = loop {
        if let Poll::Ready(result) = poll_once(call.as_mut()) {
            break result.unwrap_err();
        }
    };
    assert_eq!(error.kind(), TokenErrorKind::NoRuntime);
    drop(call);
    current_thread().block_on(async { cache.token().await.unwrap() });
}

#[test]
fn a_missing_runtime_or_timer_is_a_typed_error() {
    let (tokens, cache) = slow();
    let mut call = Box::pin(cache.token());
    let Poll::Ready(Err(error)) = poll_once(call.as_mut()) else {
        panic!("must be ready")
    };
    assert_eq!(error.kind(), TokenErrorKind::NoRuntime);

    let without_timers = Builder::new_current_thread().build().unwrap();
    let error = without_timers.block_on(cache.token()).unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::NoRuntime);
    assert!(error.to_string().contains("enable_all"), "{error}");
    assert_eq!(tokens.fetches(), 0);

    // A cached token needs no runtime.
    current_thread().block_on(cache.token()).unwrap();
    let mut call = Box::pin(cache.token());
    assert!(matches!(poll_once(call.as_mut()), Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn background_work_ends_with_the_last_handle() {
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let alive = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&alive);
    let cache = TokenCache::new(source_fn(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        let alive = Alive(Arc::clone(&counter));
        async move {
            let _alive = alive;
            sleep(Duration::from_secs(10)).await;
            Ok(AccessToken::new("never")?)
        }
    }));
    let request = TokenRequest::scope("tenant/1");
    let clone = cache.clone();
    assert!(timeout(LATENCY, cache.token()).await.is_err());
    assert!(timeout(LATENCY, cache.token_for(&request)).await.is_err());
    assert_eq!(
        alive.load(Ordering::Relaxed),
        2,
        "fetches continue without their callers"
    );
    drop(cache);
    sleep(LATENCY).await;
    assert_eq!(alive.load(Ordering::Relaxed), 2, "a clone is left");
    drop(clone);
    sleep(LATENCY).await;
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn fetches_beyond_the_limit_are_queued() {
    let tokens = MockTokenSource::new().with_latency(Duration::from_secs(1));
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(4)
        .fetch_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let start = Instant::now();
    let requests: Vec<_> = (0..20)
        .map(|it| TokenRequest::scope(format!("tenant/{it}")))
        .collect();
    let callers = requests.iter().map(|request| cache.token_for(request));
    for token in join_all(callers).await {
        token.unwrap();
    }
    // The timeout of 2 s does not include the time in the queue.
    assert_eq!((tokens.fetches(), start.elapsed().as_secs()), (20, 5));
}

#[test]
fn a_long_queue_of_a_dropped_runtime_is_drained_without_recursion() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(1)
        .build()
        .unwrap();
    let hold = tokens.hold();
    let dropped = current_thread();
    let requests: Vec<_> = (0..20_000)
        .map(|number| TokenRequest::scope(format!("tenant/{number}")))
        .collect();
    {
        let _entered = dropped.enter();
        for request in &requests {
            let mut call = Box::pin(cache.token_for(request));
            assert!(poll_once(call.as_mut()).is_pending());
        }
    }
    drop(dropped);
    drop(hold);
    let token = current_thread().block_on(cache.token_for(&requests[4_999]));
    assert_eq!(token.unwrap().expose_secret(), "mock-token-1");
}
