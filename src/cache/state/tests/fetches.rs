//! One fetch at a time, and the pause after one that failed.

use super::*;

#[test]
fn many_callers_share_one_fetch() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    for _ in 0..10_000 {
        assert_eq!(tested.decide(0.0), "wait");
    }
    assert_eq!(tested.land("a", 900.0, 0.5), "a");
    assert_eq!(tested.decide(0.5), "use a");
}

#[test]
fn many_callers_of_a_due_token_share_one_refresh() {
    let mut tested = Tested::refreshing("a");
    for _ in 0..10_000 {
        assert_eq!(tested.decide(801.0), "use a");
    }
    assert_eq!(tested.land("b", 900.0, 801.0), "b");
    assert_eq!(tested.decide(801.0), "use b");
}

#[test]
fn an_abandoned_fetch_is_not_a_failure() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    tested.state.abandon(tested.fetch());
    assert_eq!(tested.state.fetch(), None);
    assert_eq!(tested.decide(0.0), "fetch", "at once");
    assert_eq!(tested.fail(outage(), 0.0, 0.0), 1.0, "the first failure");
}

#[test]
fn an_abandoned_refresh_is_started_again() {
    let mut tested = Tested::refreshing("a");
    tested.state.abandon(tested.fetch());
    assert_eq!(tested.decide(800.0), "use a, fetch");
    assert_eq!(tested.decide(800.0), "use a");
}

#[test]
fn an_abandoned_fetch_does_not_end_another() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let abandoned = tested.fetch();
    tested.state.abandon(abandoned);
    assert_eq!(tested.decide(1.0), "fetch");
    tested.state.abandon(abandoned);
    assert_eq!(tested.decide(1.0), "wait", "the other is still in progress");
    let error = tested.state.fail(abandoned, outage(), at(1.0), TIMING, 0.0);
    assert_eq!(error.retry_after(), None, "it causes no pause");
    assert_eq!(tested.decide(1.0), "wait");
    assert_eq!(tested.land("a", 900.0, 1.0), "a");
}

#[test]
fn the_token_of_an_abandoned_fetch_is_used() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let abandoned = tested.fetch();
    tested.state.abandon(abandoned);
    assert_eq!(tested.decide(30.0), "fetch");
    assert_eq!(
        tested.land_from(abandoned, token("late", 900.0), (0.0, 31.0)),
        "late"
    );
    assert_eq!(tested.decide(31.0), "use late");
    assert!(
        tested.state.fetch().is_some(),
        "the other is still in progress"
    );
    assert_eq!(tested.land("newer", 900.0, 32.0), "newer");
    assert_eq!(tested.decide(32.0), "use newer");
}

#[test]
fn an_abandoned_fetch_does_not_replace_a_newer_token() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let abandoned = tested.fetch();
    tested.state.abandon(abandoned);
    assert_eq!(tested.decide(30.0), "fetch");
    assert_eq!(tested.land("newer", 60.0, 30.0), "newer");
    let late = tested.land_from(abandoned, token("late", 900.0), (0.0, 31.0));
    assert_eq!(late, "newer", "callers that waited get the newer one");
    assert_eq!(tested.decide(31.0), "use newer");
    let late = tested.land_from(abandoned, token("late", 900.0), (0.0, 90.0));
    assert_eq!(late, "late", "it replaces an expired one");
    assert_eq!(tested.decide(90.0), "use late");
}

#[test]
fn a_late_success_ends_a_pause() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let abandoned = tested.fetch();
    tested.state.abandon(abandoned);
    assert_eq!(tested.decide(30.0), "fetch");
    assert_eq!(tested.fail(outage(), 30.0, 0.0), 1.0);
    assert_eq!(tested.decide(30.5), "fail, 0.5 s");
    assert_eq!(
        tested.land_from(abandoned, token("late", 900.0), (0.0, 30.5)),
        "late"
    );
    assert_eq!(tested.decide(30.5), "use late");
}

#[test]
fn a_due_token_is_used_whatever_happens_to_its_refresh() {
    let mut tested = Tested::refreshing("a");
    assert_eq!(tested.fail(outage(), 801.0, 0.0), 1.0);
    assert_eq!(tested.decide(801.0), "use a", "in the pause");
    assert_eq!(tested.decide(801.999), "use a");
    assert_eq!(tested.decide(802.0), "use a, fetch", "after the pause");
    assert_eq!(tested.fail(TokenError::permanent("no"), 802.0, 0.0), 2.0);
    assert_eq!(tested.decide(803.0), "use a");
    assert_eq!(tested.decide(804.0), "use a, fetch");
    tested.state.abandon(tested.fetch());
    assert_eq!(tested.decide(889.0), "use a, fetch");
    assert_eq!(tested.fail(outage(), 889.5, 0.0), 4.0);
    assert_eq!(tested.decide(889.999), "use a");
    assert_eq!(tested.decide(890.0), "use a", "late");
    assert_eq!(tested.decide(893.5), "fetch, else use a");
    assert_eq!(tested.fail(outage(), 894.0, 0.0), 8.0);
    assert_eq!(tested.decide(899.999), "use a");
    assert_eq!(tested.decide(900.0), "fail, 2 s", "expired");
}

#[test]
fn callers_in_a_pause_fail_at_once_with_the_remaining_time() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let rejected = TokenError::new(TokenErrorKind::InvalidClient, false);
    let error = tested
        .state
        .fail(tested.fetch(), rejected, at(2.0), TIMING, 0.0);
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert_eq!(error.retry_after(), Some(span(1.0)), "callers that waited");
    let Decision::Fail(error) = tested.state.decide(at(2.25), None) else {
        panic!("callers in the pause");
    };
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert!(!error.is_transient());
    assert_eq!(error.retry_after(), Some(span(0.75)));
    assert_eq!(tested.decide(2.999_999_999), "fail, 0.000000001 s");
    assert_eq!(tested.decide(3.0), "fetch");
    assert_eq!(tested.land("a", 900.0, 3.0), "a");
    assert_eq!(tested.decide(3.0), "use a", "it recovers without a restart");
}

#[test]
fn pauses_double_up_to_the_longest_pause() {
    let mut tested = Tested::default();
    let mut now = 0.0;
    for pause in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
        .into_iter()
        .chain([60.0; 40])
    {
        assert_eq!(tested.decide(now), "fetch");
        assert_eq!(tested.fail(outage(), now, 0.0), pause);
        assert_eq!(tested.decide(now), format!("fail, {pause} s"));
        now += pause;
    }
}

#[test]
fn the_pauses_are_settings() {
    let timing = Timing {
        first_pause: span(0.25),
        longest_pause: span(0.625),
        ..TIMING
    };
    let mut state = State::default();
    for (now, pause) in [(0.0, 0.25), (1.0, 0.5), (2.0, 0.625), (3.0, 0.625)] {
        let Decision::Fetch { fetch, .. } = state.decide(at(now), None) else {
            panic!("the pause has ended at {now} s");
        };
        let error = state.fail(fetch, outage(), at(now), timing, 0.0);
        assert_eq!(error.retry_after(), Some(span(pause)));
    }
}

#[test]
fn jitter_lengthens_a_pause_by_up_to_a_quarter() {
    let pauses = |jitter| {
        let mut tested = Tested::default();
        let mut now = 0.0;
        [(); 7].map(|()| {
            assert_eq!(tested.decide(now), "fetch");
            let pause = tested.fail(outage(), now, jitter);
            now += pause;
            pause
        })
    };
    assert_eq!(pauses(0.0), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]);
    assert_eq!(pauses(0.5), [1.125, 2.25, 4.5, 9.0, 18.0, 36.0, 67.5]);
    assert_eq!(pauses(1.0), [1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 75.0]);
}

#[test]
fn a_longer_retry_after_replaces_the_pause_without_jitter() {
    for (retry_after, pause) in [
        (0, 1.0),
        (1, 1.0),
        (30, 30.0),
        (3_600, 3_600.0),
        (3_601, 3_600.0),
        (u64::MAX, 3_600.0),
    ] {
        let mut tested = Tested::default();
        assert_eq!(tested.decide(0.0), "fetch");
        let error = outage().with_retry_after(Duration::from_secs(retry_after));
        assert_eq!(tested.fail(error, 0.0, 1.0), pause, "{retry_after} s");
        assert_eq!(tested.decide(0.0), format!("fail, {pause} s"));
        assert_eq!(tested.decide(pause), "fetch");
    }
}

#[test]
fn a_retry_after_advances_the_backoff() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    assert_eq!(
        tested.fail(outage().with_retry_after(span(5.0)), 0.0, 0.0),
        5.0
    );
    assert_eq!(tested.decide(5.0), "fetch");
    assert_eq!(tested.fail(outage(), 5.0, 0.0), 2.0);
    assert_eq!(tested.decide(7.0), "fetch");
    assert_eq!(
        tested.fail(outage().with_retry_after(span(3.0)), 7.0, 1.0),
        4.0
    );
}

#[test]
fn a_success_resets_the_pause() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    assert_eq!(tested.fail(outage(), 0.0, 0.0), 1.0);
    assert_eq!(tested.decide(1.0), "fetch");
    assert_eq!(tested.fail(outage(), 1.0, 0.0), 2.0);
    assert_eq!(tested.decide(3.0), "fetch");
    assert_eq!(tested.land("a", 10.0, 3.0), "a");
    assert_eq!(tested.decide(13.0), "fetch");
    assert_eq!(tested.fail(outage(), 13.0, 0.0), 1.0);
}

#[test]
fn a_pause_ends_by_whichever_clock_says_so_first() {
    let mut tested = Tested::default();
    assert_eq!(tested.decide(0.0), "fetch");
    let error = outage().with_retry_after(span(3_600.0));
    assert_eq!(tested.fail(error, 0.0, 0.0), 3_600.0);
    let by_wall = |secs: f64| at(10.0).with_wall(at(secs).wall());
    let set_back = at(10.0).with_wall(BEGIN.wall() - span(3_600.0));
    assert_eq!(tested.decide_at(set_back), "fail, 3590 s");
    assert_eq!(tested.decide_at(by_wall(3_599.0)), "fail, 1 s");
    assert_eq!(
        tested.decide_at(by_wall(8.0 * 3_600.0)),
        "fetch",
        "after 8 h of sleep"
    );
}

/// 200 callers a second, whose fetches all fail after 50 ms.
#[test]
fn a_dead_endpoint_sees_a_handful_of_requests() {
    let mut tested = Tested::default();
    let mut fails_at = None;
    for step in 0..1_000_u32 {
        let now = f64::from(step) / 200.0;
        if fails_at.is_some_and(|at| now >= at) {
            tested.fail(outage(), now, 0.0);
            fails_at = None;
        }
        if tested.decide(now) == "fetch" {
            fails_at = Some(now + 0.05);
        }
    }
    assert_eq!(tested.started.len(), 3, "at 0 s, 1.05 s and 3.1 s");
}

#[test]
fn a_fetch_that_was_forgotten_stores_no_token() {
    let mut tested = Tested::refreshing("a");
    let fetch = tested.fetch();
    tested.state.forget();
    assert!(tested.state.current().is_none());
    tested.land_from(fetch, token("b", 900.0), (800.0, 801.0));
    assert!(
        tested.state.current().is_none(),
        "a token of the login that ended"
    );
    assert_eq!(tested.decide(801.0), "fetch", "with no delay and no pause");
    assert_eq!(tested.land("c", 900.0, 801.0), "c");
}
