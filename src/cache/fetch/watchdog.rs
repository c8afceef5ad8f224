//! The end of overdue fetches.
//!
//! A fetch ends itself at its time limit, unless nobody polls its runtime. A watchdog on the
//! runtime of the callers ends it then. All callers on that runtime share it: with thousands of
//! them, a timer for each would cost more than anything else that they do while they wait.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, timeout_at};

use crate::cache::fetch::limiter::FetchLimiter;
use crate::cache::fetch::status::SharedStatus;
use crate::cache::fetch::waiter::WAIT_MARGIN;
use crate::cache::fetch::{FetchStatus, Fetcher, Identity};

/// The time after the next change among running fetches at which queued ones look again.
const CHECK_MARGIN: Duration = Duration::from_millis(1);

/// The watch over one fetch on one runtime.
///
/// It holds the fetch weakly: it must not keep a fetch from being evicted, and ends with it.
pub(super) struct Watchdog {
    fetch: Weak<Identity>,
    runtime: Id,
    status: Arc<SharedStatus>,
    limiter: Arc<FetchLimiter>,
    fetch_timeout: Duration,
}

impl Watchdog {
    /// Starts a watchdog on this runtime, unless the fetch has one there.
    pub(super) fn ensure(fetch: &Arc<Identity>, runtime: &Handle, fetcher: &Fetcher) {
        let id = runtime.id();
        let mut watched_on = fetch
            .watched_on
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if watched_on.contains(&id) {
            return;
        }
        watched_on.push(id);
        // Before the task is spawned: a runtime that is shutting down drops it at once.
        drop(watched_on);
        let watchdog = Self {
            fetch: Arc::downgrade(fetch),
            runtime: id,
            status: Arc::clone(&fetch.status),
            limiter: Arc::clone(&fetcher.limiter),
            fetch_timeout: fetcher.fetch_timeout,
        };
        runtime.spawn(watchdog.run());
    }

    async fn run(self) {
        loop {
            // Before the look at the status, so that no change is missed.
            let changed = self.status.changed();
            let ControlFlow::Continue((until, is_running)) = self.check() else {
                return;
            };
            let is_over = timeout_at(until, changed).await.is_err();
            if is_over && is_running {
                if let Some(fetch) = self.fetch.upgrade() {
                    fetch.abandon();
                }
                return;
            }
        }
    }

    /// Returns the time of the next check, and true if the fetch is overdue then.
    fn check(&self) -> ControlFlow<(), (Instant, bool)> {
        match self.status.inspect(FetchStatus::clone) {
            FetchStatus::Queued => {}
            FetchStatus::Running { deadline } => {
                return ControlFlow::Continue((deadline + WAIT_MARGIN, true));
            }
            _ => return ControlFlow::Break(()),
        }
        // Without the lock of the status, which a fetch that starts changes.
        let now = Instant::now();
        self.limiter.check(now);
        let next = self.limiter.next_check();
        let until = next.unwrap_or(now + self.fetch_timeout) + CHECK_MARGIN;
        ControlFlow::Continue((until, false))
    }
}

impl Drop for Watchdog {
    /// Lets the next caller start another one, should this one end with its runtime.
    fn drop(&mut self) {
        if let Some(fetch) = self.fetch.upgrade() {
            let mut watched_on = fetch
                .watched_on
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            watched_on.retain(|id| *id != self.runtime);
        }
    }
}
