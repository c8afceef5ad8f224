//! The spacing of the refreshes that rejections cause.

use super::*;

impl Tested {
    /// Checks that rejections have no effect until exactly `spacing` after the last one that had.
    fn replace_after(&mut self, spacing: f64, last: f64) -> RejectionId {
        let generation = self.generation();
        for early in [0.0, spacing - 0.001] {
            assert_eq!(
                self.reject(last + early),
                Rejection::Spaced,
                "{early} s after {last} s"
            );
            assert_eq!(self.generation(), generation, "the token stays current");
        }
        self.replace(last + spacing)
    }

    fn awaits_response(&self) -> bool {
        self.state.awaits_response()
    }

    /// Records a response to a request with the current token.
    fn respond(&mut self, rejected: bool) {
        self.state.record_response(self.generation(), rejected);
    }
}

#[test]
fn rejections_are_one_second_apart_at_first() {
    let mut tested = Tested::holding("a", 90_000.0);
    tested.replace(10.0);
    tested.replace_after(1.0, 10.0);
    tested.replace_after(1.0, 11.0);
}

#[test]
fn a_spaced_rejection_changes_nothing() {
    let mut tested = Tested::holding("a", 90_000.0);
    tested.replace(10.0);
    assert_eq!(tested.reject(10.5), Rejection::Spaced);
    assert_eq!(tested.decide(10.5), "use t1");
    assert_eq!(
        tested.reject(11.0 - 1e-9),
        Rejection::Spaced,
        "it does not delay the next"
    );
    tested.reject_in_effect(11.0);
}

#[test]
fn each_rejected_replay_doubles_the_spacing() {
    let mut tested = Tested::holding("a", 90_000.0);
    let (mut last, mut rejection) = (10.0, tested.replace(10.0));
    for spacing in [2.0, 4.0, 8.0, 10.0, 10.0] {
        tested.state.record_replay(rejection, true);
        rejection = tested.replace_after(spacing, last);
        last += spacing;
    }
    tested.state.record_replay(rejection, false);
    rejection = tested.replace_after(1.0, last);
    tested.state.record_replay(rejection, true);
    tested.replace_after(2.0, last + 1.0);
}

#[test]
fn an_older_replay_does_not_decide_for_a_newer_rejection() {
    let mut tested = Tested::holding("a", 90_000.0);
    let first = tested.replace(10.0);
    let second = tested.replace_after(1.0, 10.0);
    tested.state.record_replay(second, true);
    tested.state.record_replay(first, false);
    let third = tested.replace_after(2.0, 11.0);
    tested.state.record_replay(second, false);
    tested.state.record_replay(third, true);
    tested.replace_after(4.0, 13.0);
}

#[test]
fn a_verdict_counts_once() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.state.record_replay(rejection, true);
    tested.state.abandon_replay(rejection);
    assert!(!tested.awaits_response());
    tested.respond(true);
    tested.state.record_replay(rejection, false);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn without_a_verdict_the_spacing_is_unchanged() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.state.record_replay(rejection, true);
    tested.replace_after(2.0, 10.0);
    tested.replace_after(2.0, 12.0);
}

/// Sequential requests, answered in no time, to an API that rejects them all for a minute.
#[test]
fn an_api_that_rejects_everything_costs_few_fetches() {
    let mut tested = Tested::holding("a", 90_000.0);
    let mut effective = Vec::new();
    for step in 0..600_u32 {
        let now = f64::from(step) / 10.0;
        if let Rejection::Effective(rejection) = tested.reject(now) {
            effective.push(now);
            assert_eq!(tested.decide(now), "fetch");
            tested.land(&format!("t{step}"), 90_000.0, now);
            tested.state.record_replay(rejection, true);
        }
    }
    assert_eq!(effective, [0.0, 2.0, 6.0, 14.0, 24.0, 34.0, 44.0, 54.0]);
}

#[test]
fn without_a_replay_the_first_response_decides() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.reject_in_effect(10.0);
    tested.state.abandon_replay(rejection);
    assert_eq!(tested.decide(10.0), "fetch");
    tested.land("b", 90_000.0, 10.0);
    assert!(tested.awaits_response());
    tested.state.record_response(tested.generation() - 1, true);
    assert!(tested.awaits_response(), "a response to another token");
    tested.respond(true);
    assert!(!tested.awaits_response());
    tested.state.record_replay(rejection, false);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn a_replay_abandoned_after_the_refresh_leaves_the_verdict_to_the_first_response() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.state.abandon_replay(rejection);
    assert!(tested.awaits_response());
    tested.respond(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn only_the_first_response_counts() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.state.abandon_replay(rejection);
    tested.respond(true);
    tested.respond(true);
    tested.state.abandon_replay(rejection);
    assert!(!tested.awaits_response(), "the verdict is known");
    tested.respond(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn an_accepted_first_response_leaves_the_spacing_unchanged() {
    let mut tested = Tested::holding("a", 90_000.0);
    let first = tested.replace(10.0);
    tested.state.record_replay(first, true);
    let second = tested.replace_after(2.0, 10.0);
    tested.state.abandon_replay(second);
    tested.respond(false);
    assert!(!tested.awaits_response());
    tested.respond(true);
    tested.replace_after(2.0, 12.0);
}

/// Rule 21: an acceptance counts, whichever request it is of.
#[test]
fn an_acceptance_before_the_replay_is_abandoned_leaves_the_spacing_unchanged() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    assert!(tested.awaits_response());
    for _ in 0..3 {
        tested.respond(false);
        assert!(!tested.awaits_response());
    }
    tested.state.abandon_replay(rejection);
    tested.respond(true);
    tested.replace_after(1.0, 10.0);
}

#[test]
fn an_acceptance_does_not_take_the_verdict_from_the_replay() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.respond(false);
    tested.state.record_replay(rejection, true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn responses_to_other_tokens_do_not_count() {
    let mut tested = Tested::holding("a", 90_000.0);
    let old = tested.generation();
    let rejection = tested.reject_in_effect(10.0);
    tested.state.abandon_replay(rejection);
    tested.state.record_response(old, true);
    assert_eq!(tested.decide(10.0), "fetch");
    tested.land("b", 90_000.0, 10.0);
    tested.state.record_response(old, false);
    assert!(tested.awaits_response());
    tested.respond(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn successes_of_other_requests_do_not_shorten_the_spacing() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.respond(false);
    tested.state.record_replay(rejection, true);
    for _ in 0..100 {
        tested.respond(false);
    }
    let rejection = tested.replace_after(2.0, 10.0);
    tested.state.record_replay(rejection, true);
    tested.replace_after(4.0, 12.0);
}

#[test]
fn a_token_that_the_source_vouches_for_is_judged_by_its_first_response() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.reject_in_effect(10.0);
    assert_eq!(tested.decide(10.0), "fetch");
    assert_eq!(tested.land("a", 90_000.0, 10.0), "a");
    assert!(
        tested.awaits_response(),
        "its request is not replayed with the same token"
    );
    tested.state.abandon_replay(rejection);
    tested.respond(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn a_refresh_keeps_waiting_for_the_first_response() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.reject_in_effect(10.0);
    tested.state.abandon_replay(rejection);
    assert_eq!(tested.decide(10.0), "fetch");
    tested.land("b", 5.0, 10.0);
    assert_eq!(tested.decide(13.5), "use b, fetch");
    tested.land("b", 5.0, 13.5);
    assert!(tested.awaits_response());
    assert_eq!(tested.decide(17.0), "use b, fetch");
    tested.land("c", 90_000.0, 17.0);
    assert!(tested.awaits_response(), "no response to b came");
    tested.respond(true);
    assert_eq!(tested.decide(100_000.0), "fetch");
    tested.land("d", 90_000.0, 100_000.0);
    assert!(!tested.awaits_response());
}

#[test]
fn after_a_failed_fetch_the_next_tokens_first_response_decides() {
    let mut tested = Tested::holding("a", 90_000.0);
    tested.reject_in_effect(10.0);
    assert_eq!(tested.decide(10.0), "fetch");
    assert_eq!(tested.fail(outage(), 10.0, 0.0), 1.0);
    assert_eq!(tested.decide(11.0), "fetch");
    tested.land("b", 90_000.0, 11.0);
    assert!(tested.awaits_response());
    tested.respond(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn invalidations_have_no_spacing() {
    let mut tested = Tested::holding("a", 900.0);
    tested.replace(10.0);
    for value in ["b", "c", "d"] {
        assert!(tested.state.invalidate(tested.generation()));
        assert_eq!(tested.decide(10.0), "fetch");
        assert_eq!(tested.land(value, 900.0, 10.0), value);
    }
    // Nor does it begin one, or end one.
    tested.replace_after(1.0, 10.0);
}
