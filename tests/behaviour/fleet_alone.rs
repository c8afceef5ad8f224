//! A process that fetched without the store uses, and shares, what the store has as soon as that is
//! back. On tokio's paused clock.

use std::time::Duration;

use bearer_auth::{TokenCache, TokenError, TokenRequest};
use tokio::time::{advance, sleep};

use crate::support::fleet::{Fault, Fleet, value};

const MS: Duration = Duration::from_millis(1);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A 429 for everyone.
fn throttled() -> TokenError {
    TokenError::transient("throttled").with_retry_after(secs(60))
}

/// Makes the breaker of this process leave the store alone.
async fn give_up_on(fleet: &Fleet, process: &TokenCache) {
    fleet.store.set(Fault::Down);
    for tenant in ["a", "b", "c"] {
        process
            .token_for(&TokenRequest::scope(tenant))
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_operation_costs_no_caller_the_token_that_the_store_has() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    fleet.tokens.fail_next(throttled());
    fleet.store.set(Fault::Stalled);
    let process = fleet.process();
    let caller = tokio::spawn(async move { process.token().await });
    // Its operation ends after 50 ms, its own token request after 70 ms.
    sleep(60 * MS).await;
    fleet.store.set(Fault::None);
    let token = caller.await.unwrap().unwrap();
    assert_eq!(value(&token), "mock-token-1");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_given_up_costs_no_caller_the_token_that_it_has() {
    let fleet = Fleet::new();
    let process = fleet.process();
    fleet.process().token().await.unwrap();
    give_up_on(&fleet, &process).await;
    fleet.store.set(Fault::None);
    fleet.tokens.fail_next(throttled());
    assert_eq!(value(&process.token().await.unwrap()), "mock-token-1");
}

/// Neither the `Retry-After` that it got nor its own backoff keeps it from the store.
#[tokio::test(start_paused = true)]
async fn a_process_in_a_pause_of_its_own_finds_the_token_of_another() {
    for failure in [throttled(), TokenError::permanent("dead")] {
        let fleet = Fleet::new();
        let (process, other) = (fleet.process(), fleet.process());
        fleet.tokens.fail_times(1_000, failure);
        fleet.store.set(Fault::Down);
        for _ in 0..600 {
            process.token().await.unwrap_err();
            sleep(secs(1)).await;
        }
        let fetches = fleet.tokens.fetches();
        assert!(
            (8..=17).contains(&fetches),
            "{fetches}: it probes as before"
        );
        // At the start of a pause.
        while fleet.tokens.fetches() == fetches {
            process.token().await.unwrap_err();
            sleep(secs(1)).await;
        }
        let fetches = fleet.tokens.fetches();
        fleet.tokens.clear_failures();
        fleet.store.set(Fault::None);
        let token = other.token().await.unwrap();
        assert_eq!(fleet.tokens.fetches(), fetches + 1);
        sleep(secs(2)).await;
        let found = process.token().await.unwrap();
        assert_eq!(value(&found), value(&token));
        assert_eq!(fleet.tokens.fetches(), fetches + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_began_without_the_store_is_shared_when_it_is_back() {
    let fleet = Fleet::new();
    let process = fleet.process();
    fleet.tokens.fail_next(throttled());
    fleet.store.set(Fault::Down);
    let error = process.token().await.unwrap_err();
    assert!(!error.is_paused());
    sleep(secs(2)).await;
    fleet.store.set(Fault::None);
    let error = process.token().await.unwrap_err();
    assert!(error.is_paused());
    let other = fleet.process().token().await.unwrap_err();
    assert!(other.is_paused());
    let left = other.retry_after().unwrap();
    assert!((secs(50)..secs(59)).contains(&left), "{left:?}");
    assert_eq!(fleet.tokens.fetches(), 1);
    // It ends for all.
    sleep(secs(60)).await;
    fleet.process().token().await.unwrap();
    process.token().await.unwrap();
    assert_eq!(fleet.tokens.fetches(), 2);
}

/// The fleet asks the token endpoint again when its own pause ends, by another process.
#[tokio::test(start_paused = true)]
async fn a_pause_that_began_without_the_store_does_not_extend_that_of_the_fleet() {
    let fleet = Fleet::new();
    let (process, other) = (fleet.process(), fleet.process());
    fleet.tokens.fail_next(throttled());
    fleet.store.set(Fault::Down);
    process.token().await.unwrap_err();
    fleet.store.set(Fault::None);
    let failure = TokenError::transient("throttled").with_retry_after(secs(5));
    fleet.tokens.fail_next(failure);
    other.token().await.unwrap_err();
    sleep(secs(6)).await;
    let error = process.token().await.unwrap_err();
    assert!(error.is_paused());
    assert!(error.retry_after().unwrap() <= secs(1));
    let token = other.token().await.unwrap();
    sleep(secs(1)).await;
    assert_eq!(value(&process.token().await.unwrap()), value(&token));
    assert_eq!(fleet.tokens.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_the_pause_that_began_without_the_store() {
    let fleet = Fleet::new();
    let (process, other) = (fleet.process(), fleet.process());
    fleet
        .tokens
        .fail_next(TokenError::transient("throttled").with_retry_after(secs(3_000)));
    fleet.store.set(Fault::Down);
    process.token().await.unwrap_err();
    fleet.store.set(Fault::None);
    let first = other.token().await.unwrap();
    sleep(secs(2)).await;
    assert_eq!(value(&process.token().await.unwrap()), value(&first));
    advance(secs(901)).await;
    process.token().await.unwrap();
    assert_eq!(fleet.tokens.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_fetched_without_the_store_is_put_there_later() {
    let fleet = Fleet::new();
    let process = fleet.process();
    fleet.store.set(Fault::Stalled);
    let token = process.token().await.unwrap();
    sleep(500 * MS).await;
    fleet.store.set(Fault::None);
    sleep(secs(2)).await;
    // Nobody could fetch another.
    fleet.tokens.fail_times(10, throttled());
    let adopted = fleet.process().token().await.unwrap();
    assert_eq!(value(&adopted), value(&token));
    // With what is left of its life.
    let left = adopted.expires_at().unwrap();
    assert!(left <= token.expires_at().unwrap());
}

/// The failure is newer than the token.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_put_into_the_store_later_does_not_end_the_pause_of_the_fleet() {
    let fleet = Fleet::new();
    let process = fleet.process();
    fleet.store.set(Fault::Down);
    let token = process.token().await.unwrap();
    fleet.store.set(Fault::None);
    let failure = TokenError::transient("throttled").with_retry_after(secs(3_000));
    fleet.tokens.fail_next(failure);
    let other = fleet.process();
    other.token().await.unwrap_err();
    sleep(secs(2)).await;
    let third = fleet.process();
    assert_eq!(value(&third.token().await.unwrap()), value(&token));
    advance(secs(901)).await;
    assert!(third.token().await.unwrap_err().is_paused());
    assert_eq!(fleet.tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_in_the_store_is_replaced_by_a_later_one_that_was_fetched_without_it() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    advance(secs(60)).await;
    let process = fleet.process();
    fleet.store.set(Fault::Down);
    let token = process.token().await.unwrap();
    fleet.store.set(Fault::None);
    sleep(secs(2)).await;
    let adopted = fleet.process().token().await.unwrap();
    assert_eq!(value(&adopted), value(&token));
    assert_eq!(fleet.tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_in_the_store_is_not_replaced_by_one_that_was_fetched_without_it() {
    let fleet = Fleet::new();
    let process = fleet.process();
    fleet.store.set(Fault::Down);
    process.token().await.unwrap();
    fleet.store.set(Fault::None);
    fleet.process().token().await.unwrap();
    let record = fleet.store.record();
    sleep(secs(2)).await;
    assert_eq!(fleet.store.record(), record);
    assert_eq!(fleet.tokens.fetches(), 2);
}

/// A cold process fetches, since the token of the store ends soon. But it is better than none.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_under_the_lease_returns_a_late_token() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    advance(secs(893)).await;
    fleet.tokens.fail_next(throttled());
    let late = fleet.process().token().await.unwrap();
    assert_eq!(value(&late), "mock-token-1");
    assert_eq!(fleet.tokens.fetches(), 2, "it was tried");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_during_the_fetch_is_not_returned() {
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    advance(secs(893)).await;
    fleet.tokens.fail_next(TokenError::permanent("dead"));
    let hold = fleet.tokens.hold();
    let process = fleet.process();
    let caller = tokio::spawn(async move { process.token().await });
    sleep(secs(8)).await;
    drop(hold);
    caller.await.unwrap().unwrap_err();
}
