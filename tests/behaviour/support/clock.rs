//! Time in the tests' own hands.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bearer_auth::Clock;

/// A clock that is set by hand.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<Mutex<(Duration, Duration)>>);

impl HandClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((
            Duration::from_secs_f64(0.0),
            Duration::from_secs_f64(1_800_000_000.0),
        ))))
    }

    pub(crate) fn tick(&self, monotonic: f64, wall: f64) {
        let mut clock = self.0.lock().unwrap();
        clock.0 += Duration::from_secs_f64(monotonic);
        clock.1 = Duration::from_secs_f64(clock.1.as_secs_f64() + wall);
    }
}

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().0
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + self.0.lock().unwrap().1
    }
}
