//! The system's coarse monotonic clock, which is faster to read.

use coarsetime::{Duration, Instant};

/// More than a tick of the clock of any system, in nanoseconds: 10 ms on Linux, 15.6 ms on Windows.
/// Added to a reading, it is not behind the exact time.
pub(super) const AHEAD: u64 = 20_000_000;

/// Reads the clock, in nanoseconds since a fixed moment.
#[inline]
pub(super) fn nanos() -> u64 {
    // `now` would also write to a shared variable, for which threads would contend.
    let now = Instant::now_without_cache_update();
    Duration::from_ticks(now.as_ticks()).as_nanos()
}
