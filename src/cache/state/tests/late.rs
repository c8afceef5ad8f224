//! Late tokens, rejections that do not withdraw a token, and lives that the server does not name.

use std::sync::Arc;

use super::*;
use crate::cache::cached_token::CachedToken;
use crate::token::request::TokenRequest;

impl Tested {
    fn refuse(&mut self, secs: f64) -> Rejection {
        let generation = self.generation();
        self.state.reject(generation, Severity::Refused, at(secs))
    }

    /// Decides for a request whose token was rejected.
    fn decide_without(&mut self, rejected: u64, secs: f64) -> String {
        match self.state.decide(at(secs), Some(rejected)) {
            Decision::Use => format!("use {}", self.value()),
            Decision::Fetch { fetch, delay } => self.start(fetch, delay),
            Decision::Wait => "wait".to_owned(),
            Decision::Fail(error) => format!("fail, {} s", pause(&error)),
            other => panic!("{other:?}"),
        }
    }

    fn end_of_life(value: &str) -> AccessToken {
        AccessToken::new(value).unwrap().with_ended_lifetime()
    }
}

#[test]
fn a_caller_waits_for_the_refresh_of_a_late_token_until_1_s_after_it_was_sent() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(891.0), "fetch, else use a");
    assert_eq!(tested.decide(891.5), "wait 1 s, else use a", "not sent yet");
    tested.state.record_sent(tested.fetch(), at(892.0));
    assert_eq!(tested.decide(892.25), "wait 0.75 s, else use a");
    tested.state.record_sent(tested.fetch(), at(892.5));
    assert_eq!(
        tested.decide(892.75),
        "wait 0.25 s, else use a",
        "a retry does not count"
    );
    assert_eq!(tested.decide(893.0), "use a");
    assert_eq!(tested.decide(899.9), "use a");
    assert_eq!(tested.decide(900.0), "wait");
    assert_eq!(tested.land("b", 900.0, 900.0), "b");
}

#[test]
fn a_late_token_is_used_in_a_pause() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(895.0), "fetch, else use a");
    assert_eq!(tested.fail(outage(), 895.0, 0.0), 1.0);
    assert_eq!(tested.decide(895.999), "use a");
    assert_eq!(tested.decide(896.0), "fetch, else use a");
}

#[test]
fn no_caller_waits_for_the_spacing_of_fetches() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(895.0), "fetch, else use a");
    assert_eq!(tested.complete_ended("a", 895.0), "a", "late all the same");
    assert_eq!(tested.decide(895.25), "use a, fetch in 0.75 s");
    assert_eq!(tested.decide(895.5), "use a");
    tested.state.record_sent(tested.fetch(), at(896.0));
    assert_eq!(tested.decide(896.125), "wait 0.875 s, else use a");
}

#[test]
fn a_rejection_of_a_late_token_is_not_counted() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.refuse(895.0), Rejection::Superseded);
    assert_eq!(tested.decide(895.0), "fetch", "it is withdrawn");
    assert_eq!(tested.land("b", 900.0, 895.0), "b");
    tested.reject_in_effect(895.0);
}

#[test]
fn a_refused_token_is_used_by_others_until_its_successor_arrives() {
    let mut tested = Tested::holding("a", 900.0);
    let generation = tested.generation();
    assert!(matches!(tested.refuse(10.0), Rejection::Effective(_)));
    assert_eq!(tested.decide(10.0), "use a");
    assert_eq!(tested.decide_without(generation, 10.0), "fetch");
    for _ in 0..50 {
        assert_eq!(
            tested.refuse(10.1),
            Rejection::Superseded,
            "one fetch for all"
        );
        assert_eq!(tested.decide_without(generation, 10.1), "wait");
    }
    assert_eq!(tested.decide(10.1), "use a");
    assert_eq!(tested.land("b", 900.0, 10.2), "b");
    assert_eq!(tested.decide(10.2), "use b");
    assert_eq!(tested.decide_without(generation, 10.2), "use b");
    assert_eq!(tested.refuse(10.3), Rejection::Spaced);
}

#[test]
fn a_refused_token_stays_in_use_if_its_refresh_fails() {
    let mut tested = Tested::holding("a", 900.0);
    let generation = tested.generation();
    assert!(matches!(tested.refuse(10.0), Rejection::Effective(_)));
    assert_eq!(tested.decide_without(generation, 10.0), "fetch");
    assert_eq!(tested.fail(outage(), 10.0, 0.0), 1.0);
    assert_eq!(tested.decide(10.5), "use a");
    assert_eq!(tested.decide_without(generation, 10.5), "fail, 0.5 s");
    assert_eq!(tested.decide_without(generation, 11.0), "fetch");
}

#[test]
fn an_invalid_token_is_withdrawn_though_it_was_only_refused_before() {
    let mut tested = Tested::holding("a", 900.0);
    assert!(matches!(tested.refuse(10.0), Rejection::Effective(_)));
    assert_eq!(tested.reject(10.1), Rejection::Superseded);
    assert!(tested.state.current().is_none());
    assert_eq!(tested.decide(10.1), "fetch");
}

#[test]
fn a_source_that_returns_a_refused_token_vouches_for_it() {
    let mut tested = Tested::holding("a", 900.0);
    let generation = tested.generation();
    let Rejection::Effective(rejection) = tested.refuse(10.0) else {
        panic!("the first rejection takes effect");
    };
    assert_eq!(tested.decide_without(generation, 10.0), "fetch");
    assert_eq!(tested.land("a", 890.0, 10.0), "a");
    tested.state.abandon_replay(rejection);
    assert!(tested.state.awaits_response());
    assert_eq!(tested.refuse(10.5), Rejection::Spaced);
}

#[test]
fn a_refresh_from_before_the_refusal_does_not_vouch() {
    let mut tested = Tested::refreshing("a");
    let generation = tested.generation();
    assert!(matches!(tested.refuse(801.0), Rejection::Effective(_)));
    assert_eq!(tested.decide_without(generation, 801.0), "wait");
    assert_eq!(tested.land("a", 99.0, 801.0), "discarded");
    assert_eq!(tested.decide_without(generation, 801.0), "fetch");
    assert_eq!(tested.decide(801.0), "use a");
}

/// The server repeats its token, and says how much is left of it, down to nothing.
#[test]
fn the_known_end_of_a_repeated_token_stands() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.decide(885.0), "use a, fetch");
    assert_eq!(tested.complete_ended("a", 885.0), "a");
    assert_eq!(tested.expires_at(), at(900.0).wall_time());
    assert_eq!(tested.decide(899.0), "fetch, else use a");
    assert_eq!(
        tested.complete_ended("a", 900.5),
        "failed, 1 s",
        "it has expired"
    );
    assert_eq!(tested.decide(901.0), "fail, 0.5 s");
    assert_eq!(tested.decide(901.5), "fetch");
    assert_eq!(tested.complete_ended("b", 901.5), "b");
    assert_eq!(
        tested.expires_at(),
        at(1_201.5).wall_time(),
        "the default life"
    );
}

impl Tested {
    fn complete_ended(&mut self, value: &str, secs: f64) -> String {
        let token = Self::end_of_life(value);
        self.land_from(self.fetch(), token, (secs, secs))
    }
}

#[test]
fn the_life_of_another_caches_token_is_what_is_left_of_it() {
    let mut other = Tested::holding("a", 900.0);
    assert_eq!(other.decide(0.0), "use a");
    let cached = CachedToken::from_state(&other.state, &TokenRequest::default());
    let token = Arc::new(cached.unwrap()).token();
    let mut tested = Tested::default();
    assert_eq!(tested.decide(780.0), "fetch");
    tested.land_from(tested.fetch(), token, (780.0, 781.0));
    assert_eq!(tested.expires_at(), at(900.0).wall_time());
    assert_eq!(tested.decide(899.999), "fetch, else use a");
    assert_eq!(tested.decide(900.0), "wait");
}

#[test]
fn pauses_and_unanswered_rejections_must_be_kept() {
    let mut tested = Tested::holding("a", 900.0);
    assert!(!tested.state.must_be_kept(at(0.0)));
    assert!(matches!(tested.refuse(10.0), Rejection::Effective(_)));
    assert!(tested.state.must_be_kept(at(10.0)));
    assert_eq!(tested.decide_without(tested.generation(), 10.0), "fetch");
    assert_eq!(tested.land("b", 900.0, 10.0), "b");
    assert!(!tested.state.must_be_kept(at(10.0)));
    tested.reject_in_effect(20.0);
    assert!(tested.state.must_be_kept(at(20.0)));
    assert_eq!(tested.decide(20.0), "fetch");
    assert_eq!(tested.land("c", 900.0, 20.0), "c");
    assert_eq!(tested.decide(825.0), "use c, fetch");
    assert_eq!(tested.fail(outage(), 825.0, 0.0), 1.0);
    assert!(tested.state.must_be_kept(at(825.5)));
    assert!(!tested.state.must_be_kept(at(826.0)));
}

/// The wall clock is set forward during the fetch, so that the successor is late when it arrives.
#[test]
fn a_late_successor_replaces_a_refused_token() {
    let mut tested = Tested::holding("a", 900.0);
    let generation = tested.generation();
    assert!(matches!(tested.refuse(10.0), Rejection::Effective(_)));
    assert_eq!(tested.decide_without(generation, 10.0), "fetch");
    let ahead = at(10.5).with_wall(at(29.5).wall());
    let landed = tested.complete(tested.fetch(), token("b", 20.0), at(10.0), ahead, 0.0);
    assert_eq!(landed, "b");
    assert_eq!(
        tested.decide_at(ahead),
        "use b, fetch in 1 s",
        "nobody waits"
    );
}

/// The source takes longer than its tokens live. Such a token is of no use to anybody, while the
/// refused one may be; how often it is refused and refreshed is left to the spacing.
#[test]
fn a_successor_that_is_expired_on_arrival_leaves_a_refused_token_in_use() {
    let mut tested = Tested::holding("a", 900.0);
    let generation = tested.generation();
    let Rejection::Effective(rejection) = tested.refuse(10.0) else {
        panic!("the first rejection takes effect");
    };
    assert_eq!(tested.decide_without(generation, 10.0), "fetch");
    let landed = tested.land_from(tested.fetch(), token("b", 5.0), (10.0, 19.0));
    assert_eq!(landed, "a");
    tested.state.abandon_replay(rejection);
    assert_eq!(tested.decide(19.0), "use a");

    // The next refusal counts as the first response after the refresh, which did not help.
    tested.state.record_response(generation, true);
    assert!(matches!(tested.refuse(19.0), Rejection::Effective(_)));
    assert_eq!(tested.decide_without(generation, 19.0), "fetch");
    assert_eq!(tested.land("c", 900.0, 19.5), "c");
    assert_eq!(tested.reject(20.999), Rejection::Spaced, "2 s by now");
    tested.reject_in_effect(21.0);
}
