//! The effects of rejections by an API and of invalidations by a user.

use super::*;

impl Tested {
    /// Rejects the current token.
    pub(super) fn reject(&mut self, secs: f64) -> Rejection {
        self.state
            .reject(self.generation(), Severity::Invalid, at(secs))
    }

    /// Rejects the current token, which must take effect.
    pub(super) fn reject_in_effect(&mut self, secs: f64) -> RejectionId {
        match self.reject(secs) {
            Rejection::Effective(rejection) => rejection,
            other => panic!("{other:?} at {secs} s"),
        }
    }

    /// Rejects the current token with effect, and fetches another at once.
    pub(super) fn replace(&mut self, secs: f64) -> RejectionId {
        let rejection = self.reject_in_effect(secs);
        assert_eq!(self.decide(secs), "fetch");
        self.land(&format!("t{}", self.fetched), 90_000.0, secs);
        rejection
    }
}

#[test]
fn a_rejected_token_is_no_longer_used() {
    let mut tested = Tested::holding("a", 900.0);
    tested.reject_in_effect(10.0);
    assert!(tested.state.current().is_none());
    assert_eq!(
        tested.decide(10.0),
        "fetch",
        "at once, however recent the last fetch was"
    );
    assert_eq!(tested.decide(10.0), "wait");
    assert_eq!(tested.land("b", 900.0, 11.0), "b");
    assert_eq!(tested.decide(11.0), "use b");
}

#[test]
fn a_token_rejected_at_once_is_replaced_at_once() {
    let mut tested = Tested::holding("a", 900.0);
    tested.reject_in_effect(0.0);
    assert_eq!(tested.decide(0.0), "fetch");
}

#[test]
fn a_rejected_token_is_not_used_in_a_pause() {
    let mut tested = Tested::refreshing("a");
    assert_eq!(
        tested.fail(outage().with_retry_after(span(30.0)), 801.0, 0.0),
        30.0
    );
    assert_eq!(tested.decide(802.0), "use a");
    tested.reject_in_effect(802.0);
    assert_eq!(tested.decide(802.0), "fail, 29 s");
    assert_eq!(tested.decide(831.0), "fetch");
}

#[test]
fn a_rejection_affects_only_its_own_token() {
    let mut tested = Tested::holding("a", 900.0);
    let old = tested.generation();
    tested.replace(10.0);
    for late in [10.0, 10.5, 11.0, 500.0] {
        assert_eq!(
            tested.state.reject(old, Severity::Invalid, at(late)),
            Rejection::Superseded
        );
        assert_eq!(
            tested.state.reject(999, Severity::Invalid, at(late)),
            Rejection::Superseded,
            "of another cache"
        );
        assert_eq!(tested.decide(late), "use t1");
    }
}

#[test]
fn many_rejections_of_one_token_cause_one_fetch() {
    let mut tested = Tested::holding("a", 900.0);
    let old = tested.generation();
    tested.reject_in_effect(10.0);
    for _ in 0..25 {
        assert_eq!(
            tested.state.reject(old, Severity::Invalid, at(10.0)),
            Rejection::Superseded,
            "no successor yet"
        );
    }
    assert_eq!(tested.decide(10.0), "fetch");
    assert_eq!(tested.land("b", 900.0, 10.2), "b");
    for _ in 0..25 {
        assert_eq!(
            tested.state.reject(old, Severity::Invalid, at(10.3)),
            Rejection::Superseded,
            "there is a successor"
        );
        assert_eq!(tested.decide(10.3), "use b");
    }
    assert_eq!(tested.started.len(), 2);
}

#[test]
fn an_expired_token_needs_no_rejection() {
    let mut tested = Tested::holding("a", 900.0);
    assert_eq!(tested.reject(890.0), Rejection::Superseded);
    tested.land("b", 900.0, 890.0);
    tested.reject_in_effect(890.0);
}

#[test]
fn a_fetch_started_before_the_rejection_does_not_restore_the_token() {
    let mut tested = Tested::refreshing("a");
    let generation = tested.generation();
    tested.reject_in_effect(801.0);
    assert_eq!(tested.decide(801.0), "wait");
    assert_eq!(tested.land("a", 100.0, 801.5), "discarded");
    assert!(tested.state.current().is_none());
    assert_eq!(
        tested.decide(801.5),
        "fetch",
        "callers that waited decide again"
    );
    // A fetch that started after it: the source vouches for its token.
    assert_eq!(tested.land("a", 98.0, 802.0), "a");
    assert_eq!(
        tested.generation(),
        generation,
        "so that no request is replayed with it"
    );
    assert_eq!(tested.decide(802.0), "use a");
}

#[test]
fn a_fetch_started_before_the_rejection_may_return_another_token() {
    let mut tested = Tested::refreshing("a");
    tested.reject_in_effect(801.0);
    assert_eq!(tested.land("b", 900.0, 801.5), "b");
    assert_eq!(tested.decide(801.5), "use b");
}

#[test]
fn an_abandoned_fetch_does_not_restore_a_rejected_token() {
    let mut tested = Tested::refreshing("a");
    let abandoned = tested.fetch();
    tested.state.abandon(abandoned);
    tested.replace(801.0);
    assert_eq!(
        tested.land_from(abandoned, token("a", 100.0), (800.0, 802.0)),
        "discarded"
    );
    assert_eq!(tested.decide(802.0), "use t1");
}

#[test]
fn a_token_that_the_source_vouches_for_can_be_rejected_again() {
    let mut tested = Tested::holding("a", 900.0);
    let generation = tested.generation();
    tested.reject_in_effect(10.0);
    assert_eq!(tested.decide(10.0), "fetch");
    assert_eq!(tested.land("a", 890.0, 10.0), "a");
    assert_eq!(
        tested
            .state
            .reject(generation, Severity::Invalid, at(10.999)),
        Rejection::Spaced
    );
    assert!(matches!(
        tested.state.reject(generation, Severity::Invalid, at(11.0)),
        Rejection::Effective(_)
    ));
}

#[test]
fn an_invalidated_token_is_no_longer_used() {
    let mut tested = Tested::refreshing("a");
    let generation = tested.generation();
    assert!(tested.state.invalidate(generation));
    assert_eq!(tested.decide(801.0), "wait");
    assert_eq!(
        tested.land("a", 100.0, 801.0),
        "discarded",
        "requested before"
    );
    assert_eq!(tested.decide(801.0), "fetch");
    assert_eq!(tested.land("b", 900.0, 801.0), "b");
    assert!(!tested.state.invalidate(generation), "late");
    assert!(!tested.state.invalidate(999), "of another cache");
    assert_eq!(tested.decide(801.0), "use b");
}
