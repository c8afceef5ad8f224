//! Fetches on a runtime that is not driven (rule 9 of `docs/behaviour.md`).

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bearer_auth::{MockTokenSource, TokenCache, TokenErrorKind, TokenRequest};
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::support::clock::ManualClock;

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Polls once, in the context of the entered runtime.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_undriven_fetch_times_out_for_its_callers() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .fetch_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let undriven = current_thread();
    {
        let _entered = undriven.enter();
        let mut call = Box::pin(cache.token());
        assert!(poll_once(call.as_mut()).is_pending());
    }
    current_thread().block_on(async {
        let calls = join_all((0..10).map(|_| cache.token()));
        let results = timeout(Duration::from_secs(5), calls).await;
        for result in results.expect("the callers hang") {
            assert_eq!(result.unwrap_err().kind(), TokenErrorKind::Timeout);
        }
        assert_eq!(tokens.fetches(), 0);
        // The next caller starts a new fetch on the driven runtime.
        cache.token().await.unwrap();
        assert_eq!(tokens.fetches(), 1);
    });
}

/// It came too late to tell whether the source answers in time, and too early to see at once that
/// the fetch is lost.
#[test]
fn a_caller_that_joins_an_undriven_fetch_late_takes_it_over() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .fetch_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let undriven = current_thread();
    {
        let _entered = undriven.enter();
        let mut call = Box::pin(cache.token());
        assert!(poll_once(call.as_mut()).is_pending());
    }
    // Between the time limit of the fetch and the time at which every caller would give it up.
    thread::sleep(Duration::from_millis(320));
    current_thread().block_on(cache.token()).unwrap();
    assert_eq!(tokens.fetches(), 1);
}

/// It was started for a due token, so no caller waited for it and timed out.
#[test]
fn an_undriven_background_refresh_costs_no_caller_an_error() {
    const TIMEOUT: Duration = Duration::from_millis(100);
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(5));
    let clock = ManualClock::new();
    let cache = TokenCache::builder(tokens.clone())
        .fetch_timeout(TIMEOUT)
        .clock(clock.clone())
        .build()
        .unwrap();
    let undriven = current_thread();
    undriven.block_on(cache.token()).unwrap();
    clock.advance(3.9, 3.9);
    {
        let _entered = undriven.enter();
        let mut call = Box::pin(cache.token());
        assert!(
            matches!(poll_once(call.as_mut()), Poll::Ready(Ok(_))),
            "due"
        );
    }
    // Longer than a caller would have waited.
    thread::sleep(TIMEOUT + Duration::from_millis(500));
    clock.advance(1.1, 1.1);
    let token = current_thread().block_on(cache.token()).unwrap();
    assert_eq!(token.expose_secret(), "mock-token-2");
    assert_eq!(tokens.fetches(), 2);
}

#[test]
fn undriven_fetches_do_not_block_the_queue() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(2)
        .fetch_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let undriven = current_thread();
    {
        let _entered = undriven.enter();
        for number in 0..4 {
            let request = TokenRequest::scope(format!("undriven/{number}"));
            let mut call = Box::pin(cache.token_for(&request));
            assert!(poll_once(call.as_mut()).is_pending());
        }
    }
    current_thread().block_on(async {
        let token = timeout(Duration::from_secs(10), cache.token())
            .await
            .expect("the undriven fetches block the queue");
        token.unwrap();
        assert_eq!(tokens.fetches(), 1);
        // Both slots are free again.
        let _hold = tokens.hold();
        let requests = ["driven/1", "driven/2"].map(TokenRequest::scope);
        let calls = join_all(requests.iter().map(|request| cache.token_for(request)));
        timeout(Duration::from_millis(50), calls).await.unwrap_err();
        assert_eq!(tokens.fetches(), 3);
    });
}
