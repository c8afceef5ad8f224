//! A clock for tests on real time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bearer_auth::Clock;

/// A clock that moves only when a test advances it.
#[derive(Clone)]
pub(crate) struct ManualClock(Arc<Mutex<(Duration, Duration)>>);

impl ManualClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((
            Duration::ZERO,
            Duration::from_secs(1_800_000_000),
        ))))
    }

    /// Advances each time by so many seconds. The wall clock may also go backwards.
    pub(crate) fn advance(&self, monotonic: f64, wall: f64) {
        let mut clock = self.0.lock().unwrap();
        clock.0 += Duration::from_secs_f64(monotonic);
        clock.1 = Duration::from_secs_f64(clock.1.as_secs_f64() + wall);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().0
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.0.lock().unwrap().1
    }
}
