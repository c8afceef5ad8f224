//! A caller that waits for a fetch.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::cache::cached_token::CachedToken;
use crate::cache::fetch::runtime::within;
use crate::cache::fetch::{FetchOwner, FetchStatus, Fetcher};
use crate::cache::state::FetchId;
use crate::error::TokenError;

/// The time that callers wait beyond the limit of the fetch: the fetch itself reports its timeout
/// first, unless its runtime is no longer polled.
pub(super) const WAIT_MARGIN: Duration = Duration::from_millis(250);

/// A caller that waits for a fetch.
pub(crate) struct Waiter {
    fetch: FetchId,
    owner: Weak<dyn FetchOwner>,
    status: watch::Receiver<FetchStatus>,
    /// Counts the waiters.
    _waiting: Arc<()>,
}

/// The end of a wait.
pub(crate) enum Waited {
    Finished(Result<Arc<CachedToken>, TokenError>),
    /// The token was rejected in the meantime: decide again.
    Discarded,
    /// The task of the fetch was dropped with its runtime: decide again.
    Lost,
}

/// The longest time to wait for a change of the status.
struct Patience {
    until: Instant,
    /// A queued fetch is looked at again after that time, a running one is abandoned.
    is_queued: bool,
}

impl Waiter {
    pub(super) fn new(
        fetch: FetchId,
        owner: Weak<dyn FetchOwner>,
        status: watch::Receiver<FetchStatus>,
        waiting: Arc<()>,
    ) -> Self {
        Self {
            fetch,
            owner,
            status,
            _waiting: waiting,
        }
    }

    /// Waits until the fetch has finished, is lost, or is overdue by this caller's own timer.
    ///
    /// Thousands of callers may wait, so the future is kept small: steps without an await are not
    /// in it, and each awaited value is stored once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the fetch continues.
    pub(crate) async fn wait(&mut self, fetcher: &Fetcher) -> Result<Waited, TokenError> {
        loop {
            let patience = match self.check(fetcher) {
                ControlFlow::Break(waited) => return Ok(waited),
                ControlFlow::Continue(patience) => patience,
            };
            // `?` would reserve space for a second copy of the future.
            let change = match within(patience.until, self.status.changed()) {
                Ok(change) => change,
                Err(error) => return Err(error),
            };
            match change.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    // The task has abandoned the fetch; if it has not, this prevents a busy loop.
                    self.abandon();
                    return Ok(Waited::Lost);
                }
                Err(_) if patience.is_queued => {}
                Err(_) => {
                    self.abandon();
                    return Err(TokenError::timeout(fetcher.fetch_timeout));
                }
            }
        }
    }

    /// Returns true if every caller would have abandoned the fetch by now.
    pub(crate) fn is_overdue(&self) -> bool {
        match *self.status.borrow() {
            FetchStatus::Running { deadline } => deadline + WAIT_MARGIN < Instant::now(),
            FetchStatus::Queued | FetchStatus::Finished(_) | FetchStatus::Discarded => false,
        }
    }

    /// Ends the fetch without an outcome, for all callers.
    pub(crate) fn abandon(&self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.abandon(self.fetch);
        }
    }

    /// Returns the end of the wait, or how long to wait for a change.
    fn check(&mut self, fetcher: &Fetcher) -> ControlFlow<Waited, Patience> {
        let status = self.status.borrow_and_update().clone();
        match status {
            FetchStatus::Finished(result) => ControlFlow::Break(Waited::Finished(result)),
            FetchStatus::Discarded => ControlFlow::Break(Waited::Discarded),
            FetchStatus::Queued => {
                let now = Instant::now();
                // Done now, since this caller may not stay for the whole time limit of a fetch.
                fetcher.limiter.abandon_overdue(now);
                let first_deadline = fetcher.limiter.first_deadline();
                ControlFlow::Continue(Patience {
                    until: first_deadline.unwrap_or(now + fetcher.fetch_timeout) + WAIT_MARGIN,
                    is_queued: true,
                })
            }
            FetchStatus::Running { deadline } => ControlFlow::Continue(Patience {
                until: deadline + WAIT_MARGIN,
                is_queued: false,
            }),
        }
    }
}

#[cfg(all(test, bearer_auth_model))]
impl Waiter {
    pub(crate) fn fetch(&self) -> FetchId {
        self.fetch
    }

    pub(crate) fn status(&self) -> FetchStatus {
        self.status.borrow().clone()
    }
}
