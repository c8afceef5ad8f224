//! The reports to observers about the store.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::observe::trouble::Trouble;
use crate::observe::{Event, Observers, StoreFault};
use crate::source::shared::breaker::Guarded;

/// The longest time for which a record that cannot be opened counts.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Tells the observers of each cache when this process works alone, and when it does no longer.
#[derive(Default)]
pub(super) struct Reports {
    failing: Trouble,
    unknown_key: Trouble,
    /// The last end of all records that could not be opened. Until then, the others that can be do
    /// not mean that the fault is over.
    unknown_until: Mutex<Option<Instant>>,
}

impl Reports {
    /// Reports the state of the store after an operation. Called without a lock.
    pub(super) fn store(&self, store: &Guarded, observers: &Observers) {
        let fault = StoreFault::Failing;
        match store.outage() {
            Some(error) => self.failing.begin(observers, || Event::StoreUnavailable {
                fault,
                error: Some(&error as &(dyn Error + Send + Sync)),
            }),
            None => self.failing.end(|| Event::StoreAvailable { fault }),
        }
    }

    /// Reports a record that cannot be opened, and the time that it has left. Called without a
    /// lock.
    pub(super) fn unknown_key(&self, left: Duration, observers: &Observers) {
        let end = Instant::now() + left.min(LONGEST);
        self.change(|until| *until = (*until).max(Some(end)));
        let fault = StoreFault::UnknownKey;
        self.unknown_key
            .begin(observers, || Event::StoreUnavailable { fault, error: None });
    }

    /// Reports a key without such a record. Called without a lock.
    pub(super) fn known_key(&self) {
        let now = Instant::now();
        let is_over = self.change(|until| until.take_if(|until| *until <= now).is_some());
        if is_over {
            let fault = StoreFault::UnknownKey;
            self.unknown_key.end(|| Event::StoreAvailable { fault });
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Option<Instant>) -> T) -> T {
        let until = self.unknown_until.lock();
        change(&mut until.unwrap_or_else(PoisonError::into_inner))
    }
}
