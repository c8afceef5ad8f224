//! The times at which a token is due for a refresh and expires. They scale with its life.

use std::time::{Duration, SystemTime};

use crate::clock::Moment;
use crate::token::windows::{FETCH_SPACING, due_and_late, windows};

/// The life of a token: fresh, then due (to be refreshed in the background), then late (the end is
/// near: a caller waits a moment for the refresh), then expired (never sent).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lifespan {
    pub(crate) due: Moment,
    pub(crate) late: Moment,
    pub(crate) expired: Moment,
}

impl Lifespan {
    pub(crate) const UNLIMITED: Self = Self {
        due: Moment::NEVER,
        late: Moment::NEVER,
        expired: Moment::NEVER,
    };

    /// Returns the lifespan of a token with this `life` that was requested at `started` and arrived
    /// at `received`.
    ///
    /// `jitter`, between 0 and 1, moves the due time later by up to half of the due window, so that
    /// tokens which were fetched together are not refreshed together.
    pub(crate) fn new(life: Duration, started: Moment, received: Moment, jitter: f64) -> Self {
        let age = received.monotonic().saturating_sub(started.monotonic());
        let (due, late) = due_and_late(life, age, jitter);
        Self {
            due: started.plus(due),
            late: started.plus(late),
            expired: started.plus(life),
        }
    }

    /// Returns the lifespan of a token with this whole `life`, of which `age` had passed when it
    /// arrived, at `received`.
    ///
    /// A token that arrives while it is due is used for a second before the next fetch.
    pub(crate) fn aged(life: Duration, age: Duration, received: Moment, jitter: f64) -> Self {
        let (due, late) = windows(life, jitter);
        let due = due.max(age.saturating_add(FETCH_SPACING)).min(late);
        let at = |time: Duration| received.plus(time.saturating_sub(age));
        Self {
            due: at(due),
            late: at(late),
            expired: at(life),
        }
    }

    /// Returns the same lifespan, due after this time at `now`, or when it ends.
    pub(crate) fn with_due(self, now: Moment, due: Duration) -> Self {
        let due = due.min(now.until(self.expired));
        let late = match self.late {
            late if now.until(late) < due => now.plus(due),
            late => late,
        };
        Self {
            due: now.plus(due),
            late,
            ..self
        }
    }

    /// Returns the end by the wall clock, if there is one.
    pub(crate) fn end(&self) -> Option<SystemTime> {
        match self.expired {
            Moment::NEVER => None,
            expired => expired.wall_time(),
        }
    }

    /// Returns the time until the token expires, unless it never does.
    pub(crate) fn life(&self, now: Moment) -> Option<Duration> {
        (self.expired != Moment::NEVER).then(|| now.until(self.expired))
    }

    /// Returns true if the token is usable without a decision: it is fresh, or no refresh can start
    /// and, if it is late, none is worth waiting for.
    #[inline]
    pub(crate) fn is_usable(&self, now: Moment, refresh: impl FnOnce() -> RefreshTimes) -> bool {
        !now.has_reached(self.due) || self.is_usable_while_due(now, refresh())
    }

    fn is_usable_while_due(&self, now: Moment, refresh: RefreshTimes) -> bool {
        !now.has_reached(refresh.blocked_until)
            && (!now.has_reached(self.late)
                || (now.has_reached(refresh.no_wait_from) && !now.has_reached(self.expired)))
    }
}

/// The times that say how callers use a token that is due or late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RefreshTimes {
    /// Until then no refresh can start: one is in progress, or the source is paused.
    pub(crate) blocked_until: Moment,
    /// From then on no caller waits for the refresh of a late token.
    pub(crate) no_wait_from: Moment,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Moment = Moment::new(Duration::from_secs(50), Duration::from_secs(1_700_000_000));

    /// Returns the due and late times, in seconds after the start.
    fn times(life: f64, latency: f64, jitter: f64) -> (f64, f64) {
        let received = START.plus(Duration::from_secs_f64(latency));
        let span = Lifespan::new(Duration::from_secs_f64(life), START, received, jitter);
        let after = |moment: Moment| {
            let monotonic = moment.monotonic() - START.monotonic();
            assert_eq!(
                monotonic,
                moment.wall() - START.wall(),
                "the windows are the same by both clocks"
            );
            (monotonic.as_secs_f64() * 1e6).round() / 1e6
        };
        assert_eq!(
            after(span.expired),
            (life * 1e6).round() / 1e6,
            "the whole life"
        );
        (after(span.due), after(span.late))
    }

    #[test]
    fn windows_scale_with_the_life() {
        for (life, due_first, due_last, late) in [
            (900.0, 800.0, 845.0, 890.0),
            (5.0, 3.5, 3.75, 4.0),
            (3_600.0, 3_290.0, 3_440.0, 3_590.0),
            (86_400.0, 86_090.0, 86_240.0, 86_390.0),
            (20.0, 17.0, 18.0, 19.0),
            (60.0, 51.0, 54.0, 57.0),
        ] {
            assert_eq!(
                times(life, 0.1, 0.0),
                (due_first, late),
                "{life} s, no jitter"
            );
            assert_eq!(
                times(life, 0.1, 1.0),
                (due_last, late),
                "{life} s, full jitter"
            );
        }
    }

    #[test]
    fn a_life_too_short_for_a_margin_is_used_in_full() {
        assert_eq!(times(1.0, 0.0, 0.0), (1.0, 1.0));
        assert_eq!(times(2.0, 0.0, 0.0), (1.0, 2.0));
        assert_eq!(times(2.0, 0.25, 0.0), (1.25, 2.0));
        assert_eq!(times(0.5, 0.0, 0.5), (0.5, 0.5));
    }

    #[test]
    fn a_slow_token_endpoint_counts_as_a_short_life() {
        assert_eq!(
            times(5.0, 2.4, 0.0),
            (3.5, 4.0),
            "used for 1.1 s before it is due"
        );
        assert_eq!(
            times(5.0, 2.6, 0.0),
            (3.6, 5.0),
            "it would be due after 0.9 s"
        );
        assert_eq!(times(5.0, 9.0, 0.0), (5.0, 5.0), "expired on arrival");
    }

    /// Returns the due, late and expiry times in seconds after the arrival.
    fn after_arrival(span: Lifespan) -> [f64; 3] {
        [span.due, span.late, span.expired].map(|time| START.until(time).as_secs_f64())
    }

    #[test]
    fn windows_of_an_aged_token_follow_from_its_whole_life() {
        for (age, times) in [
            (0, [800.0, 890.0, 900.0]),
            (600, [200.0, 290.0, 300.0]),
            // Due on arrival: used for a second first.
            (850, [1.0, 40.0, 50.0]),
            (889, [1.0, 1.0, 11.0]),
            // Late on arrival.
            (895, [0.0, 0.0, 5.0]),
            (1_000, [0.0, 0.0, 0.0]),
        ] {
            let life = Duration::from_secs(900);
            let span = Lifespan::aged(life, Duration::from_secs(age), START, 0.0);
            assert_eq!(after_arrival(span), times, "{age} s");
        }
    }

    #[test]
    fn a_due_time_that_the_source_set_is_used_unchanged() {
        let span = Lifespan::new(Duration::from_secs(900), START, START, 0.5);
        for (due, times) in [
            (0, [0.0, 890.0, 900.0]),
            (300, [300.0, 890.0, 900.0]),
            (895, [895.0, 895.0, 900.0]),
            (1_000, [900.0, 900.0, 900.0]),
        ] {
            let span = span.with_due(START, Duration::from_secs(due));
            assert_eq!(after_arrival(span), times, "{due} s");
        }
        let due = Duration::from_secs(60);
        let unlimited = Lifespan::UNLIMITED.with_due(START, due);
        assert_eq!(START.until(unlimited.due), due);
        assert_eq!(unlimited.expired, Moment::NEVER);
    }

    proptest! {
        #[test]
        fn windows_are_ordered_and_bounded(
            life in 0.001..400_000_000.0f64, latency in 0.0..40.0f64, jitter in 0.0..1.0f64,
        ) {
            let (due, late) = times(life, latency, jitter);
            prop_assert!(due <= late && late <= life + 1e-6);
            prop_assert!(late >= life / 2.0 - 1e-6);
            prop_assert!(due >= life.min(latency + 1.0) - 1e-6, "at most one fetch a second");
        }
    }
}
