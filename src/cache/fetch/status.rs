//! The status of a fetch, which its callers watch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::cache::cached_token::CachedToken;
use crate::error::TokenError;

/// The status of a fetch, as its callers see it.
#[derive(Clone, Debug)]
pub(crate) enum FetchStatus {
    /// Waits for a slot. The time limit of the fetch begins with the slot.
    Queued,
    Running {
        deadline: Instant,
    },
    Finished(Result<Arc<CachedToken>, TokenError>),
    /// The token was rejected in the meantime, or the request was forgotten.
    Discarded,
    /// The time limit passed without an outcome, since nobody polls the runtime of the fetch.
    Overdue,
    /// The task was dropped with its runtime.
    Lost,
}

/// A status that changes, and the callers that wait for a change.
///
/// Callers are woken in the order in which they came, which is mostly the order of their memory.
/// tokio's `watch` wakes them in random order: ten thousand of them then take twice the time.
pub(super) struct SharedStatus {
    status: Mutex<FetchStatus>,
    changes: Notify,
}

impl SharedStatus {
    pub(super) fn queued() -> Self {
        Self {
            status: Mutex::new(FetchStatus::Queued),
            changes: Notify::const_new(),
        }
    }

    /// Calls `look` with the status, under its lock.
    pub(super) fn inspect<R>(&self, look: impl FnOnce(&FetchStatus) -> R) -> R {
        look(&self.lock())
    }

    /// Returns a future that ends at the next change after this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changes.notified()
    }

    /// Changes the status.
    pub(super) fn set(&self, status: FetchStatus) {
        let before = std::mem::replace(&mut *self.lock(), status);
        // Dropped without the lock: it may hold the last reference to a token.
        drop(before);
        self.changes.notify_waiters();
    }

    /// Changes the status unless the fetch has ended.
    pub(super) fn end_as(&self, end: FetchStatus) {
        let mut status = self.lock();
        if status.is_pending() {
            *status = end;
            drop(status);
            self.changes.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, FetchStatus> {
        // Nothing panics while the lock is held.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchStatus {
    fn is_pending(&self) -> bool {
        matches!(self, Self::Queued | Self::Running { .. })
    }
}
