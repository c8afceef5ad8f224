//! Processes that share tokens through a store, on tokio's paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, FetchContext, FetchReason, InMemoryTokenStore, MockTokenSource, TokenCache,
    TokenError, TokenErrorKind, TokenRequest, TokenSource, source_fn,
};
use futures_util::future::join_all;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::fleet::{Fault, Fleet, key, keys, shared, value};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn tokens_of(processes: &[TokenCache]) -> Vec<String> {
    let tokens = processes.iter().map(|it| it.token());
    let tokens = join_all(tokens).await.into_iter();
    tokens.map(|it| value(&it.unwrap()).to_owned()).collect()
}

/// Waits until refreshes in the background have finished.
async fn settle() {
    sleep(Duration::from_millis(50)).await;
}

#[tokio::test(start_paused = true)]
async fn fifty_cold_processes_fetch_once() {
    let fleet = Fleet::new();
    let processes = fleet.processes(50);
    let start = Instant::now();
    assert_eq!(tokens_of(&processes).await, vec!["mock-token-1"; 50]);
    assert_eq!(fleet.tokens.fetches(), 1);
    assert!(
        start.elapsed() < Duration::from_millis(50),
        "they are woken"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_costs_no_operation_of_the_store() {
    let fleet = Fleet::new();
    let process = fleet.process();
    process.token().await.unwrap();
    settle().await;
    let operations = fleet.store.operations();
    for _ in 0..100 {
        process.token().await.unwrap();
        advance(secs(7)).await;
    }
    assert_eq!(fleet.store.operations(), operations);
}

#[tokio::test(start_paused = true)]
async fn each_tenant_has_a_token_of_its_own() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.process(), fleet.process());
    let tenant = TokenRequest::scope("tenant/1");
    let first = one.token_for(&tenant).await.unwrap();
    assert_ne!(value(&first), value(&other.token().await.unwrap()));
    assert_eq!(
        value(&first),
        value(&other.token_for(&tenant).await.unwrap())
    );
    assert_eq!(fleet.tokens.fetches(), 2);
}

/// The due time is drawn once, so no process refreshes long before the others.
#[tokio::test(start_paused = true)]
async fn a_due_token_is_refreshed_once_and_adopted_by_all() {
    let fleet = Fleet::new();
    let processes = fleet.processes(20);
    tokens_of(&processes).await;
    advance(secs(799)).await;
    tokens_of(&processes).await;
    settle().await;
    assert_eq!(fleet.tokens.fetches(), 1, "not due yet");
    advance(secs(47)).await;
    assert_eq!(tokens_of(&processes).await, vec!["mock-token-1"; 20]);
    // Those that found the lease taken ask again after a second.
    for _ in 0..3 {
        sleep(secs(1)).await;
        tokens_of(&processes).await;
    }
    assert_eq!(tokens_of(&processes).await, vec!["mock-token-2"; 20]);
    assert_eq!(fleet.tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_token_lives_as_long_as_it_has_left() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    advance(secs(700)).await;
    let process = fleet.process();
    process.token().await.unwrap();
    assert_eq!(fleet.tokens.fetches(), 1, "adopted");
    advance(secs(201)).await;
    assert!(process.peek().is_none(), "expired");
    assert_eq!(value(&process.token().await.unwrap()), "mock-token-2");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_has_one_successor() {
    let fleet = Fleet::new();
    let processes = fleet.processes(20);
    let tokens = join_all(processes.iter().map(|it| it.token())).await;
    for (process, token) in processes.iter().zip(tokens) {
        process.invalidate(&token.unwrap());
    }
    assert_eq!(tokens_of(&processes).await, vec!["mock-token-2"; 20]);
    assert_eq!(fleet.tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_adopts_the_successor_of_the_token_that_it_saw_rejected() {
    let fleet = Fleet::new();
    let (one, other) = (fleet.process(), fleet.process());
    let (first, same) = (one.token().await.unwrap(), other.token().await.unwrap());
    one.invalidate(&first);
    one.token().await.unwrap();
    advance(secs(60)).await;
    other.invalidate(&same);
    assert_eq!(value(&other.token().await.unwrap()), "mock-token-2");
    assert_eq!(fleet.tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_shared_with_its_error_and_its_end() {
    let fleet = Fleet::new();
    let throttled = TokenError::builder(TokenErrorKind::Throttled)
        .status(429)
        .oauth_error("slow_down")
        .retry_after(secs(5))
        .build();
    fleet.tokens.fail_times(1, throttled);
    let processes = fleet.processes(20);
    let failures = join_all(processes.iter().map(|it| it.token())).await;
    assert_eq!(fleet.tokens.fetches(), 1);
    for failure in failures {
        let error = failure.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Throttled);
        assert_eq!(error.status().unwrap().as_u16(), 429);
        assert_eq!(error.oauth_error(), Some("slow_down"));
    }
    advance(secs(2)).await;
    let error = fleet.process().token().await.unwrap_err();
    assert!(error.is_paused());
    let left = error.retry_after().unwrap();
    assert!(
        left > Duration::from_millis(2_900) && left <= secs(3),
        "{left:?}"
    );
    // It ends for all of them at once.
    advance(left).await;
    assert_eq!(tokens_of(&processes).await, vec!["mock-token-1"; 20]);
    assert_eq!(fleet.tokens.fetches(), 2);
}

/// 20 processes whose callers ask ten times a second.
#[tokio::test(start_paused = true)]
async fn one_process_at_a_time_probes_a_dead_endpoint() {
    let fleet = Fleet::new();
    fleet
        .tokens
        .fail_times(1_000, TokenError::permanent("dead"));
    let processes = fleet.processes(20);
    for _ in 0..650 {
        for outcome in join_all(processes.iter().map(|it| it.token())).await {
            outcome.unwrap_err();
        }
        advance(Duration::from_millis(100)).await;
    }
    // Pauses of 1, 2, 4, 8, 16 and 32 s, and up to a quarter more.
    assert!(
        (6..=7).contains(&fleet.tokens.fetches()),
        "{}",
        fleet.tokens.fetches()
    );
}

#[tokio::test(start_paused = true)]
async fn a_success_resets_the_pause_of_the_fleet() {
    let fleet = Fleet::new();
    fleet.tokens.fail_times(3, TokenError::permanent("dead"));
    let pause = |error: TokenError| error.retry_after().unwrap();
    let mut pauses = vec![];
    for _ in 0..3 {
        let length = pause(fleet.process().token().await.unwrap_err());
        pauses.push(length.as_secs());
        advance(length).await;
    }
    assert!(pauses[0] == 1 && (2..=2).contains(&pauses[1]) && (4..=5).contains(&pauses[2]));
    let process = fleet.process();
    process.invalidate(&process.token().await.unwrap());
    fleet.tokens.fail_next(TokenError::permanent("dead"));
    let length = pause(process.token().await.unwrap_err());
    assert!(length < Duration::from_millis(1_300), "{length:?}");
}

#[tokio::test(start_paused = true)]
async fn a_usable_token_is_served_in_the_pause() {
    let fleet = Fleet::new();
    let process = fleet.process();
    process.token().await.unwrap();
    advance(secs(846)).await;
    fleet.tokens.fail_next(TokenError::permanent("dead"));
    process.token().await.unwrap();
    settle().await;
    assert_eq!(fleet.tokens.fetches(), 2);
    for process in [process, fleet.process()] {
        assert_eq!(value(&process.token().await.unwrap()), "mock-token-1");
    }
    settle().await;
    assert_eq!(fleet.tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn another_process_takes_over_when_the_holder_of_the_lease_dies() {
    let fleet = Fleet::new();
    let hold = fleet.tokens.hold();
    let dead = fleet.process();
    let _ = timeout(Duration::from_millis(100), dead.token()).await;
    assert_eq!(fleet.tokens.fetches(), 1, "it has the lease");
    let survivor = tokio::spawn({
        let process = fleet.process();
        async move { process.token().await }
    });
    sleep(secs(10)).await;
    assert_eq!(fleet.tokens.fetches(), 1, "the lease is extended");
    // A dropped cache gives it back; a killed process does not.
    drop(dead);
    sleep(secs(1)).await;
    assert_eq!(fleet.tokens.fetches(), 2);
    drop(hold);
    survivor.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_killed_process_ends_after_two_seconds() {
    use bearer_auth::{LeaseOwner, TokenStore};

    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    let (key, _) = fleet.store.record();
    advance(secs(901)).await;
    let owner = LeaseOwner::new([3; 16]);
    fleet
        .store
        .inner
        .acquire(&key, &owner, secs(2))
        .await
        .unwrap()
        .unwrap();
    let start = Instant::now();
    fleet.process().token().await.unwrap();
    let took = start.elapsed();
    assert!(
        took >= secs(2) && took < Duration::from_millis(2_300),
        "{took:?}"
    );
}

/// A holder that hangs ends its fetch before the others lose their patience.
#[tokio::test(start_paused = true)]
async fn a_hanging_endpoint_is_asked_once() {
    let fleet = Fleet::new();
    let _hold = fleet.tokens.hold();
    let processes = fleet.processes(10);
    for outcome in join_all(processes.iter().map(|it| it.token())).await {
        assert_eq!(outcome.unwrap_err().kind(), TokenErrorKind::Timeout);
    }
    assert_eq!(fleet.tokens.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn quick_failures_are_tried_again_under_one_lease() {
    let fleet = Fleet::new();
    fleet.tokens.fail_times(2, TokenError::transient("down"));
    let processes = fleet.processes(10);
    assert_eq!(tokens_of(&processes).await, vec!["mock-token-1"; 10]);
    assert_eq!(fleet.tokens.fetches(), 3);
}

/// The source returns tokens of a lifetime that it does not name.
#[tokio::test(start_paused = true)]
async fn a_token_of_unknown_lifetime_is_not_shared() {
    let (tokens, fleet) = (MockTokenSource::new(), Fleet::new());
    let unnamed = |tokens: MockTokenSource| {
        source_fn(move |request| {
            let tokens = tokens.clone();
            async move {
                let token = tokens.fetch(&request).await?;
                Ok(AccessToken::new(value(&token))?)
            }
        })
    };
    let process = || {
        TokenCache::new(shared(
            unnamed(tokens.clone()),
            fleet.store.clone(),
            keys("one"),
        ))
    };
    let start = Instant::now();
    let mut values = vec![];
    for _ in 0..10 {
        values.push(value(&process().token().await.unwrap()).to_owned());
    }
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 10);
    assert!(start.elapsed() < secs(1), "nobody waits for the others");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_never_expires_is_shared_for_a_day() {
    let store = InMemoryTokenStore::new();
    let tokens = MockTokenSource::new();
    let process = || {
        let tokens = tokens.clone();
        let source = source_fn(move |request| {
            let tokens = tokens.clone();
            async move {
                let token = tokens.fetch(&request).await?;
                Ok(token.without_expiry())
            }
        });
        TokenCache::new(shared(source, store.clone(), keys("one")))
    };
    let first = process();
    first.token().await.unwrap();
    advance(secs(86_399)).await;
    let second = process();
    assert_eq!(value(&second.token().await.unwrap()), "mock-token-1");
    advance(secs(2)).await;
    assert_eq!(value(&process().token().await.unwrap()), "mock-token-2");
    assert_eq!(value(&first.token().await.unwrap()), "mock-token-1");
}

#[tokio::test(start_paused = true)]
async fn a_long_token_is_not_shared() {
    let store = InMemoryTokenStore::new();
    let process = || {
        let source = source_fn(|_| async {
            Ok(AccessToken::new("x".repeat(70_000))?.with_lifetime(secs(900)))
        });
        TokenCache::new(shared(source, store.clone(), keys("one")))
    };
    for _ in 0..3 {
        process().token().await.unwrap();
    }
    let (_, record) = store.records().pop().unwrap();
    assert!(record.len() < 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_sealing_key_is_rotated_without_a_token_request() {
    let fleet = Fleet::new();
    let process = |keys| TokenCache::new(shared(fleet.tokens.clone(), fleet.store.clone(), keys));
    let old = process(keys("old"));
    old.token().await.unwrap();
    // First all processes get the new key for opening, then it seals.
    let opening = process(keys("old").and_open("new", key("new")).unwrap());
    let rotated = process(keys("new").and_open("old", key("old")).unwrap());
    tokens_of(&[opening.clone(), rotated.clone()]).await;
    assert_eq!(fleet.tokens.fetches(), 1);
    advance(secs(901)).await;
    tokens_of(std::slice::from_ref(&rotated)).await;
    tokens_of(&[rotated, opening]).await;
    assert_eq!(fleet.tokens.fetches(), 2, "the new key sealed it");
}

#[tokio::test(start_paused = true)]
async fn a_process_without_the_key_works_alone_and_leaves_the_record() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    let record = fleet.store.record();
    let source = shared(fleet.tokens.clone(), fleet.store.clone(), keys("other"));
    let other = TokenCache::new(source);
    assert_eq!(value(&other.token().await.unwrap()), "mock-token-2");
    settle().await;
    assert_eq!(fleet.store.record(), record);
}

#[tokio::test(start_paused = true)]
async fn a_record_for_another_tenant_is_fetched_again() {
    let fleet = Fleet::new();
    let requests = ["a", "b"].map(TokenRequest::scope);
    let first = fleet.process();
    for request in &requests {
        first.token_for(request).await.unwrap();
    }
    // Somebody who can write to the store exchanges the two records.
    let records = fleet.store.inner.records();
    fleet
        .store
        .inner
        .tamper(&records[0].0, records[1].1.clone());
    fleet
        .store
        .inner
        .tamper(&records[1].0, records[0].1.clone());
    let second = fleet.process();
    let mut values = vec![];
    for request in &requests {
        values.push(value(&second.token_for(request).await.unwrap()).to_owned());
    }
    assert_eq!(values, ["mock-token-3", "mock-token-4"]);
}

#[tokio::test(start_paused = true)]
async fn an_older_record_is_refused_by_whoever_saw_a_later_one() {
    let fleet = Fleet::new();
    let source = shared(fleet.tokens.clone(), fleet.store.clone(), keys("one"));
    let source = std::sync::Arc::new(source);
    let process = || TokenCache::new(std::sync::Arc::clone(&source));
    let first = process();
    let token = first.token().await.unwrap();
    let (key, old) = fleet.store.record();
    first.invalidate(&token);
    assert_eq!(value(&first.token().await.unwrap()), "mock-token-2");
    settle().await;
    fleet.store.inner.tamper(&key, old);
    // Another cache with the same source.
    assert_eq!(value(&process().token().await.unwrap()), "mock-token-2");
    assert_eq!(fleet.tokens.fetches(), 2);
    // A process that saw no later one cannot know.
    let (_, record) = fleet.store.record();
    assert_eq!(
        value(&fleet.process().token().await.unwrap()),
        "mock-token-2"
    );
    assert_eq!(fleet.store.record().1, record, "it was put back");
}

#[tokio::test(start_paused = true)]
async fn a_dump_of_the_store_has_no_secret() {
    let fleet = Fleet::new();
    let tenant = TokenRequest::scope("tenant/42").with_subject("subject-42");
    let process = fleet.process();
    let token = process.token_for(&tenant).await.unwrap();
    fleet.tokens.fail_next(TokenError::permanent("dead"));
    process.token().await.unwrap_err();
    for (key, record) in fleet.store.inner.records() {
        let dump = [&key.fleet()[..], key.token(), &record].concat();
        for secret in [value(&token), "tenant", "subject", "client", "identity"] {
            let finds = dump.windows(secret.len()).any(|it| it == secret.as_bytes());
            assert!(!finds, "{secret}");
        }
    }
}

/// A source that keeps tokens must not return the rejected one again.
#[tokio::test(start_paused = true)]
async fn the_inner_source_learns_of_the_rejection() {
    struct Inner(Arc<Mutex<Vec<Option<String>>>>);

    #[async_trait]
    impl TokenSource for Inner {
        async fn fetch(&self, _: &TokenRequest) -> Result<AccessToken, TokenError> {
            panic!("the cache calls `fetch_with`");
        }

        async fn fetch_with(
            &self,
            _: &TokenRequest,
            context: &FetchContext,
        ) -> Result<AccessToken, TokenError> {
            let mut rejected = self.0.lock().unwrap();
            rejected.push(context.rejected().map(|it| value(it).to_owned()));
            let token = AccessToken::new(format!("token-{}", rejected.len()))?;
            Ok(token.with_lifetime(secs(900)))
        }
    }

    let (rejected, fleet) = (Arc::default(), Fleet::new());
    let inner = Inner(Arc::clone(&rejected));
    let process = TokenCache::new(shared(inner, fleet.store.clone(), keys("one")));
    process.invalidate(&process.token().await.unwrap());
    process.token().await.unwrap();
    // Also if it works alone.
    fleet.store.set(Fault::Down);
    process.invalidate(&process.token().await.unwrap());
    process.token().await.unwrap();
    let expected = [None, Some("token-1".to_owned()), Some("token-2".to_owned())];
    assert_eq!(*rejected.lock().unwrap(), expected);
}

/// A token that a response rejected, and whose successor is rejected as well.
#[tokio::test(start_paused = true)]
async fn a_token_is_not_replaced_within_the_spacing_of_the_fleet() {
    let fleet = Fleet::new();
    let source = || shared(fleet.tokens.clone(), fleet.store.clone(), keys("one"));
    // Each fetch is that of a cache in a process of its own.
    let replace = async |rejected: &str| {
        let context = FetchContext::new(FetchReason::Rejected, Instant::now() + secs(30))
            .with_rejected(AccessToken::new(rejected).unwrap());
        let token = source()
            .fetch_with(&TokenRequest::default(), &context)
            .await;
        value(&token.unwrap()).to_owned()
    };
    assert_eq!(
        value(&fleet.process().token().await.unwrap()),
        "mock-token-1"
    );
    assert_eq!(
        replace("mock-token-1").await,
        "mock-token-2",
        "the first at once"
    );
    assert_eq!(replace("mock-token-1").await, "mock-token-2", "adopted");
    for _ in 0..3 {
        assert_eq!(
            replace("mock-token-2").await,
            "mock-token-2",
            "the source vouches for it"
        );
    }
    advance(Duration::from_millis(1_500)).await;
    assert_eq!(
        replace("mock-token-2").await,
        "mock-token-2",
        "the spacing has doubled, once"
    );
    advance(Duration::from_millis(600)).await;
    assert_eq!(replace("mock-token-2").await, "mock-token-3");
    // It was 2 s long for this one, and is 1 s again after one without a rejection.
    advance(Duration::from_millis(1_900)).await;
    assert_eq!(replace("mock-token-2").await, "mock-token-3");
    advance(Duration::from_millis(200)).await;
    assert_eq!(replace("mock-token-3").await, "mock-token-4");
    advance(Duration::from_millis(1_100)).await;
    assert_eq!(replace("mock-token-4").await, "mock-token-5");
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_conforms() {
    bearer_auth::token_store_conformance(InMemoryTokenStore::new())
        .await
        .unwrap();
}
