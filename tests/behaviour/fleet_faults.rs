//! Stores that fail: no caller does, on tokio's paused clock.

use std::sync::Arc;
use std::time::Duration;

use bearer_auth::{TokenCache, TokenError, TokenErrorKind, TokenRequest};
use futures_util::future::join_all;
use tokio::time::{Instant, advance, sleep};

use crate::support::fleet::{Fault, Fleet, value};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const MS: Duration = Duration::from_millis(1);

/// The faults with the longest time that a cold caller may take.
fn faults() -> [(Fault, Duration); 10] {
    [
        (Fault::Down, 30 * MS),
        (Fault::Stalled, 80 * MS),
        (Fault::Slow(40 * MS), 400 * MS),
        (Fault::Slow(secs(1)), 80 * MS),
        (Fault::Full, 30 * MS),
        (Fault::OnlyLeases, 30 * MS),
        (Fault::Forgetful, 30 * MS),
        // As long as others are waited for.
        (Fault::NeverLeases, secs(27)),
        (Fault::AlwaysLeases, 30 * MS),
        (Fault::NoExpiry, 30 * MS),
    ]
}

#[tokio::test(start_paused = true)]
async fn no_caller_fails_because_of_the_store() {
    for (fault, limit) in faults() {
        let fleet = Fleet::new();
        fleet.store.set(fault);
        let processes = fleet.processes(3);
        for _ in 0..3 {
            for process in &processes {
                let start = Instant::now();
                process
                    .token()
                    .await
                    .unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
                assert!(start.elapsed() <= limit, "{fault:?}: {:?}", start.elapsed());
            }
            advance(secs(901)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_comes_back_when_the_store_does() {
    for (fault, _) in faults() {
        let fleet = Fleet::new();
        let processes = fleet.processes(5);
        join_all(processes.iter().map(|it| it.token())).await;
        fleet.store.set(fault);
        advance(secs(901)).await;
        for outcome in join_all(processes.iter().map(|it| it.token())).await {
            outcome.unwrap();
        }
        fleet.store.set(Fault::None);
        advance(secs(901)).await;
        let fetches = fleet.tokens.fetches();
        let tokens = join_all(processes.iter().map(|it| it.token())).await;
        let first = tokens[0].as_ref().unwrap();
        assert!(
            tokens
                .iter()
                .all(|it| value(it.as_ref().unwrap()) == value(first)),
            "{fault:?}"
        );
        assert_eq!(fleet.tokens.fetches(), fetches + 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_three_times_is_left_alone_for_a_second() {
    let fleet = Fleet::new();
    fleet.store.set(Fault::Stalled);
    let source = Arc::new(fleet.source());
    let process = TokenCache::new(Arc::clone(&source));
    for tenant in 0..100 {
        let request = TokenRequest::scope(format!("tenant/{tenant}"));
        process.token_for(&request).await.unwrap();
        assert_eq!(source.is_store_available(), tenant < 2);
    }
    // 100 tenants take 2 s, in which it is tried about once a second.
    assert!(
        (4..=7).contains(&fleet.store.operations()),
        "{}",
        fleet.store.operations()
    );
    fleet.store.set(Fault::None);
    advance(secs(1)).await;
    process.token().await.unwrap();
    assert!(source.is_store_available());
}

/// The tokens in it are still good, and other processes may be able to write.
#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_is_still_read() {
    let fleet = Fleet::new();
    let tenant = |number| TokenRequest::scope(format!("tenant/{number}"));
    for number in 0..10 {
        fleet.process().token_for(&tenant(number)).await.unwrap();
    }
    fleet.store.set(Fault::Full);
    let source = Arc::new(fleet.source());
    let process = TokenCache::new(Arc::clone(&source));
    for number in 10..20 {
        process.token_for(&tenant(number)).await.unwrap();
    }
    assert!(!source.is_store_available());
    assert_eq!(fleet.tokens.fetches(), 20);
    for number in 0..10 {
        process.token_for(&tenant(number)).await.unwrap();
    }
    assert_eq!(fleet.tokens.fetches(), 20, "adopted");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_is_written_to_at_most_twice_a_second() {
    for fault in [Fault::Full, Fault::OnlyLeases] {
        let fleet = Fleet::new();
        fleet.store.set(fault);
        let process = fleet.process();
        for tenant in 0..100 {
            let request = TokenRequest::scope(format!("tenant/{tenant}"));
            process.token_for(&request).await.unwrap();
        }
        // 100 tenants take 2 s. The first three writes open the breaker.
        let failed = fleet.store.failed_writes();
        assert!((4..=7).contains(&failed), "{fault:?}: {failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_operations_is_a_setting() {
    let fleet = Fleet::new();
    fleet.store.set(Fault::Slow(200 * MS));
    let source = || fleet.source();
    let process = || TokenCache::new(source().operation_timeout(secs(1)));
    process().token().await.unwrap();
    process().token().await.unwrap();
    assert_eq!(fleet.tokens.fetches(), 1);
}

/// Two fetches at the same time would use up a refresh token.
#[tokio::test(start_paused = true)]
async fn a_source_that_needs_the_lease_fails_without_it() {
    let fleet = Fleet::new();
    let source = fleet.source();
    let process = TokenCache::new(source.require_lease());
    process.token().await.unwrap();
    advance(secs(901)).await;
    fleet.store.set(Fault::Down);
    let error = process.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Source);
    assert!(error.is_transient());
    assert_eq!(fleet.tokens.fetches(), 1);
    fleet.store.set(Fault::None);
    advance(secs(2)).await;
    process.token().await.unwrap();
}

/// The store comes back empty. A process puts there what it has, rather than fetching.
#[tokio::test(start_paused = true)]
async fn an_empty_store_gets_the_token_that_a_process_has() {
    let fleet = Fleet::new();
    let source = Arc::new(fleet.source());
    TokenCache::new(Arc::clone(&source)).token().await.unwrap();
    sleep(MS).await;
    advance(secs(100)).await;
    fleet.store.inner.clear();
    // A cache that lost its entry, in the same process.
    let token = TokenCache::new(Arc::clone(&source)).token().await.unwrap();
    assert_eq!(value(&token), "mock-token-1");
    let other = fleet.process();
    assert_eq!(value(&other.token().await.unwrap()), "mock-token-1");
    assert_eq!(fleet.tokens.fetches(), 1);
    // With what is left of its life.
    advance(secs(801)).await;
    assert!(other.peek().is_none());
    TokenCache::new(source).token().await.unwrap();
    assert_eq!(fleet.tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_stored_although_the_store_was_emptied_during_its_fetch() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    advance(secs(880)).await;
    let process = fleet.process();
    // Late, so it is replaced; the record that was loaded is gone when it arrives.
    advance(secs(12)).await;
    let hold = fleet.tokens.hold();
    let fetch = tokio::spawn(async move { process.token().await });
    sleep(100 * MS).await;
    fleet.store.inner.clear();
    drop(hold);
    fetch.await.unwrap().unwrap();
    assert_eq!(
        value(&fleet.process().token().await.unwrap()),
        "mock-token-2"
    );
}

/// A store whose clock stands still cannot make a token live longer than it does.
#[tokio::test(start_paused = true)]
async fn a_store_with_a_wrong_clock_extends_no_life_beyond_the_whole() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    fleet.store.set(Fault::StoppedClock);
    let process = fleet.process();
    process.token().await.unwrap();
    assert_eq!(fleet.tokens.fetches(), 1, "adopted");
    advance(secs(901)).await;
    assert!(process.peek().is_none());
}

#[tokio::test(start_paused = true)]
async fn damaged_records_are_replaced() {
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [Damage; 5] = [
        |mut record| {
            *record.last_mut().unwrap() ^= 1;
            record
        },
        |mut record| {
            record.truncate(20);
            record
        },
        |_| vec![],
        |record| [&record[..], &[0]].concat(),
        |_| [1; 100_000].to_vec(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let fleet = Fleet::new();
        fleet.process().token().await.unwrap();
        let (key, record) = fleet.store.record();
        fleet.store.inner.tamper(&key, damage(record));
        for _ in 0..3 {
            let token = fleet.process().token().await.unwrap();
            assert_eq!(value(&token), "mock-token-2", "damage {number}");
        }
        assert_eq!(fleet.tokens.fetches(), 2, "damage {number}");
    }
}

/// Failures of this process, which others need not know of, have tries of their own: no more than
/// those of the token endpoint.
#[tokio::test(start_paused = true)]
async fn a_fetch_calls_the_source_three_times_whatever_fails() {
    let kinds = [
        TokenErrorKind::Discovery,
        TokenErrorKind::CredentialFile,
        TokenErrorKind::SourcePanicked,
        TokenErrorKind::Unavailable,
    ];
    for fault in [Fault::None, Fault::Down, Fault::Full] {
        for kind in kinds {
            let fleet = Fleet::new();
            fleet.store.set(fault);
            let failure = TokenError::builder(kind).transient(true).build();
            fleet.tokens.fail_times(100, failure);
            let process = fleet.process();
            let error = process.token().await.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.is_transient(), "{kind:?}");
            assert_eq!(fleet.tokens.fetches(), 3, "{fault:?}, {kind:?}");
            // The next fetch has as many.
            sleep(secs(2)).await;
            process.token().await.unwrap_err();
            assert_eq!(fleet.tokens.fetches(), 6, "{fault:?}, {kind:?}");
        }
    }
}
