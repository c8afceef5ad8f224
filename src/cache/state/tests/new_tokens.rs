//! The reports on an API that rejects every new token.

use super::*;

impl Tested {
    /// Rejects the token at this time, replaces it, and records the response to the replay.
    fn replay(&mut self, secs: f64, rejected: bool) -> Option<NewTokens> {
        let rejection = self.replace(secs);
        self.state.record_replay(rejection, rejected)
    }

    /// Rejects tokens, and their replays, until the spacing has reached its end at 24 s.
    fn reach_the_end(&mut self) {
        for secs in [10.0, 12.0, 16.0] {
            assert_eq!(self.replay(secs, true), None);
        }
        assert_eq!(self.replay(24.0, true), Some(NewTokens::Rejected));
    }

    /// Records a response to a request with the current token.
    fn receive(&mut self, rejected: bool) -> Option<NewTokens> {
        self.state.record_response(self.generation(), rejected)
    }
}

fn holding() -> Tested {
    Tested::holding("a", 90_000.0)
}

#[test]
fn the_end_of_the_spacing_is_reported_once() {
    let mut tested = holding();
    tested.reach_the_end();
    for secs in [34.0, 44.0, 100.0, 5_000.0] {
        assert_eq!(tested.receive(true), None);
        assert_eq!(tested.replay(secs, true), None);
    }
}

#[test]
fn the_first_acceptance_after_the_end_is_a_recovery() {
    let mut tested = holding();
    tested.reach_the_end();
    for _ in 0..3 {
        assert!(tested.state.awaits_response());
        assert_eq!(tested.receive(true), None);
    }
    assert_eq!(tested.receive(false), Some(NewTokens::Accepted));
    assert!(!tested.state.awaits_response());
    assert_eq!(tested.receive(false), None);
}

#[test]
fn an_accepted_replay_is_a_recovery_and_the_spacing_begins_anew() {
    let mut tested = holding();
    tested.reach_the_end();
    assert_eq!(tested.replay(34.0, false), Some(NewTokens::Accepted));
    for secs in [50.0, 52.0, 56.0] {
        assert_eq!(tested.replay(secs, true), None);
    }
    assert_eq!(tested.replay(64.0, true), Some(NewTokens::Rejected));
}

#[test]
fn before_the_end_nothing_is_reported() {
    let mut tested = holding();
    assert_eq!(tested.replay(10.0, true), None);
    assert!(!tested.state.awaits_response());
    assert_eq!(tested.receive(false), None);
    assert_eq!(tested.replay(12.0, false), None);
}

#[test]
fn without_replays_the_first_responses_are_reported() {
    let mut tested = holding();
    let mut changes = Vec::new();
    for secs in [10.0, 12.0, 16.0, 24.0, 34.0] {
        let rejection = tested.replace(secs);
        tested.state.abandon_replay(rejection);
        changes.push(tested.receive(true));
    }
    let end = Some(NewTokens::Rejected);
    assert_eq!(changes, [None, None, None, end, None]);
    assert_eq!(tested.receive(false), Some(NewTokens::Accepted));
}

/// One route takes no bearer token, and another is used all the time.
#[test]
fn if_other_requests_are_accepted_only_a_replay_is_a_recovery() {
    let mut tested = holding();
    for (secs, change) in [
        (10.0, None),
        (12.0, None),
        (16.0, None),
        (24.0, Some(NewTokens::Rejected)),
        (34.0, None),
    ] {
        let rejection = tested.replace(secs);
        assert_eq!(tested.receive(false), None);
        assert_eq!(tested.state.record_replay(rejection, true), change);
        assert!(!tested.state.awaits_response());
        assert_eq!(tested.receive(false), None);
    }
    assert_eq!(tested.replay(44.0, false), Some(NewTokens::Accepted));
}

#[test]
fn an_acceptance_that_a_rejection_follows_is_reported_once() {
    let mut tested = holding();
    tested.reach_the_end();
    assert_eq!(tested.receive(false), Some(NewTokens::Accepted));
    assert_eq!(tested.replay(34.0, true), Some(NewTokens::Rejected));
    for secs in [44.0, 54.0, 600.0] {
        assert_eq!(tested.receive(false), None);
        assert_eq!(tested.replay(secs, true), None);
    }
    // Long after the last rejection, the next one is judged anew.
    assert_eq!(tested.replay(1_200.0, true), None);
    assert_eq!(tested.receive(false), Some(NewTokens::Accepted));
}
