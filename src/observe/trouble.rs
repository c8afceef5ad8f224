//! Troubles of a source that last longer than one fetch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::observe::{Event, Observer, Observers};

/// A trouble of a source. The observers of each cache that meets it get one event when it begins,
/// and one when it ends.
///
/// A source reports it with the observers of [`FetchContext`](crate::FetchContext): it is below the
/// cache, and several caches may use it.
#[derive(Default)]
pub(crate) struct Trouble(Mutex<Vec<WeakObservers>>);

/// The observers of a cache that may have been dropped.
type WeakObservers = Weak<[Box<dyn Observer>]>;

impl Trouble {
    /// Emits the event to these observers, unless they know of the trouble. Called without a lock.
    pub(crate) fn begin<'a>(&self, observers: &Observers, event: impl FnOnce() -> Event<'a>) {
        if !observers.is_empty() && self.add(observers) {
            observers.emit(event);
        }
    }

    /// Emits the event to all observers that know of the trouble. Called without a lock.
    pub(crate) fn end<'a>(&self, event: impl Fn() -> Event<'a>) {
        let told = std::mem::take(&mut *self.lock());
        for observers in told.iter().filter_map(Weak::upgrade) {
            Observers(observers).emit(&event);
        }
    }

    /// Returns true if these observers did not know of it.
    fn add(&self, observers: &Observers) -> bool {
        let observers = Arc::downgrade(&observers.0);
        let mut told = self.lock();
        // Those of caches that were dropped.
        told.retain(|it| it.strong_count() > 0);
        let is_new = !told.iter().any(|it| it.ptr_eq(&observers));
        if is_new {
            told.push(observers);
        }
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WeakObservers>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
