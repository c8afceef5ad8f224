//! The events of fetches, waits and entries, and what observers may do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bearer_auth::{
    AccessToken, Event, MockTokenSource, Observer, TokenCache, TokenCacheBuilder, TokenError,
    TokenRequest, TokenSource, source_fn,
};
use tokio::sync::Notify;
use tokio::time::{advance, sleep, timeout};

use crate::support::events::Recorder;

const LATENCY: Duration = Duration::from_millis(50);
const LIFE: Duration = Duration::from_secs(900);

fn tokens() -> MockTokenSource {
    MockTokenSource::new()
        .with_lifetime(LIFE)
        .with_latency(LATENCY)
}

fn observed(source: impl TokenSource) -> (TokenCacheBuilder, Recorder) {
    let recorder = Recorder::default();
    let builder = TokenCache::builder(source).observer(recorder.clone());
    (builder, recorder)
}

fn observed_cache(source: impl TokenSource) -> (TokenCache, Recorder) {
    let (builder, recorder) = observed(source);
    (builder.build().unwrap(), recorder)
}

/// Returns a failure with a pause that has no jitter.
fn failure() -> TokenError {
    TokenError::permanent("no").with_retry_after(Duration::from_secs(10))
}

async fn secs(secs: u64) {
    advance(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_fetch_has_all_its_events_in_order() {
    let (cache, events) = observed_cache(tokens());
    cache.token().await.unwrap();
    assert_eq!(
        events.take(),
        [
            "queued: first",
            "started: first 1",
            "finished: first token after 0.050 s, life 899.950 s, failures 0",
            "waited: token 0.050 s",
        ]
    );
    cache.token().await.unwrap();
    cache.peek().unwrap();
    assert!(events.take().is_empty(), "a fresh token");
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_fetch_is_the_state_of_the_token() {
    for (age, reason) in [(850, "due"), (895, "late"), (901, "expired")] {
        let (cache, events) = observed_cache(tokens());
        cache.token().await.unwrap();
        events.take();
        secs(age).await;
        cache.token().await.unwrap();
        sleep(LATENCY * 2).await;
        let lines = events.take();
        assert_eq!(lines[0], format!("queued: {reason}"));
        assert_eq!(lines[1], format!("started: {reason} 1"));
        assert!(
            lines[2].starts_with(&format!("finished: {reason} token")),
            "{lines:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_fetch_after_invalidate_is_that() {
    let (cache, events) = observed_cache(tokens());
    let token = cache.token().await.unwrap();
    cache.invalidate(&token);
    events.take();
    cache.token().await.unwrap();
    assert_eq!(events.take_main()[0], "started: invalidated 1");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_fetch_is_an_event() {
    let tokens = tokens();
    let (cache, events) = observed_cache(tokens.clone());
    tokens.fail_times(2, TokenError::transient("down"));
    cache.token().await.unwrap();
    let lines = events.take_main();
    assert_eq!(
        lines[..3],
        ["started: first 1", "started: first 2", "started: first 3"]
    );
    assert!(lines[3].contains("token after"), "{lines:?}");
    assert!(lines[3].ends_with("failures 0"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_begins_a_pause_whose_end_needs_no_caller() {
    let tokens = tokens();
    let (cache, events) = observed_cache(tokens.clone());
    tokens.fail_times(2, failure());
    cache.token().await.unwrap_err();
    assert_eq!(
        events.take_main(),
        [
            "started: first 1",
            "finished: first failed after 0.050 s, life unlimited or none, failures 1",
            "pause: Source 10 s",
            "waited: failed 0.050 s",
        ]
    );
    cache.token().await.unwrap_err();
    assert!(events.take().is_empty(), "a call in the pause");
    sleep(Duration::from_millis(9_990)).await;
    assert!(events.take().is_empty(), "the pause is 10 s long");
    sleep(Duration::from_millis(20)).await;
    assert_eq!(events.take(), ["pause ended"]);
    cache.token().await.unwrap_err();
    assert!(events.take_main()[1].ends_with("failures 2"));
    sleep(Duration::from_secs(11)).await;
    cache.token().await.unwrap();
    assert_eq!(
        events.take_main(),
        [
            "pause ended",
            "started: first 1",
            "finished: first token after 0.050 s, life 899.950 s, failures 2",
            "waited: token 0.050 s",
        ]
    );
}

/// The timer of a pause is of the runtime of the fetch, which may not be polled any more.
#[test]
fn a_caller_notices_the_end_of_a_pause_that_no_timer_did() {
    let tokens = MockTokenSource::new();
    tokens.fail_next(TokenError::permanent("no"));
    let clock = crate::support::clock::ManualClock::new();
    let (builder, events) = observed(tokens);
    let cache = builder.clock(clock.clone()).build().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    runtime().block_on(cache.token()).unwrap_err();
    events.take();
    clock.advance(2.0, 2.0);
    runtime().block_on(cache.token()).unwrap();
    assert_eq!(events.take_main()[..2], ["pause ended", "started: first 1"]);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_what_is_queued_in_progress_and_paused() {
    let tokens = tokens();
    let (builder, events) = observed(tokens.clone());
    let cache = builder.max_concurrent_fetches(1).build().unwrap();
    tokens.fail_next(failure());
    cache.token().await.unwrap_err();
    events.take();
    let hold = tokens.hold();
    let callers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|scope| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token_for(&TokenRequest::scope(scope)).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        events.take(),
        [
            "a entry added: 1",
            "a queued: first",
            "b entry added: 2",
            "b queued: first",
            "a started: first 1",
        ]
    );
    cache.close().await;
    for caller in callers {
        caller.await.unwrap().unwrap_err();
    }
    let mut lines = events.take();
    lines.sort();
    assert_eq!(
        lines,
        [
            "a finished: first abandoned after 0.100 s, life unlimited or none, failures 0",
            "a waited: failed 0.100 s",
            "b dropped: first",
            "b waited: failed 0.100 s",
            "pause ended",
        ]
    );
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_invalidated_during_its_fetch_is_discarded() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let (cache, events) = observed_cache(source_fn(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            gate.notified().await;
            Ok(AccessToken::new("same")?.with_lifetime(LIFE))
        }
    }));
    gate.notify_one();
    let token = cache.token().await.unwrap();
    secs(850).await;
    cache.token().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    cache.invalidate(&token);
    events.take();
    gate.notify_one();
    sleep(Duration::from_millis(1)).await;
    let lines = events.take();
    assert!(lines[0].starts_with("finished: due discarded"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_has_waited_in_vain() {
    let (cache, events) = observed_cache(tokens());
    timeout(Duration::from_millis(20), cache.token())
        .await
        .unwrap_err();
    assert_eq!(
        events.take_main(),
        ["started: first 1", "waited: cancelled 0.020 s"]
    );
    sleep(LATENCY).await;
    assert_eq!(
        events.take(),
        ["finished: first token after 0.050 s, life 899.950 s, failures 0"],
        "the fetch continues"
    );
}

#[tokio::test(start_paused = true)]
async fn entries_that_come_and_go_are_counted() {
    let (builder, events) = observed(tokens());
    let cache = builder.max_entries(2).build().unwrap();
    for scope in ["a", "b", "c"] {
        cache.token_for(&TokenRequest::scope(scope)).await.unwrap();
        secs(1).await;
    }
    let mut lines = events.take();
    lines.retain(|line| line.contains("entry"));
    assert_eq!(
        lines,
        [
            "a entry added: 1",
            "b entry added: 2",
            "c entry added: 3",
            "a entry evicted: 2",
        ]
    );
}

/// An eviction that forgets a pause also ends it for observers.
#[tokio::test(start_paused = true)]
async fn the_pause_of_an_evicted_entry_ends() {
    let tokens = tokens();
    let (builder, events) = observed(tokens.clone());
    let cache = builder.max_entries(1).build().unwrap();
    tokens.fail_times(3, failure());
    for scope in ["a", "b", "c"] {
        let request = TokenRequest::scope(scope);
        cache.token_for(&request).await.unwrap_err();
        secs(1).await;
    }
    let lines = events.take();
    let evicted = lines.iter().position(|line| line == "a entry evicted: 2");
    let ended = lines.iter().position(|line| line == "a pause ended");
    assert!(ended.is_some() && ended < evicted, "{lines:?}");
}

struct Panics;

impl Observer for Panics {
    fn on_event(&self, _: &Event<'_>) {
        panic!("as it is meant to");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_observer_harms_nobody() {
    let tokens = tokens();
    let recorder = Recorder::default();
    let cache = TokenCache::builder(tokens.clone())
        .observer(Panics)
        .observer(recorder.clone())
        .build()
        .unwrap();
    tokens.fail_next(failure());
    cache.token().await.unwrap_err();
    sleep(Duration::from_secs(11)).await;
    cache.token().await.unwrap();
    timeout(
        Duration::from_millis(1),
        cache.token_for(&TokenRequest::scope("a")),
    )
    .await
    .unwrap_err();
    sleep(LATENCY).await;
    assert_eq!(recorder.take_main().len(), 11, "the next one gets all");
    assert_eq!(tokens.fetches(), 3);
}

/// Asks the cache for its status at each event.
#[derive(Default)]
struct Asks(OnceLock<TokenCache>);

impl Observer for Asks {
    fn on_event(&self, _: &Event<'_>) {
        let cache = self.0.get().unwrap();
        let _ = (cache.status(), cache.status_of(&TokenRequest::scope("a")));
        let _ = cache.peek_for(&TokenRequest::scope("a"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_ask_for_the_status_at_each_event() {
    let tokens = tokens();
    let asks = Arc::new(Asks::default());
    let cache = TokenCache::builder(tokens.clone())
        .observer(Arc::clone(&asks))
        .max_entries(1)
        .build()
        .unwrap();
    asks.0.set(cache.clone()).ok().unwrap();
    tokens.fail_next(failure());
    cache.token().await.unwrap_err();
    sleep(Duration::from_secs(11)).await;
    for scope in ["a", "b", "c"] {
        cache.token_for(&TokenRequest::scope(scope)).await.unwrap();
    }
    let token = cache.token_for(&TokenRequest::scope("a")).await.unwrap();
    cache.invalidate(&token);
    cache.token_for(&TokenRequest::scope("a")).await.unwrap();
    cache.close().await;
}

#[tokio::test(start_paused = true)]
async fn no_event_contains_a_token() {
    let tokens = tokens();
    let (cache, events) = observed_cache(tokens.clone());
    let token = cache.token().await.unwrap();
    cache.invalidate(&token);
    tokens.fail_next(failure());
    cache.token().await.unwrap_err();
    sleep(Duration::from_secs(11)).await;
    cache.token().await.unwrap();
    let debug = events.debug();
    assert!(debug.contains("FetchFinished"));
    assert!(!debug.contains("mock-token"), "{debug}");
}
