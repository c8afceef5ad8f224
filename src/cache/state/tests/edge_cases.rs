//! Edge cases: late results, verdicts out of order, tokens that are expired on arrival.

use super::*;

/// Rule 12: a usable token is used, whatever happens to its refresh.
#[test]
fn a_token_expired_on_arrival_does_not_replace_a_usable_one() {
    let mut tested = Tested::refreshing("a");
    tested.land_from(tested.fetch(), token("b", 2.0), (800.0, 803.0));
    assert!(
        tested.decide(803.0).starts_with("use a"),
        "a is good until 890 s"
    );
}

/// The same after another fetch has failed: a success ends the pause.
#[test]
fn a_late_token_that_is_expired_on_arrival_ends_a_pause() {
    let mut tested = Tested::refreshing("a");
    let abandoned = tested.fetch();
    tested.state.abandon(abandoned);
    assert_eq!(tested.decide(801.0), "use a, fetch");
    assert_eq!(tested.fail(outage(), 801.0, 0.0), 1.0);
    assert_eq!(tested.decide(801.5), "use a");
    assert_eq!(
        tested.land_from(abandoned, token("b", 1.0), (800.0, 801.5)),
        "a"
    );
    assert_eq!(tested.decide(801.5), "use a, fetch in 1 s");
}

/// Rule 21: the replay is accepted, so the spacing returns to 1 s, whatever else fails.
#[test]
fn a_failed_refresh_does_not_take_the_verdict_from_a_replay() {
    let mut tested = Tested::holding("a", 90_000.0);
    let first = tested.replace(10.0);
    tested.state.record_replay(first, true);
    let second = tested.reject_in_effect(12.0);
    assert_eq!(tested.decide(12.0), "fetch");
    tested.land("short", 20.0, 12.0);
    // The replay is in progress while the new token becomes due.
    assert_eq!(tested.decide(29.0), "use short, fetch");
    assert_eq!(tested.fail(outage(), 29.0, 0.0), 1.0);
    tested.state.record_replay(second, false);
    let third = tested.reject_in_effect(29.5);
    tested.state.abandon_replay(third);
    assert_eq!(tested.decide(30.0), "fetch");
    tested.land("c", 90_000.0, 30.0);
    assert!(
        matches!(tested.reject(30.5), Rejection::Effective(_)),
        "1 s after the last"
    );
}

/// Rule 21: an API that rejects everything, slowly, while other requests are rejected too.
#[test]
fn a_rejected_replay_counts_after_a_later_rejection() {
    let mut tested = Tested::holding("a", 90_000.0);
    let first = tested.replace(10.0);
    let second = tested.replace(11.0);
    tested.state.record_replay(first, true);
    assert_eq!(tested.reject(12.0), Rejection::Spaced);
    tested.state.record_replay(second, true);
    assert_eq!(tested.reject(14.5), Rejection::Spaced);
}

/// Rule 18: a fetch that started before the rejection does not restore the token.
#[test]
fn a_fetch_abandoned_long_ago_does_not_restore_a_rejected_token() {
    let mut tested = Tested::refreshing("a");
    let abandoned = tested.fetch();
    tested.state.abandon(abandoned);
    tested.replace(801.0);
    tested.reject_in_effect(802.0);
    tested.land_from(abandoned, token("a", 100.0), (800.0, 803.0));
    assert_ne!(tested.decide(803.0), "use a");
}
