//! The clocks that decide when tokens expire. Only this module reads them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{self, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::observe::ClockStep;
use crate::sync::AtomicU64;

#[cfg(not(target_family = "wasm"))]
mod coarse;

/// The time after which the wall clock is read again.
const WALL_READING: Duration = Duration::from_secs(1);
/// The smallest step of the wall clock that is reported. Time servers correct less without a step.
const MIN_STEP: Duration = Duration::from_secs(5);
/// Covers paused clocks that are behind the one that a timeline was created with.
const ORIGIN_SLACK: Duration = Duration::from_secs(24 * 60 * 60);

/// The two clocks that decide whether a token has expired.
///
/// The default reads the system's clocks. With the feature `test-util`, which `mock` and
/// `mock-server` enable, it reads tokio's monotonic clock, which `tokio::time::pause` stops in
/// tests. Use another one to test suspended machines and jumps of the wall clock. Timers always
/// use tokio's clock.
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
    /// Has been reached at any time.
    pub(crate) const PAST: Self = Self {
        monotonic: 0,
        wall: 0,
    };

    /// Is not reached.
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

    /// Returns a time that only the monotonic clock reaches.
    pub(crate) fn by_monotonic(monotonic: Duration) -> Self {
        Self {
            monotonic: nanos(monotonic),
            wall: 0,
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

    /// Returns the time until `deadline`, by the clock that reaches it first.
    pub(crate) fn until(self, deadline: Self) -> Duration {
        let monotonic = deadline.monotonic.saturating_sub(self.monotonic);
        let wall = deadline.wall.saturating_sub(self.wall);
        Duration::from_nanos(monotonic.min(wall))
    }

    pub(crate) fn wall_time(self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(self.wall())
    }
}

/// A point in time that one thread sets and others read.
///
/// The two clocks are stored one after the other. A reader in between sees one of them as it was,
/// which is as if it had come a moment earlier or later.
pub(crate) struct SharedMoment {
    // std's also in a model, which would take minutes longer: these only save callers a decision.
    monotonic: atomic::AtomicU64,
    wall: atomic::AtomicU64,
}

impl SharedMoment {
    pub(crate) fn new(moment: Moment) -> Self {
        Self {
            monotonic: atomic::AtomicU64::new(moment.monotonic),
            wall: atomic::AtomicU64::new(moment.wall),
        }
    }

    pub(crate) fn set(&self, moment: Moment) {
        self.monotonic.store(moment.monotonic, Ordering::Relaxed);
        self.wall.store(moment.wall, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> Moment {
        Moment {
            monotonic: self.monotonic.load(Ordering::Relaxed),
            wall: self.wall.load(Ordering::Relaxed),
        }
    }
}

/// The clocks that a timeline reads.
enum Source {
    /// tokio's monotonic clock, which tests can pause.
    #[cfg(feature = "test-util")]
    Pausable,
    System,
    Custom(Arc<dyn Clock>),
}

/// Reads both clocks; on the hot path, the wall clock at most once a second.
///
/// Between readings, the wall time is the monotonic time plus the difference of the two clocks at
/// the last reading, which fits into one atomic integer.
///
/// tokio's clock can go back: from the advanced clock of one test runtime to that of the next. The
/// timeline then continues where it was, so that nothing comes to life again or stays paused.
pub(crate) struct Timeline {
    /// A time that the clock of no runtime is behind.
    origin: Instant,
    source: Source,
    /// The monotonic time of the last reading of the wall clock.
    last_reading: AtomicU64,
    /// Wall time minus monotonic time at the last reading.
    wall_offset: AtomicU64,
    /// The sum of the steps by which the monotonic clock went back.
    gone_back: AtomicU64,
    /// Monotonic time minus the time by the coarse clock at the last reading, plus `AHEAD`.
    #[cfg(not(target_family = "wasm"))]
    coarse_offset: AtomicU64,
    /// Wall time minus steady time when [`take_step`](Self::take_step) was called last.
    steady_offset: atomic::AtomicU64,
}

impl Timeline {
    /// Creates a timeline of this clock, or of the default one.
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Self {
        Self::of(match clock {
            Some(clock) => Source::Custom(clock),
            #[cfg(feature = "test-util")]
            None => Source::Pausable,
            #[cfg(not(feature = "test-util"))]
            None => Source::System,
        })
    }

    /// Creates a timeline of the system's clocks.
    pub(crate) fn system() -> Self {
        Self::of(Source::System)
    }

    fn of(source: Source) -> Self {
        // The paused clock of a runtime can be behind the system's, and an advanced one ahead of
        // it.
        let now = tokio::time::Instant::now().into_std().min(Instant::now());
        let timeline = Self {
            origin: now.checked_sub(ORIGIN_SLACK).unwrap_or(now),
            source,
            last_reading: AtomicU64::new(0),
            wall_offset: AtomicU64::new(0),
            gone_back: AtomicU64::new(0),
            #[cfg(not(target_family = "wasm"))]
            coarse_offset: AtomicU64::new(0),
            steady_offset: atomic::AtomicU64::new(0),
        };
        let offset = timeline.read().wall.wrapping_sub(timeline.steady());
        timeline.steady_offset.store(offset, Ordering::Relaxed);
        timeline
    }

    /// Reads the monotonic clock, and the wall clock if its last reading is over a second old.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        self.complete(self.monotonic())
    }

    /// Returns a time that is not behind `now`, and at most 40 ms ahead of it.
    ///
    /// It takes a third of the time, since the system's coarse clock is enough for it. What has
    /// not been reached by then has not been reached now.
    ///
    /// A virtual machine whose host does not run the CPU that updates the coarse clock may be
    /// behind for as long, some ten milliseconds. A caller may stall for as long after it has read
    /// an exact clock, and a token is due long before it expires.
    #[inline]
    pub(crate) fn now_or_ahead(&self) -> Moment {
        #[cfg(not(target_family = "wasm"))]
        if let Source::System = self.source {
            let coarse = coarse::nanos();
            return self.complete(coarse.wrapping_add(self.coarse_offset.load(Ordering::Relaxed)));
        }
        self.now()
    }

    #[inline]
    fn complete(&self, monotonic: u64) -> Moment {
        // Wraps to a large number if the clock went back.
        let age = monotonic.wrapping_sub(self.last_reading.load(Ordering::Acquire));
        if age >= nanos(WALL_READING) {
            return self.read();
        }
        Moment {
            monotonic,
            wall: monotonic.wrapping_add(self.wall_offset.load(Ordering::Relaxed)),
        }
    }

    /// Reads both clocks.
    pub(crate) fn read(&self) -> Moment {
        let mut monotonic = self.monotonic();
        let last = self.last_reading.load(Ordering::Acquire);
        // By less than that, another thread has only been faster.
        if monotonic.saturating_add(nanos(WALL_READING)) < last {
            let gone_back = self.gone_back.load(Ordering::Relaxed);
            let step = last - monotonic;
            // If another thread has corrected it at the same time, its correction stands.
            let _ = self.gone_back.compare_exchange(
                gone_back,
                gone_back.wrapping_add(step),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            monotonic = self.monotonic();
        }
        let wall = self.wall();
        #[cfg(not(target_family = "wasm"))]
        if let Source::System = self.source {
            let offset = (monotonic + coarse::AHEAD).wrapping_sub(coarse::nanos());
            self.coarse_offset.store(offset, Ordering::Relaxed);
        }
        // Wrapping handles a wall clock that is before the monotonic origin.
        self.wall_offset
            .store(wall.wrapping_sub(monotonic), Ordering::Relaxed);
        // Release: a thread that sees the time of this reading also sees its result.
        self.last_reading.store(monotonic, Ordering::Release);
        Moment { monotonic, wall }
    }

    /// Returns the step by which the wall clock was set since the last call, if it is large.
    pub(crate) fn take_step(&self) -> Option<ClockStep> {
        let offset = self.wall().wrapping_sub(self.steady());
        let last = self.steady_offset.swap(offset, Ordering::Relaxed);
        // Wraps: a negative step is a large number.
        let step = offset.wrapping_sub(last).cast_signed();
        let size = Duration::from_nanos(step.unsigned_abs());
        match step {
            _ if size < MIN_STEP => None,
            0.. => Some(ClockStep::Forward(size)),
            _ => Some(ClockStep::Back(size)),
        }
    }

    /// Returns the monotonic time that steps of the wall clock are measured by: not tokio's, which
    /// tests pause and advance while the wall clock runs on.
    fn steady(&self) -> u64 {
        match &self.source {
            Source::Custom(clock) => nanos(clock.monotonic()),
            _ => Instant::now()
                .saturating_duration_since(self.origin)
                .as_nanos() as u64,
        }
    }

    #[inline]
    fn monotonic(&self) -> u64 {
        let now = match &self.source {
            #[cfg(feature = "test-util")]
            Source::Pausable => tokio::time::Instant::now().into_std(),
            Source::System => Instant::now(),
            Source::Custom(clock) => return self.forward(nanos(clock.monotonic())),
        };
        // No process runs for 584 years.
        self.forward(now.saturating_duration_since(self.origin).as_nanos() as u64)
    }

    /// Adds the steps by which the clock went back.
    #[inline]
    fn forward(&self, monotonic: u64) -> u64 {
        monotonic.wrapping_add(self.gone_back.load(Ordering::Relaxed))
    }

    fn wall(&self) -> u64 {
        let wall = match &self.source {
            Source::Custom(clock) => clock.wall(),
            _ => wall_now(),
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

    /// Without the time that is added to it, half of the readings would be behind.
    #[test]
    fn the_faster_reading_is_a_little_ahead_unless_the_machine_stalls() {
        let timeline = Timeline::system();
        let end = Instant::now() + Duration::from_millis(1_500);
        let (mut readings, mut behind) = (0, 0);
        while Instant::now() < end {
            let before = timeline.now();
            let ahead = timeline.now_or_ahead();
            let after = timeline.now();
            readings += 1;
            behind += u32::from(!ahead.has_reached(before));
            for (before, ahead, after) in [
                (before.monotonic(), ahead.monotonic(), after.monotonic()),
                (before.wall(), ahead.wall(), after.wall()),
            ] {
                let second = Duration::from_secs(1);
                let is_near = before < ahead + second && ahead < after + second;
                assert!(is_near, "{ahead:?} between {before:?} and {after:?}");
            }
        }
        assert!(behind * 5 < readings, "{behind} of {readings}");
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
    fn reports_each_large_step_of_the_wall_clock_once() {
        let fake = Arc::new(Fake(Mutex::new((secs(0), secs(10_000), 0))));
        let timeline = Timeline::new(Some(Arc::new(Arc::clone(&fake))));
        let step = |monotonic, wall| {
            fake.set(secs(monotonic), secs(wall));
            timeline.take_step()
        };
        assert_eq!(step(1_000, 11_000), None);
        assert_eq!(step(1_001, 11_005), None, "less than 5 s");
        assert_eq!(step(1_002, 7_406), Some(ClockStep::Back(secs(3_600))));
        assert_eq!(step(1_003, 7_407), None);
        assert_eq!(step(1_003, 7_412), Some(ClockStep::Forward(secs(5))));
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
