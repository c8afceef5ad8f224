//! A clock that is faster to read.

use std::time::{Duration, SystemTime};

use coarsetime::Instant;

use crate::clock::Clock;

/// A faster [`Clock`]: the system's coarse monotonic clock, and its wall clock.
///
/// Reading it (with the crate `coarsetime`) takes about a third of the time that the default clock
/// takes. The result is late by up to one tick of the system, which is 1 to 10 ms on Linux. The
/// margin by which tokens expire early is much larger; only lifetimes of 1 or 2 s have no margin.
///
/// `tokio::time::pause` does not stop this clock: do not use it in tests that pause tokio's.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, CoarseClock, StaticTokenSource, TokenCache};
///
/// let cache = TokenCache::builder(StaticTokenSource::new("opaque")?)
///     .clock(CoarseClock)
///     .build()?;
/// let layer = BearerAuthLayer::from_cache(cache).allow_origin("https://api.example.com")?;
/// # let _ = layer;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CoarseClock;

impl Clock for CoarseClock {
    #[inline]
    fn monotonic(&self) -> Duration {
        // `now` would also write to a shared variable, for which threads would contend.
        let now = Instant::now_without_cache_update();
        coarsetime::Duration::from_ticks(now.as_ticks()).into()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant as Exact;

    use super::*;

    /// The longest tick of any system, plus a margin for delays of the test itself.
    const TICK: Duration = Duration::from_millis(20);

    #[test]
    fn keeps_pace_with_the_exact_clock() {
        let (exact, coarse) = (Exact::now(), CoarseClock.monotonic());
        let mut last = coarse;
        while exact.elapsed() < 3 * TICK {
            let now = CoarseClock.monotonic();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
        }
        let elapsed = CoarseClock.monotonic() - coarse;
        // The exact clock is read last, so that its time is the longer one.
        let max = exact.elapsed() + TICK;
        assert!(
            elapsed >= 2 * TICK && elapsed <= max,
            "{elapsed:?}, at most {max:?}"
        );
    }

    #[test]
    fn wall_clock_is_the_system_clock() {
        let (before, wall, after) = (SystemTime::now(), CoarseClock.wall(), SystemTime::now());
        assert!(before <= wall && wall <= after);
    }
}
