//! A clock that takes less time to read.

use std::time::{Duration, SystemTime};

use coarsetime::Instant;

use crate::clock::Clock;

/// A [`Clock`] for those who count nanoseconds: the system's coarse monotonic clock and its wall clock.
///
/// A reading (by the crate `coarsetime`) takes about a third of the time that the default's takes, and is late
/// by up to the system's tick: on Linux 1 to 10 ms. That is little beside the margin by which tokens
/// expire early; only lives of 1 or 2 s have no margin. It does not stop when `tokio::time::pause` stops
/// tokio's clock, so leave it out of tests that pass time that way.
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
        // Without a write to the crate's shared latest reading, which threads would contend for.
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

    /// The longest tick of the systems that have one, and what the test itself may be held up by.
    const TICK: Duration = Duration::from_millis(20);

    #[test]
    fn goes_on_as_time_does() {
        let (exact, coarse) = (Exact::now(), CoarseClock.monotonic());
        let mut last = coarse;
        while exact.elapsed() < 3 * TICK {
            let now = CoarseClock.monotonic();
            assert!(now >= last, "{now:?} after {last:?}");
            last = now;
        }
        // Read last, so that it can't have gone on less.
        let gone = CoarseClock.monotonic() - coarse;
        let most = exact.elapsed() + TICK;
        assert!(
            gone >= 2 * TICK && gone <= most,
            "{gone:?}, at most {most:?}"
        );
    }

    #[test]
    fn the_wall_clock_is_the_systems() {
        let (before, wall, after) = (SystemTime::now(), CoarseClock.wall(), SystemTime::now());
        assert!(before <= wall && wall <= after);
    }
}
