//! The limit on cached tenants and the queue of their fetches (rules 9 and 29 of
//! `docs/behaviour.md`).

use std::time::Duration;

use bearer_auth::{MockTokenSource, TokenCache, TokenRequest};
use futures_util::future::join_all;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

const MOMENT: Duration = Duration::from_millis(1);

fn tenants(count: usize) -> Vec<TokenRequest> {
    (0..count)
        .map(|number| TokenRequest::scope(format!("tenant/{number}")))
        .collect()
}

/// Returns the number of cached tenants, which the cache's `Debug` shows.
fn entries(cache: &TokenCache) -> usize {
    let debug = format!("{cache:?}");
    let (_, len) = debug.split_once(" len: ").unwrap();
    len.split(',').next().unwrap().parse().unwrap()
}

/// Requests a token for each of these tenants, and gives up after a moment.
async fn call_and_give_up(cache: &TokenCache, tenants: &[TokenRequest]) {
    let calls = join_all(tenants.iter().map(|tenant| cache.token_for(tenant)));
    timeout(MOMENT, calls).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn excess_tenants_are_evicted_once_their_fetches_end() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(4)
        .build()
        .unwrap();
    let tenants = tenants(48);
    let hold = tokens.hold();
    call_and_give_up(&cache, &tenants).await;
    assert_eq!(entries(&cache), 48, "none is evicted during its fetch");
    drop(hold);
    sleep(MOMENT).await;
    assert_eq!(tokens.fetches(), 48);
    assert!(entries(&cache) <= 4, "{} of 4", entries(&cache));
}

#[tokio::test(start_paused = true)]
async fn a_queued_fetch_without_callers_is_dropped_and_its_tenant_evicted() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(4)
        .max_concurrent_fetches(1)
        .build()
        .unwrap();
    let tenants = tenants(50);
    let hold = tokens.hold();
    let waiting = tokio::spawn({
        let (cache, tenants) = (cache.clone(), tenants[..3].to_vec());
        async move { join_all(tenants.iter().map(|tenant| cache.token_for(tenant))).await }
    });
    sleep(MOMENT).await;
    for tenant in &tenants[3..] {
        call_and_give_up(&cache, std::slice::from_ref(tenant)).await;
    }
    // The newest entry may exceed the limit.
    assert!(entries(&cache) <= 5, "{} of 4", entries(&cache));
    drop(hold);
    for token in waiting.await.unwrap() {
        token.unwrap();
    }
    sleep(MOMENT).await;
    assert!(tokens.fetches() <= 5, "{} fetches", tokens.fetches());
    assert_eq!(
        tokens.requests()[..3],
        tenants[..3],
        "in the order of the queue"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_of_ten_thousand_tenants_runs_64_fetches_at_a_time() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let tenants = tenants(10_000);
    let hold = tokens.hold();
    let calls = tokio::spawn({
        let cache = cache.clone();
        async move { join_all(tenants.iter().map(|tenant| cache.token_for(tenant))).await }
    });
    // Just before the 64 that run are slow and make room for others.
    for _ in 0..3 {
        sleep(Duration::from_millis(600)).await;
        assert_eq!(tokens.fetches(), 64);
    }
    drop(hold);
    assert!(calls.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(tokens.fetches(), 10_000);
}

/// Fetches on a runtime that is not driven take all the slots, and no caller waits as long as the
/// fetch timeout.
#[test]
fn callers_with_short_deadlines_free_the_slots_of_undriven_fetches() {
    const SHORT: Duration = Duration::from_millis(60);
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(2)
        .fetch_timeout(Duration::from_millis(150))
        .build()
        .unwrap();
    let runtime = || Builder::new_current_thread().enable_time().build().unwrap();
    let (undriven, driven) = (runtime(), runtime());
    let hold = tokens.hold();
    undriven.block_on(call_and_give_up(&cache, &tenants(2)));
    drop(hold);
    // Each call starts a new wait. The slots have a deadline of their own, 400 ms after they were
    // taken.
    let call = async || timeout(SHORT, cache.token()).await;
    let mut calls = (0..50).map(|_| driven.block_on(call()));
    assert!(calls.any(|call| matches!(call, Ok(Ok(_)))));
}

/// With several worker threads, a queued fetch could start before it is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_fetches_are_dropped_with_the_last_handle() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(1)
        .build()
        .unwrap();
    let _hold = tokens.hold();
    let tenants = tenants(5_000);
    let calls = join_all(tenants.iter().map(|tenant| cache.token_for(tenant)));
    timeout(Duration::from_millis(100), calls)
        .await
        .unwrap_err();
    assert_eq!(tokens.fetches(), 1);
    drop(cache);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(tokens.fetches(), 1);
}
