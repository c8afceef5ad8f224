//! The events of a store that cannot be used, on tokio's paused clock.

use std::sync::Arc;
use std::time::Duration;

use bearer_auth::{
    FallbackTokenSource, FetchContext, FetchReason, SharedTokenSource, TokenCache, TokenRequest,
    TokenSource,
};
use tokio::time::{Instant, advance, sleep};

use crate::support::events::Recorder;
use crate::support::fleet::{Fault, Fleet, key, keys, shared};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn source(fleet: &Fleet, key: &str) -> Arc<SharedTokenSource> {
    Arc::new(shared(fleet.tokens.clone(), fleet.store.clone(), keys(key)))
}

fn observed(source: impl TokenSource) -> (TokenCache, Recorder) {
    let events = Recorder::default();
    let cache = TokenCache::builder(source).observer(events.clone());
    (cache.build().unwrap(), events)
}

async fn fetch(cache: &TokenCache, tenant: usize) {
    let request = TokenRequest::scope(format!("tenant/{tenant}"));
    cache.token_for(&request).await.unwrap();
}

/// Returns the events about the store.
fn take(events: &Recorder) -> Vec<String> {
    let mut lines = events.take();
    lines.retain(|line| line.starts_with("store"));
    lines
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_has_one_event_when_it_begins_and_one_when_it_ends() {
    for (fault, cause) in [
        (Fault::Down, "down"),
        (Fault::Stalled, "no answer in 50ms"),
        // Each fetch reads it with success before a write fails.
        (Fault::Full, "full"),
        (Fault::OnlyLeases, "full"),
    ] {
        let fleet = Fleet::new();
        let (cache, events) = observed(source(&fleet, "one"));
        fetch(&cache, 0).await;
        fleet.store.set(fault);
        fetch(&cache, 1).await;
        fetch(&cache, 2).await;
        assert_eq!(take(&events), [""; 0], "two failures");
        for tenant in 3..20 {
            fetch(&cache, tenant).await;
        }
        let expected = format!("store unavailable: failing, {cause}");
        assert_eq!(take(&events), [expected]);
        fleet.store.set(Fault::None);
        for tenant in 20..30 {
            advance(secs(1)).await;
            fetch(&cache, tenant).await;
        }
        assert_eq!(take(&events), ["store available: failing"]);
    }
}

/// The fault is known before the fetch that goes on alone has ended.
#[tokio::test(start_paused = true)]
async fn an_outage_is_reported_before_the_token_endpoint_answers() {
    for (fault, cause) in [(Fault::Down, "down"), (Fault::Full, "full")] {
        let fleet = Fleet::new();
        let (cache, events) = observed(source(&fleet, "one"));
        fleet.store.set(fault);
        fetch(&cache, 1).await;
        fetch(&cache, 2).await;
        let hold = fleet.tokens.hold();
        let caller = tokio::spawn(async move { fetch(&cache, 3).await });
        // Less than after which the tokens of the other fetches are offered to the store.
        advance(Duration::from_millis(50)).await;
        let expected = format!("store unavailable: failing, {cause}");
        assert_eq!(take(&events), [expected]);
        drop(hold);
        caller.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovery_is_reported_before_the_token_endpoint_answers() {
    for fault in [Fault::Down, Fault::Full] {
        let fleet = Fleet::new();
        let (cache, events) = observed(source(&fleet, "one"));
        fleet.store.set(fault);
        for tenant in 0..3 {
            fetch(&cache, tenant).await;
        }
        assert_eq!(take(&events).len(), 1);
        fleet.store.set(Fault::None);
        advance(secs(2)).await;
        let hold = fleet.tokens.hold();
        let caller = tokio::spawn(async move { fetch(&cache, 3).await });
        advance(secs(1)).await;
        assert_eq!(take(&events), ["store available: failing"]);
        drop(hold);
        caller.await.unwrap();
    }
}

/// It may have no reason to write for a long time: other processes fetch the tokens.
#[tokio::test(start_paused = true)]
async fn a_process_that_only_adopts_tokens_notices_that_the_store_can_be_written() {
    for fault in [Fault::Full, Fault::OnlyLeases] {
        let fleet = Fleet::new();
        let source = source(&fleet, "one");
        let (cache, events) = observed(Arc::clone(&source));
        fleet.store.set(fault);
        for tenant in 0..3 {
            fetch(&cache, tenant).await;
        }
        assert_eq!(take(&events), ["store unavailable: failing, full"]);
        // Past the offers of these tokens, which are tried after 1.5 s at the latest.
        sleep(secs(3)).await;
        assert!(!source.is_store_available());
        fleet.store.set(Fault::None);
        fetch(&fleet.process(), 7).await;
        let fetches = fleet.tokens.fetches();
        fetch(&cache, 7).await;
        assert_eq!(fleet.tokens.fetches(), fetches, "adopted");
        assert_eq!(take(&events), ["store available: failing"], "{fault:?}");
        assert!(source.is_store_available());
        // It wrote the record that was there, so others still find the token.
        fetch(&fleet.process(), 7).await;
        assert_eq!(fleet.tokens.fetches(), fetches);
    }
}

#[tokio::test(start_paused = true)]
async fn each_cache_over_a_source_is_told() {
    let fleet = Fleet::new();
    let source = source(&fleet, "one");
    let caches = [(); 2].map(|()| observed(Arc::clone(&source)));
    let (dropped, events) = observed(source);
    fleet.store.set(Fault::Down);
    for tenant in 0..5 {
        fetch(&dropped, tenant).await;
    }
    drop(dropped);
    assert_eq!(take(&events).len(), 1);
    for (cache, events) in &caches {
        fetch(cache, 0).await;
        fetch(cache, 1).await;
        assert_eq!(take(events), ["store unavailable: failing, down"]);
    }
    fleet.store.set(Fault::None);
    advance(secs(1)).await;
    fetch(&caches[0].0, 2).await;
    for (_, events) in &caches {
        assert_eq!(take(events), ["store available: failing"]);
    }
    assert_eq!(take(&events), [""; 0], "its cache is gone");
}

#[tokio::test(start_paused = true)]
async fn sources_around_a_shared_one_report_too() {
    let fleet = Fleet::new();
    fleet.store.set(Fault::Down);
    let source = FallbackTokenSource::new([source(&fleet, "one")]);
    let (cache, events) = observed(Box::new(source));
    for tenant in 0..3 {
        fetch(&cache, tenant).await;
    }
    assert_eq!(take(&events), ["store unavailable: failing, down"]);
}

/// Nobody is there to tell.
#[tokio::test(start_paused = true)]
async fn without_a_cache_nothing_is_reported() {
    let fleet = Fleet::new();
    fleet.store.set(Fault::Down);
    let source = source(&fleet, "one");
    let context = FetchContext::new(FetchReason::First, Instant::now() + secs(30));
    for _ in 0..5 {
        let request = TokenRequest::default();
        source.fetch_with(&request, &context).await.unwrap();
    }
    assert!(!source.is_store_available());
}

#[tokio::test(start_paused = true)]
async fn a_record_with_an_unknown_key_is_reported_until_none_is_left() {
    let fleet = Fleet::new();
    for tenant in 0..3 {
        fetch(&fleet.process(), tenant).await;
    }
    let (cache, events) = observed(source(&fleet, "other"));
    fetch(&cache, 7).await;
    assert_eq!(take(&events), [""; 0]);
    fetch(&cache, 0).await;
    advance(secs(100)).await;
    fetch(&cache, 1).await;
    assert_eq!(take(&events), ["store unavailable: unknown_key"]);
    // Records of its own do not end it, as long as the others are there.
    fetch(&cache, 8).await;
    advance(secs(799)).await;
    fetch(&cache, 9).await;
    assert_eq!(take(&events), [""; 0]);
    advance(secs(2)).await;
    fetch(&cache, 10).await;
    assert_eq!(take(&events), ["store available: unknown_key"]);
    fetch(&cache, 11).await;
    assert_eq!(take(&events), [""; 0]);
}

/// Opening keys come first, so a rotation is no fault.
#[tokio::test(start_paused = true)]
async fn a_rotation_of_the_keys_is_not_reported() {
    let fleet = Fleet::new();
    fetch(&fleet.process(), 0).await;
    let both = keys("two").and_open("one", key("one")).unwrap();
    let source = shared(fleet.tokens.clone(), fleet.store.clone(), both);
    let (cache, events) = observed(source);
    fetch(&cache, 0).await;
    fetch(&cache, 1).await;
    assert_eq!(take(&events), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_event_about_the_store_names_a_token_or_a_tenant() {
    let fleet = Fleet::new();
    fetch(&fleet.process(), 42).await;
    let (cache, events) = observed(source(&fleet, "other"));
    fetch(&cache, 42).await;
    fleet.store.set(Fault::Down);
    for _ in 0..3 {
        advance(secs(901)).await;
        fetch(&cache, 42).await;
    }
    let debug = events.debug();
    let about_store = debug.lines().filter(|line| line.starts_with("Store"));
    let about_store: Vec<_> = about_store.collect();
    assert!(about_store.len() >= 2, "{debug}");
    for line in about_store {
        for secret in ["mock-token", "tenant", "42", "client"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}
