//! The reasons of fetches, and the tokens that are known when they start.

use super::*;
use crate::cache::state::Severity;

impl Tested {
    fn reason(&self) -> FetchReason {
        self.state.fetch_reason(self.fetch()).unwrap()
    }

    /// Returns the values that are held and rejected.
    fn known(&self) -> (Option<&str>, Option<&str>) {
        (
            self.state.held().map(AccessToken::expose_secret),
            self.state.rejected().map(AccessToken::expose_secret),
        )
    }
}

#[test]
fn the_reason_follows_from_the_state_in_which_a_fetch_starts() {
    let mut tested = Tested::default();
    tested.decide(0.0);
    assert_eq!(tested.reason(), FetchReason::First);
    tested.fail(outage(), 0.0, 0.0);
    tested.decide(1.0);
    assert_eq!(tested.reason(), FetchReason::First, "after a failure");
    for (secs, reason) in [
        (800.0, FetchReason::Due),
        (889.999, FetchReason::Due),
        (890.0, FetchReason::Late),
        (900.0, FetchReason::Expired),
    ] {
        let mut tested = Tested::holding("a", 900.0);
        tested.decide(secs);
        assert_eq!(tested.reason(), reason, "{secs}");
        assert_eq!(tested.known(), (Some("a"), None));
    }
}

#[test]
fn a_rejected_token_is_known_until_another_value_is_stored() {
    for (severity, held) in [(Severity::Invalid, None), (Severity::Refused, Some("a"))] {
        let mut tested = Tested::holding("a", 900.0);
        let generation = tested.generation();
        tested.state.reject(generation, severity, at(10.0));
        tested.state.decide(at(10.0), Some(generation));
        let fetch = tested.state.fetch().unwrap();
        assert_eq!(
            tested.state.fetch_reason(fetch),
            Some(FetchReason::Rejected)
        );
        assert_eq!(tested.known(), (held, Some("a")));

        // The source returns the value again.
        tested.land_from(fetch, token("a", 900.0), (10.0, 10.0));
        assert_eq!(tested.known(), (Some("a"), Some("a")));
        tested.decide(810.0);
        assert_eq!(tested.reason(), FetchReason::Due);
        tested.land("b", 900.0, 810.0);
        assert_eq!(tested.known(), (Some("b"), None));
    }
}

#[test]
fn a_fetch_after_an_invalidation_has_its_own_reason() {
    let mut tested = Tested::holding("a", 900.0);
    assert!(tested.state.invalidate(tested.generation()));
    tested.decide(10.0);
    assert_eq!(tested.reason(), FetchReason::Invalidated);
    assert_eq!(tested.known(), (None, Some("a")));
}

#[test]
fn a_pause_of_another_cache_is_taken_over_and_counts_as_no_failure() {
    let mut tested = Tested::default();
    tested.decide(0.0);
    // Shorter than the first pause, and longer than the longest `Retry-After`.
    for (begin, remaining) in [(0.0, 0.25), (0.25, 7_200.0)] {
        let error = outage().paused(span(remaining));
        assert_eq!(tested.fail(error, begin, 1.0), remaining);
        assert_eq!(
            tested.decide(begin + remaining - 0.25),
            match remaining {
                0.25 => format!("fail, {remaining} s"),
                _ => "fail, 0.25 s".to_owned(),
            }
        );
        assert_eq!(tested.decide(begin + remaining), "fetch");
    }
    assert_eq!(
        tested.fail(outage(), 7_200.25, 0.0),
        1.0,
        "the first failure"
    );
}
