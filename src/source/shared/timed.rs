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
