//! A token with its times by the clocks of this process, made from a fetch or from a record.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::wall_now;
use crate::source::shared::record::{SharedToken, Times};
use crate::store::{Loaded, StoreTime};
use crate::token::windows::{due_and_late, windows};
use crate::token::{AccessToken, Lifetime};

/// The difference of two wall clocks that is allowed for.
const SKEW: Duration = Duration::from_secs(30);

/// The store's time, as this process knows it after an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreClock {
    now: StoreTime,
    sent: Instant,
    received: Instant,
}

/// A token with its times by the clocks of this process.
#[derive(Clone)]
pub(super) struct TimedToken {
    pub(super) token: AccessToken,
    /// `None` if it never expires.
    pub(super) times: Option<LocalTimes>,
}

#[derive(Clone, Copy)]
pub(super) struct LocalTimes {
    life: Duration,
    due: Instant,
    end: Instant,
    wall_end: SystemTime,
}

impl StoreClock {
    pub(super) fn new(loaded: &Loaded, sent: Instant, received: Instant) -> Self {
        Self {
            now: loaded.now,
            sent,
            received,
        }
    }

    /// Returns the store's time at a later instant; the truth is up to a round trip later.
    pub(super) fn at(&self, instant: Instant) -> StoreTime {
        let since = instant.saturating_duration_since(self.received);
        self.now.plus(since)
    }

    /// Returns the instant of a time by the store, or one that is up to a round trip earlier.
    fn instant(&self, time: StoreTime) -> Instant {
        let passed = time.until(self.now);
        let instant = self.sent.checked_sub(passed).unwrap_or(self.sent);
        instant + self.now.until(time)
    }

    /// Returns the time until this moment.
    pub(super) fn until(&self, time: StoreTime) -> Duration {
        self.instant(time).saturating_duration_since(Instant::now())
    }
}

impl TimedToken {
    /// Returns a token that was requested at these times and arrived now; `None` if its life is
    /// unknown, so that it cannot be shared.
    pub(super) fn fetched(token: AccessToken, started: Instant, wall: SystemTime) -> Option<Self> {
        let now = Instant::now();
        let wall_now = wall_now();
        let life = match token.lifetime() {
            Lifetime::Limited(life) => life,
            Lifetime::Unlimited => return Some(Self { token, times: None }),
            Lifetime::Unspecified | Lifetime::Ended => return None,
        };
        // Time that has passed at the start of the fetch: of a token from a file or a cache.
        let (life, age_at_start) = match (token.issued(), token.expires_at(), token.issued_at()) {
            (Some(_), Some(end), _) => (end.duration_since(wall).unwrap_or_default(), 0),
            (_, _, Some(time)) => (life, millis(wall.duration_since(time).unwrap_or_default())),
            _ => (life, 0),
        };
        let age_at_start = Duration::from_millis(age_at_start);
        let end = started + life.saturating_sub(age_at_start);
        let wall_end = wall + life.saturating_sub(age_at_start);
        let due = match token.due_at() {
            Some(time) => now + time.duration_since(wall_now).unwrap_or_default(),
            None => {
                let age = age_at_start + now.saturating_duration_since(started);
                let (due, _) = due_and_late(life, age, fastrand::f64());
                started + due.saturating_sub(age_at_start)
            }
        };
        let times = LocalTimes {
            life,
            due: due.min(end),
            end,
            wall_end,
        };
        Some(Self {
            token,
            times: Some(times),
        })
    }

    /// Returns a token from the store; `None` if it has expired. The record expires at
    /// `record_end`.
    pub(super) fn loaded(
        shared: &SharedToken,
        record_end: StoreTime,
        clock: &StoreClock,
    ) -> Option<Self> {
        let token = shared.token.clone();
        let Some(times) = shared.times else {
            return Some(Self {
                token: token.without_expiry(),
                times: None,
            });
        };
        let now = Instant::now();
        let by_wall = (times.wall_end + SKEW)
            .duration_since(wall_now())
            .unwrap_or_default();
        let end = clock
            .instant(times.end.min(record_end))
            .min(now + times.life)
            .min(now + by_wall);
        (end > now).then_some(Self {
            token,
            times: Some(LocalTimes {
                life: times.life,
                due: clock.instant(times.due).min(end),
                end,
                wall_end: times.wall_end,
            }),
        })
    }

    /// Returns the token for the store.
    pub(super) fn shared(&self, clock: &StoreClock) -> SharedToken {
        SharedToken {
            token: self.token.clone(),
            times: self.times.map(|times| Times {
                life: times.life,
                due: clock.at(times.due),
                end: clock.at(times.end),
                wall_end: times.wall_end,
            }),
        }
    }

    /// Returns the token for a cache, with its age and its due time.
    pub(super) fn for_cache(&self) -> AccessToken {
        let Some(times) = self.times else {
            return self.token.clone();
        };
        let (now, wall) = (Instant::now(), wall_now());
        let age = times
            .life
            .saturating_sub(times.end.saturating_duration_since(now));
        let due = times.due.saturating_duration_since(now);
        self.token
            .clone()
            .with_lifetime(times.life)
            .with_issued_at(wall.checked_sub(age).unwrap_or(wall))
            .with_due_at(wall + due)
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.times
            .is_none_or(|times| now < times.due && wall_now() < times.wall_end + SKEW)
    }

    pub(super) fn ends_after(&self, end: Instant) -> bool {
        self.times.is_none_or(|times| times.end > end)
    }

    /// Returns true if it expires after another token.
    pub(super) fn outlives(&self, other: &Self) -> bool {
        other.times.is_some_and(|times| self.ends_after(times.end))
    }

    pub(super) fn has_expired(&self) -> bool {
        self.times.is_some_and(|times| times.end <= Instant::now())
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.times.is_some_and(|times| {
            let (_, late) = windows(times.life, 0.0);
            now + times.life.saturating_sub(late) >= times.end.max(times.due)
        })
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tokio::time::advance;

    use super::*;

    const LIFE: Duration = Duration::from_secs(900);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(secs: u64) -> StoreTime {
        StoreTime::from_millis(secs * 1_000)
    }

    fn clock_at(secs: u64) -> StoreClock {
        let now = Instant::now();
        StoreClock::new(&Loaded::absent(at(secs)), now, now)
    }

    fn token() -> AccessToken {
        AccessToken::new("token").unwrap().with_lifetime(LIFE)
    }

    /// Returns a token that ends at 1,000 s of the store, and this long from now by the wall clock.
    fn shared(wall: Duration) -> SharedToken {
        let times = Times {
            life: LIFE,
            due: at(900),
            end: at(1_000),
            wall_end: wall_now() + wall,
        };
        SharedToken {
            token: token(),
            times: Some(times),
        }
    }

    fn left(token: Option<TimedToken>) -> u64 {
        let times = token.and_then(|it| it.times);
        let left = |it: LocalTimes| it.end.saturating_duration_since(Instant::now());
        times.map(left).unwrap_or_default().as_secs_f64().round() as u64
    }

    #[tokio::test(start_paused = true)]
    async fn the_life_that_is_left_is_the_least_of_all() {
        let loaded = |shared, record_end, now| {
            left(TimedToken::loaded(&shared, at(record_end), &clock_at(now)))
        };
        assert_eq!(
            loaded(shared(LIFE), 1_000, 400),
            600,
            "its end by the store"
        );
        assert_eq!(loaded(shared(LIFE), 700, 400), 300, "the end of the record");
        assert_eq!(loaded(shared(LIFE), 1_000, 1_000), 0);
        assert_eq!(loaded(shared(LIFE), 1_000, 2), 900, "its whole life");
        assert_eq!(
            loaded(shared(MINUTE), 1_000, 400),
            90,
            "the wall clock and 30 s"
        );
        let mut ended = shared(MINUTE);
        if let Some(times) = &mut ended.times {
            times.wall_end = wall_now() - MINUTE;
        }
        assert_eq!(loaded(ended, 1_000, 400), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_an_operation_is_subtracted() {
        let sent = Instant::now();
        advance(Duration::from_secs(3)).await;
        let clock = StoreClock::new(&Loaded::absent(at(400)), sent, Instant::now());
        let loaded = TimedToken::loaded(&shared(LIFE), at(1_000), &clock);
        assert_eq!(left(loaded), 597);
        assert_eq!(clock.until(at(410)), Duration::from_secs(7));
        // Nor does a record get a later end when it is written.
        assert_eq!(clock.at(Instant::now()), at(400));
    }

    #[tokio::test(start_paused = true)]
    async fn times_survive_the_store() {
        let (start, wall) = (Instant::now(), wall_now());
        advance(Duration::from_secs(1)).await;
        let fetched = TimedToken::fetched(token(), start, wall).unwrap();
        assert_eq!(
            left(Some(fetched.clone())),
            899,
            "it counts from the token request"
        );
        let (one, other) = (clock_at(5), clock_at(5));
        let loaded = TimedToken::loaded(&fetched.shared(&one), at(10_000), &other).unwrap();
        let (sent, received) = (fetched.times.unwrap(), loaded.times.unwrap());
        // The store counts in milliseconds, so it is up to one of them earlier.
        for (sent, received) in [(sent.due, received.due), (sent.end, received.end)] {
            let earlier = sent.saturating_duration_since(received);
            assert!(received <= sent && earlier <= Duration::from_millis(1));
        }
        let window = start + Duration::from_secs(800)..=start + Duration::from_secs(845);
        assert!(window.contains(&sent.due), "as in a cache");
    }

    #[tokio::test(start_paused = true)]
    async fn age_and_due_time_of_the_source_are_kept() {
        let wall = wall_now();
        let old = token()
            .with_issued_at(wall - Duration::from_secs(300))
            .with_due_at(wall + Duration::from_secs(500));
        let times = TimedToken::fetched(old, Instant::now(), wall)
            .unwrap()
            .times
            .unwrap();
        assert_eq!(times.life, LIFE);
        let after = |it: Instant| it.saturating_duration_since(Instant::now()).as_secs_f64();
        assert_eq!(
            (after(times.due).round(), after(times.end).round()),
            (500.0, 600.0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_nobody_knows_is_not_shared() {
        let unnamed = AccessToken::new("token").unwrap();
        for token in [unnamed.clone(), unnamed.clone().with_ended_lifetime()] {
            assert!(TimedToken::fetched(token, Instant::now(), UNIX_EPOCH).is_none());
        }
        let unlimited = unnamed.without_expiry();
        let timed = TimedToken::fetched(unlimited, Instant::now(), UNIX_EPOCH).unwrap();
        assert!(timed.times.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_gets_the_whole_life_with_the_age() {
        let loaded = TimedToken::loaded(&shared(LIFE), at(1_000), &clock_at(400)).unwrap();
        let token = loaded.for_cache();
        let left = token
            .expires_at()
            .unwrap()
            .duration_since(wall_now())
            .unwrap();
        assert_eq!(left.as_secs_f64().round(), 600.0);
        let due = token.due_at().unwrap().duration_since(wall_now()).unwrap();
        assert_eq!(due.as_secs_f64().round(), 500.0);
        assert_eq!(token.lifetime(), Lifetime::Limited(LIFE));
    }
}
