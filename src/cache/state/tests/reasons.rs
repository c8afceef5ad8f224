//! The reasons for fetches, as observers see them.

use super::*;
use crate::observe::FetchReason;

/// Decides on a fetch and returns its reason.
fn reason(tested: &mut Tested, secs: f64, rejected: Option<u64>) -> FetchReason {
    let decision = tested.state.decide(at(secs), rejected);
    let fetch = tested.state.fetch();
    let fetch = fetch.unwrap_or_else(|| panic!("{decision:?}"));
    tested.start(fetch, Duration::ZERO);
    tested.state.fetch_reason(at(secs), rejected)
}

#[test]
fn a_fetch_before_any_token_is_the_first() {
    let mut tested = Tested::default();
    assert_eq!(reason(&mut tested, 0.0, None), FetchReason::First);
}

#[test]
fn the_stage_of_the_token_is_the_reason() {
    for (secs, expected) in [
        (850.0, FetchReason::Due),
        (889.9, FetchReason::Due),
        (890.0, FetchReason::Late),
        (899.9, FetchReason::Late),
        (900.0, FetchReason::Expired),
    ] {
        let mut tested = Tested::holding("a", 900.0);
        assert_eq!(reason(&mut tested, secs, None), expected, "{secs} s");
    }
}

#[test]
fn a_rejection_is_the_reason_until_another_token_is_there() {
    let mut tested = Tested::holding("a", 900.0);
    tested.reject_in_effect(10.0);
    assert_eq!(reason(&mut tested, 10.0, None), FetchReason::Rejected);
    tested.land("b", 900.0, 10.0);
    assert_eq!(reason(&mut tested, 865.0, None), FetchReason::Due);
}

/// The token serves other requests until its successor is there.
#[test]
fn the_request_that_was_refused_has_a_reason_of_its_own() {
    let mut tested = Tested::holding("a", 900.0);
    let generation = tested.generation();
    tested.state.reject(generation, Severity::Refused, at(10.0));
    let rejected = Some(generation);
    assert_eq!(reason(&mut tested, 10.0, rejected), FetchReason::Rejected);
}

#[test]
fn an_invalidated_token_is_the_reason_until_another_one_is_rejected() {
    let mut tested = Tested::holding("a", 900.0);
    tested.state.invalidate(tested.generation());
    assert_eq!(reason(&mut tested, 10.0, None), FetchReason::Invalidated);
    tested.land("b", 900.0, 10.0);
    tested.reject_in_effect(20.0);
    assert_eq!(reason(&mut tested, 20.0, None), FetchReason::Rejected);
}
