//! The bound on tenants and the queue of their fetches (rules 9 and 29), through the public face.

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

/// How many tenants the cache has, as its `Debug` says.
fn held(cache: &TokenCache) -> usize {
    let shown = format!("{cache:?}");
    let (_, len) = shown.split_once(" len: ").unwrap();
    len.split(',').next().unwrap().parse().unwrap()
}

/// Calls for each of these tenants, and soon gives up.
async fn call_and_leave(cache: &TokenCache, tenants: &[TokenRequest]) {
    let calls = join_all(tenants.iter().map(|tenant| cache.token_for(tenant)));
    timeout(MOMENT, calls).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn once_fetched_too_many_tenants_make_room_without_newcomers() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(4)
        .build()
        .unwrap();
    let tenants = tenants(48);
    let hold = tokens.hold();
    call_and_leave(&cache, &tenants).await;
    assert_eq!(held(&cache), 48, "all are being fetched");
    drop(hold);
    sleep(MOMENT).await;
    assert_eq!(tokens.fetches(), 48);
    assert!(held(&cache) <= 4, "{} of 4", held(&cache));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_queues_for_nobody_makes_room() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(4)
        .max_concurrent_fetches(1)
        .build()
        .unwrap();
    let tenants = tenants(50);
    let hold = tokens.hold();
    let awaited = tokio::spawn({
        let (cache, tenants) = (cache.clone(), tenants[..3].to_vec());
        async move { join_all(tenants.iter().map(|tenant| cache.token_for(tenant))).await }
    });
    sleep(MOMENT).await;
    for tenant in &tenants[3..] {
        call_and_leave(&cache, std::slice::from_ref(tenant)).await;
    }
    // The newest may stay beyond them.
    assert!(held(&cache) <= 5, "{} of 4", held(&cache));
    drop(hold);
    for token in awaited.await.unwrap() {
        token.unwrap();
    }
    sleep(MOMENT).await;
    assert!(tokens.fetches() <= 5, "{} fetches", tokens.fetches());
    assert_eq!(tokens.requests()[..3], tenants[..3], "in turn");
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_of_ten_thousand_tenants_is_64_fetches_at_a_time() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let tenants = tenants(10_000);
    let hold = tokens.hold();
    let calls = tokio::spawn({
        let cache = cache.clone();
        async move { join_all(tenants.iter().map(|tenant| cache.token_for(tenant))).await }
    });
    // Twice a flight's limit would be over for those in the queue, if it counted there.
    for _ in 0..3 {
        sleep(Duration::from_secs(9)).await;
        assert_eq!(tokens.fetches(), 64);
    }
    drop(hold);
    assert!(calls.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(tokens.fetches(), 10_000);
}

/// Flights that nobody drives have all the places, and no caller stays for as long as a flight may take.
#[test]
fn callers_with_short_deadlines_free_the_places_of_flights_that_nobody_drives() {
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
    undriven.block_on(call_and_leave(&cache, &tenants(2)));
    drop(hold);
    // Each begins its wait anew; the places' own deadline is 400 ms after they were taken.
    let call = async || timeout(SHORT, cache.token()).await;
    let mut calls = (0..50).map(|_| driven.block_on(call()));
    assert!(calls.any(|call| matches!(call, Ok(Ok(_)))));
}

/// On threads of their own, tasks could be begun before they are told to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_ends_with_the_last_handle() {
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
