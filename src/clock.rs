//! The clocks that decide when tokens expire. Only this module reads them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::sync::AtomicU64;

#[cfg(feature = "coarse-clock")]
mod coarse;

#[cfg(feature = "coarse-clock")]
pub use coarse::CoarseClock;

/// The time after which the wall clock is read again.
const WALL_READING: Duration = Duration::from_secs(1);

/// The two clocks that decide whether a token has expired.
///
/// The default reads tokio's monotonic clock, which `tokio::time::pause` stops in tests, and the
/// system's wall clock. Use another one to test suspended machines and jumps of the wall clock, or
/// to save time (`CoarseClock`, feature `coarse-clock`). Timers always use tokio's clock.
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since a fixed moment of any choice.
    ///
    /// It never decreases. It may stand still while the machine is suspended.
    fn monotonic(&self) -> Duration;

    /// Returns the system time, which may jump forward and back.
    fn wall(&self) -> SystemTime;
}

/// Reads the wall clock, for code outside of a cache.
pub(crate) fn wall_now() -> SystemTime {
    SystemTime::now()
}

/// A point in time by both clocks, each of which counts from a fixed moment of its own.
///
/// In whole nanoseconds, so that the hot path compares two integers. Their range is 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    monotonic: u64,
    wall: u64,
}

impl Moment {
    /// A deadline that is never reached.
    pub(crate) const NEVER: Self = Self {
        monotonic: u64::MAX,
        wall: u64::MAX,
    };

    #[cfg(test)]
    pub(crate) const fn new(monotonic: Duration, wall: Duration) -> Self {
        Self {
            monotonic: nanos(monotonic),
            wall: nanos(wall),
        }
    }

    pub(crate) fn monotonic(self) -> Duration {
        Duration::from_nanos(self.monotonic)
    }

    pub(crate) fn wall(self) -> Duration {
        Duration::from_nanos(self.wall)
    }

    #[cfg(test)]
    pub(crate) fn with_wall(self, wall: Duration) -> Self {
        Self {
            wall: nanos(wall),
            ..self
        }
    }

    pub(crate) fn plus(self, span: Duration) -> Self {
        let span = nanos(span);
        Self {
            monotonic: self.monotonic.saturating_add(span),
            wall: self.wall.saturating_add(span),
        }
    }

    /// Returns true if `deadline` has passed by at least one of the clocks.
    #[inline]
    pub(crate) fn has_reached(self, deadline: Self) -> bool {
        self.monotonic >= deadline.monotonic || self.wall >= deadline.wall
    }

    pub(crate) fn wall_time(self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(self.wall())
    }
}

/// A deadline by the monotonic clock that one thread sets and others read.
pub(crate) struct SharedDeadline(AtomicU64);

impl SharedDeadline {
    pub(crate) fn passed() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn set(&self, monotonic: Duration) {
        self.0.store(nanos(monotonic), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_ahead_of(&self, now: Moment) -> bool {
        now.monotonic < self.0.load(Ordering::Relaxed)
    }
}

/// Reads both clocks; on the hot path, the wall clock at most once a second.
///
/// Between readings, the wall time is the monotonic time plus the difference of the two clocks at
/// the last reading, which fits into one atomic integer.
pub(crate) struct Timeline {
    origin: Instant,
    clock: Option<Arc<dyn Clock>>,
    /// The monotonic time, in nanoseconds, at which the wall clock must be read again.
    next_reading: AtomicU64,
    /// Wall time minus monotonic time at the last reading, in nanoseconds.
    wall_offset: AtomicU64,
}

impl Timeline {
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Self {
        let timeline = Self {
            origin: Instant::now(),
            clock,
            next_reading: AtomicU64::new(0),
            wall_offset: AtomicU64::new(0),
        };
        timeline.read();
        timeline
    }

    /// Returns the current time. Reads the wall clock only if the last reading is 1 s old.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        let monotonic = self.monotonic();
        if monotonic >= self.next_reading.load(Ordering::Acquire) {
            return self.read();
        }
        Moment {
            monotonic,
            wall: monotonic.wrapping_add(self.wall_offset.load(Ordering::Relaxed)),
        }
    }

    /// Reads both clocks.
    pub(crate) fn read(&self) -> Moment {
        let monotonic = self.monotonic();
        let wall = self.wall();
        // Wrapping, since the wall time can be less than the monotonic time.
        self.wall_offset
            .store(wall.wrapping_sub(monotonic), Ordering::Relaxed);
        // Stored last and with Release: a thread that sees it also sees the new offset.
        self.next_reading.store(
            monotonic.saturating_add(nanos(WALL_READING)),
            Ordering::Release,
        );
        Moment { monotonic, wall }
    }

    #[inline]
    fn monotonic(&self) -> u64 {
        nanos(match &self.clock {
            None => Instant::now().saturating_duration_since(self.origin),
            Some(clock) => clock.monotonic(),
        })
    }

    fn wall(&self) -> u64 {
        let wall = match &self.clock {
            None => wall_now(),
            Some(clock) => clock.wall(),
        };
        nanos(wall.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").finish_non_exhaustive()
    }
}

/// Returns `span` in nanoseconds, at most half of `u64::MAX`: 292 years, less than
/// [`Moment::NEVER`].
#[inline]
const fn nanos(span: Duration) -> u64 {
    /// The maximum number of seconds, for which the multiplication below cannot overflow.
    const MAX_SECS: u64 = u64::MAX / 2 / 1_000_000_000;

    let secs = span.as_secs();
    if secs > MAX_SECS {
        return u64::MAX / 2;
    }
    secs * 1_000_000_000 + span.subsec_nanos() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Fake(Mutex<(Duration, Duration, u32)>);

    impl Clock for Arc<Fake> {
        fn monotonic(&self) -> Duration {
            self.0.lock().unwrap().0
        }

        fn wall(&self) -> SystemTime {
            let mut fake = self.0.lock().unwrap();
            fake.2 += 1;
            UNIX_EPOCH + fake.1
        }
    }

    impl Fake {
        fn set(&self, monotonic: Duration, wall: Duration) {
            let mut fake = self.0.lock().unwrap();
            (fake.0, fake.1) = (monotonic, wall);
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn reads_the_wall_clock_once_a_second() {
        let fake = Arc::new(Fake(Mutex::new((secs(5), secs(1_000), 0))));
        let timeline = Timeline::new(Some(Arc::new(Arc::clone(&fake))));
        for step in 0..100 {
            let now = Duration::from_millis(step * 30);
            fake.set(secs(5) + now, secs(1_000) + now);
            assert_eq!(
                timeline.now(),
                Moment::new(secs(5) + now, secs(1_000) + now)
            );
        }
        assert_eq!(
            fake.0.lock().unwrap().2,
            3,
            "one reading at 0 s, and one for each second that has passed"
        );
    }

    #[test]
    fn notices_a_jump_of_the_wall_clock_within_a_second() {
        let fake = Arc::new(Fake(Mutex::new((secs(0), secs(10_000), 0))));
        let timeline = Timeline::new(Some(Arc::new(Arc::clone(&fake))));
        for wall in [secs(13_600), secs(10), secs(13_600)] {
            let before = fake.monotonic();
            fake.set(before + secs(1), wall);
            assert_eq!(timeline.now().wall(), wall);
        }
    }

    #[test]
    fn deadline_passes_by_whichever_clock_is_first() {
        let deadline = Moment::new(secs(10), secs(1_010));
        let at = |monotonic, wall| Moment::new(secs(monotonic), secs(wall));
        assert!(!at(9, 1_009).has_reached(deadline));
        assert!(at(10, 900).has_reached(deadline));
        assert!(at(1, 1_010).has_reached(deadline));
        assert!(!at(u32::MAX.into(), u32::MAX.into()).has_reached(Moment::NEVER));
    }
}
