//! How far apart the renewals are that rejections cause, and who says so.

use super::*;

impl Tested {
    /// Refusals have no effect until exactly `spacing` after the last that had: then one has.
    fn replace_after(&mut self, spacing: f64, last: f64) -> RejectionId {
        let generation = self.generation();
        for early in [0.0, spacing - 0.001] {
            assert_eq!(
                self.reject(last + early),
                Rejection::Spaced,
                "{early} s after {last} s"
            );
            assert_eq!(self.generation(), generation, "it stays current");
        }
        self.replace(last + spacing)
    }

    fn is_on_probation(&self) -> bool {
        self.state
            .current()
            .unwrap()
            .on_probation
            .load(Ordering::Relaxed)
    }

    /// An answer to the current token, from a request that was sent with it now.
    fn answer(&mut self, refused: bool) {
        self.state.first_answer(self.generation(), refused);
    }
}

#[test]
fn rejections_are_a_second_apart_at_first() {
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
    assert_eq!(tested.decide(10.5), "serve t1");
    assert_eq!(
        tested.reject(11.0 - 1e-9),
        Rejection::Spaced,
        "nor does it move the next"
    );
    tested.reject_in_effect(11.0);
}

#[test]
fn each_refusal_of_the_new_token_doubles_the_spacing() {
    let mut tested = Tested::holding("a", 90_000.0);
    let (mut last, mut rejection) = (10.0, tested.replace(10.0));
    for spacing in [2.0, 4.0, 8.0, 10.0, 10.0] {
        tested.state.judge(rejection, true);
        rejection = tested.replace_after(spacing, last);
        last += spacing;
    }
    tested.state.judge(rejection, false);
    rejection = tested.replace_after(1.0, last);
    tested.state.judge(rejection, true);
    tested.replace_after(2.0, last + 1.0);
}

#[test]
fn the_first_of_two_requests_does_not_judge_for_the_second() {
    let mut tested = Tested::holding("a", 90_000.0);
    let first = tested.replace(10.0);
    let second = tested.replace_after(1.0, 10.0);
    tested.state.judge(second, true);
    tested.state.judge(first, false);
    let third = tested.replace_after(2.0, 11.0);
    tested.state.judge(second, false);
    tested.state.judge(third, true);
    tested.replace_after(4.0, 13.0);
}

#[test]
fn a_verdict_is_given_once() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.state.judge(rejection, true);
    tested.state.forgo(rejection);
    assert!(!tested.is_on_probation());
    tested.answer(true);
    tested.state.judge(rejection, false);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn without_a_verdict_the_spacing_stays() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.state.judge(rejection, true);
    tested.replace_after(2.0, 10.0);
    tested.replace_after(2.0, 12.0);
}

/// One request after the other, answered in no time; an API that refuses them all for a minute.
#[test]
fn an_api_that_refuses_everything_costs_few_renewals() {
    let mut tested = Tested::holding("a", 90_000.0);
    let mut effective = Vec::new();
    for step in 0..600_u32 {
        let now = f64::from(step) / 10.0;
        if let Rejection::Effective(rejection) = tested.reject(now) {
            effective.push(now);
            assert_eq!(tested.decide(now), "fetch");
            tested.land(&format!("t{step}"), 90_000.0, now);
            tested.state.judge(rejection, true);
        }
    }
    assert_eq!(effective, [0.0, 2.0, 6.0, 14.0, 24.0, 34.0, 44.0, 54.0]);
}

#[test]
fn a_request_that_is_not_sent_again_leaves_the_verdict_to_the_first_answer() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.reject_in_effect(10.0);
    tested.state.forgo(rejection);
    assert_eq!(tested.decide(10.0), "fetch");
    tested.land("b", 90_000.0, 10.0);
    assert!(tested.is_on_probation());
    tested.state.first_answer(tested.generation() - 1, true);
    assert!(tested.is_on_probation(), "an answer to another token");
    tested.answer(true);
    assert!(!tested.is_on_probation());
    tested.state.judge(rejection, false);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn the_verdict_may_be_left_when_the_new_token_is_there_already() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    assert!(!tested.is_on_probation());
    tested.state.forgo(rejection);
    assert!(tested.is_on_probation());
    tested.answer(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn only_the_first_answer_counts() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.state.forgo(rejection);
    tested.answer(true);
    tested.answer(true);
    tested.state.forgo(rejection);
    assert!(!tested.is_on_probation(), "the verdict is known");
    tested.answer(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn a_first_answer_that_is_no_refusal_leaves_the_spacing() {
    let mut tested = Tested::holding("a", 90_000.0);
    let first = tested.replace(10.0);
    tested.state.judge(first, true);
    let second = tested.replace_after(2.0, 10.0);
    tested.state.forgo(second);
    tested.answer(false);
    assert!(!tested.is_on_probation());
    tested.answer(true);
    tested.replace_after(2.0, 12.0);
}

#[test]
fn answers_to_other_tokens_judge_nothing() {
    let mut tested = Tested::holding("a", 90_000.0);
    let old = tested.generation();
    let rejection = tested.reject_in_effect(10.0);
    tested.state.forgo(rejection);
    tested.state.first_answer(old, true);
    assert_eq!(tested.decide(10.0), "fetch");
    tested.land("b", 90_000.0, 10.0);
    tested.state.first_answer(old, false);
    assert!(tested.is_on_probation());
    tested.answer(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn successes_of_other_requests_never_shorten_the_spacing() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.replace(10.0);
    tested.answer(false);
    tested.state.judge(rejection, true);
    for _ in 0..100 {
        tested.answer(false);
    }
    let rejection = tested.replace_after(2.0, 10.0);
    tested.state.judge(rejection, true);
    tested.replace_after(4.0, 12.0);
}

#[test]
fn a_token_that_the_source_stands_by_is_judged_by_its_first_answer() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.reject_in_effect(10.0);
    assert_eq!(tested.decide(10.0), "fetch");
    assert_eq!(tested.land("a", 90_000.0, 10.0), "a");
    assert!(
        tested.is_on_probation(),
        "its request is not sent again with the same token"
    );
    tested.state.forgo(rejection);
    tested.answer(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn probation_outlives_a_renewal() {
    let mut tested = Tested::holding("a", 90_000.0);
    let rejection = tested.reject_in_effect(10.0);
    tested.state.forgo(rejection);
    assert_eq!(tested.decide(10.0), "fetch");
    tested.land("b", 5.0, 10.0);
    assert_eq!(tested.decide(13.5), "serve b, fetch");
    tested.land("b", 5.0, 13.5);
    assert!(tested.is_on_probation());
    assert_eq!(tested.decide(17.0), "serve b, fetch");
    tested.land("c", 90_000.0, 17.0);
    assert!(tested.is_on_probation(), "b was never answered to");
    tested.answer(true);
    assert_eq!(tested.decide(100_000.0), "fetch");
    tested.land("d", 90_000.0, 100_000.0);
    assert!(!tested.is_on_probation());
}

#[test]
fn a_rejection_whose_fetch_fails_is_judged_by_the_next_tokens_first_answer() {
    let mut tested = Tested::holding("a", 90_000.0);
    tested.reject_in_effect(10.0);
    assert_eq!(tested.decide(10.0), "fetch");
    assert_eq!(tested.fail(outage(), 10.0, 0.0), 1.0);
    assert_eq!(tested.decide(11.0), "fetch");
    tested.land("b", 90_000.0, 11.0);
    assert!(tested.is_on_probation());
    tested.answer(true);
    tested.replace_after(2.0, 10.0);
}

#[test]
fn an_invalidation_has_no_spacing() {
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
