//! The limit on cached tenants and the queue of their fetches (rules 9 and 29 of
//! `docs/behaviour.md`).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bearer_auth::{
    AccessToken, BearerAuthLayer, MockTokenSource, RequestAuth, TokenCache, TokenError,
    TokenRequest, source_fn,
};
use futures_util::future::{join_all, pending};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::api::INVALID_TOKEN;

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

#[tokio::test(start_paused = true)]
async fn a_pause_is_not_forgotten_by_eviction() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(1)
        .build()
        .unwrap();
    let tenants = tenants(4);
    let down = TokenError::permanent("down").with_retry_after(Duration::from_secs(60));
    tokens.fail_next_for(&tenants[0], down);
    cache.token_for(&tenants[0]).await.unwrap_err();
    for tenant in &tenants[1..] {
        cache.token_for(tenant).await.unwrap();
    }
    assert!(entries(&cache) <= 2, "the others were evicted");
    let error = cache.token_for(&tenants[0]).await.unwrap_err();
    assert!(error.is_paused());
    assert_eq!(tokens.fetches(), 4);
}

/// A tenant's token is rejected while it is refreshed. The refresh returns the same token, so it
/// does not count; at its end, the tenant is the least recently used of too many.
#[tokio::test(start_paused = true)]
async fn a_rejection_is_not_forgotten_by_eviction() {
    let (fetches, gate) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let source = {
        let (fetches, gate) = (Arc::clone(&fetches), Arc::clone(&gate));
        source_fn(move |request| {
            let (fetches, gate) = (Arc::clone(&fetches), Arc::clone(&gate));
            async move {
                if request == TokenRequest::scope("hangs") {
                    return pending().await;
                }
                if fetches.fetch_add(1, Ordering::Relaxed) == 1 {
                    gate.notified().await;
                }
                Ok(AccessToken::new("same")?.with_lifetime(Duration::from_secs(900)))
            }
        })
    };
    let calls = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&calls);
    let api = service_fn(move |request: Request<()>| {
        counter.fetch_add(1, Ordering::Relaxed);
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer same");
        let response = Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(WWW_AUTHENTICATE, INVALID_TOKEN);
        async { Ok::<_, Infallible>(response.body(()).unwrap()) }
    });
    let cache = TokenCache::builder(source).max_entries(1).build().unwrap();
    let tenant = TokenRequest::scope("rejected");
    cache.token_for(&tenant).await.unwrap();
    // Due: this request starts the refresh, uses the token, and is rejected.
    advance(Duration::from_secs(850)).await;
    let mut request = Request::get("https://api.example.com/").body(()).unwrap();
    request.extensions_mut().insert(RequestAuth::token(tenant));
    let service = BearerAuthLayer::from_cache(cache.clone()).layer(api);
    let rejected = tokio::spawn(service.oneshot(request));
    sleep(MOMENT).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let other = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token_for(&TokenRequest::scope("hangs")).await }
    });
    sleep(MOMENT).await;
    assert_eq!(entries(&cache), 2, "both have a fetch in progress");
    gate.notify_one();
    let response = rejected.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(fetches.load(Ordering::Relaxed), 3, "after the rejection");
    assert_eq!(calls.load(Ordering::Relaxed), 1, "it was sent again");
    other.abort();
}

/// Returns the median time that a new tenant takes in a cache that is full of so many others, none
/// of which may be evicted: all are paused.
fn time_beside(paused: usize) -> Duration {
    const MEASURED: usize = 201;
    let down = || TokenError::permanent("down").with_retry_after(Duration::from_secs(3_600));
    let cache = TokenCache::builder(source_fn(
        move |_| async move { Err::<AccessToken, _>(down()) },
    ));
    let cache = cache.max_entries(paused).build().unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let add = |tenant: &TokenRequest| {
        let begin = Instant::now();
        runtime.block_on(cache.token_for(tenant)).unwrap_err();
        begin.elapsed()
    };
    let tenants = tenants(paused + MEASURED);
    for tenant in &tenants[..paused] {
        add(tenant);
    }
    let mut times: Vec<_> = tenants[paused..].iter().map(add).collect();
    assert_eq!(entries(&cache), paused + MEASURED, "none was evicted");
    times.sort_unstable();
    times[MEASURED / 2]
}

/// A scan of all entries would take forty times as long beside forty times as many.
#[test]
fn a_new_tenant_takes_no_longer_beside_many_that_cannot_be_evicted() {
    let (few, many) = (time_beside(500), time_beside(20_000));
    println!("{few:?} beside 500, {many:?} beside 20,000");
    assert!(
        many < few * 10,
        "{few:?} beside 500, {many:?} beside 20,000"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_tenant_evicts_no_more_than_64_others() {
    let cache = TokenCache::builder(MockTokenSource::new());
    let cache = cache.max_entries(4_000).build().unwrap();
    let mut before = 0;
    for tenant in tenants(5_000) {
        cache.token_for(&tenant).await.unwrap();
        let after = entries(&cache);
        assert!(after + 64 >= before, "from {before} to {after}");
        before = after;
    }
    assert!(before <= 4_001, "{before} of 4,000");
}
