//! A caller that waits for a fetch.

use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, Timeout};

use crate::cache::cached_token::CachedToken;
use crate::cache::fetch::chain::FetchChain;
use crate::cache::fetch::runtime::within;
use crate::cache::fetch::{FetchStatus, Fetcher, Identity};
use crate::error::TokenError;

/// The time that callers wait beyond the limit of the fetch: the fetch itself reports its timeout
/// first, unless its runtime is no longer polled.
pub(super) const WAIT_MARGIN: Duration = Duration::from_millis(250);

/// The time after the next change among running fetches at which queued ones look again.
const CHECK_MARGIN: Duration = Duration::from_millis(1);

/// A caller that waits for a fetch.
pub(crate) struct Waiter {
    fetch: Arc<Identity>,
    status: watch::Receiver<FetchStatus>,
    /// A late token, and the time from which it is used instead of waiting on.
    fallback: Option<Box<(Arc<CachedToken>, Instant)>>,
}

/// The end of a wait.
pub(crate) enum Waited {
    Finished(Arc<CachedToken>),
    /// The token was rejected in the meantime: decide again.
    Discarded,
    /// The task of the fetch was dropped with its runtime: decide again.
    Lost,
}

/// The longest time to wait for a change of the status, and what follows then.
struct Patience {
    until: Instant,
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The fetch is queued: look at it again.
    CheckAgain,
    /// The fetch is overdue: abandon it.
    Abandon,
    /// The caller has a late token: use that.
    UseFallback,
    /// The caller has waited for long enough.
    GiveUp,
}

/// The wait of one caller, which may be for several fetches.
pub(crate) struct Wait {
    pub(crate) since: Instant,
    /// The generation that was rejected, if the caller has a rejection at hand. It returns that
    /// rather than queue for long.
    pub(crate) rejected: Option<NonZeroU64>,
}

/// The longest wait for a slot of a caller that has a rejection at hand.
const SLOT_WAIT: Duration = Duration::from_secs(1);

impl Waiter {
    pub(super) fn new(
        fetch: Arc<Identity>,
        status: watch::Receiver<FetchStatus>,
        fallback: Option<(Arc<CachedToken>, Instant)>,
    ) -> Self {
        Self {
            fetch,
            status,
            fallback: fallback.map(Box::new),
        }
    }

    /// Waits until the fetch has finished, is lost, or is overdue by this caller's own timer. A
    /// caller with a late token waits no longer than that is worth.
    ///
    /// Thousands of callers may wait, so the future is kept small: steps without an await are not
    /// in it, and each awaited value is stored once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the fetch continues.
    pub(crate) async fn wait(
        &mut self,
        fetcher: &Fetcher,
        wait: &Wait,
    ) -> Result<Waited, TokenError> {
        loop {
            let patience = match self.check(fetcher, wait) {
                ControlFlow::Break(waited) => return waited,
                ControlFlow::Continue(patience) => patience,
            };
            // `?` would reserve space for a second copy of the future, and so would an await here.
            let change = match timer(fetcher, patience.until, self.status.changed()) {
                Ok(change) => change,
                Err(error) => return fall_back(self.fallback.as_deref(), error, fetcher),
            };
            match change.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    // The task has abandoned the fetch; if it has not, this prevents a busy loop.
                    self.abandon();
                    let has_waited = wait.since.elapsed();
                    if has_waited >= fetcher.fetch_timeout {
                        return self.fail(TokenError::timeout(fetcher.fetch_timeout), fetcher);
                    }
                    return Ok(Waited::Lost);
                }
                Err(_) if patience.then == Then::CheckAgain => {}
                // The late token has expired: the caller waits as one without a token does.
                Err(_) if patience.then == Then::UseFallback && self.has_expired(fetcher) => {
                    self.fallback = None;
                }
                Err(_) => {
                    let limit = match patience.then {
                        Then::GiveUp => fetcher.wait_timeout,
                        _ => fetcher.fetch_timeout,
                    };
                    if patience.then == Then::Abandon {
                        self.abandon();
                    }
                    return self.fail(TokenError::timeout(limit), fetcher);
                }
            }
        }
    }

    /// Ends the wait with an error or, if there is a fallback that has not expired, with that.
    pub(crate) fn fail(&self, error: TokenError, fetcher: &Fetcher) -> Result<Waited, TokenError> {
        fall_back(self.fallback.as_deref(), error, fetcher)
    }

    /// Returns true if the fallback has expired.
    fn has_expired(&self, fetcher: &Fetcher) -> bool {
        let now = fetcher.timeline.now();
        self.fallback
            .as_deref()
            .is_some_and(|(token, _)| token.has_expired(now))
    }

    /// Returns true if every caller would have abandoned the fetch by now.
    pub(crate) fn is_overdue(&self) -> bool {
        match *self.status.borrow() {
            FetchStatus::Running { deadline } => deadline + WAIT_MARGIN < Instant::now(),
            FetchStatus::Queued | FetchStatus::Finished(_) | FetchStatus::Discarded => false,
        }
    }

    /// Returns true if the caller runs within a fetch of the same entry, which waits for the
    /// caller.
    pub(crate) fn is_cycle(&self) -> bool {
        FetchChain::current().is_some_and(|chain| chain.contains(&self.fetch.owner))
    }

    /// Ends the fetch without an outcome, for all callers.
    pub(crate) fn abandon(&self) {
        self.fetch.abandon();
    }

    /// Returns the end of the wait, or how long to wait for a change.
    fn check(
        &mut self,
        fetcher: &Fetcher,
        wait: &Wait,
    ) -> ControlFlow<Result<Waited, TokenError>, Patience> {
        let status = self.status.borrow_and_update().clone();
        let patience = match status {
            // A caller that is polled late must not get a token that was rejected meanwhile.
            FetchStatus::Finished(Ok(token)) if token.is_valid() => {
                return ControlFlow::Break(Ok(Waited::Finished(token)));
            }
            FetchStatus::Finished(Ok(_)) | FetchStatus::Discarded => {
                return ControlFlow::Break(Ok(Waited::Discarded));
            }
            FetchStatus::Finished(Err(error)) => {
                return ControlFlow::Break(self.fail(error, fetcher));
            }
            FetchStatus::Queued => {
                let now = Instant::now();
                // Done now, since this caller may not stay for the whole time limit of a fetch.
                fetcher.limiter.check(now);
                let next = fetcher.limiter.next_check();
                let patience = Patience {
                    until: next.unwrap_or(now + fetcher.fetch_timeout) + CHECK_MARGIN,
                    then: Then::CheckAgain,
                };
                if wait.rejected.is_some() {
                    patience.or(wait.since + SLOT_WAIT, Then::GiveUp)
                } else {
                    patience
                }
            }
            FetchStatus::Running { deadline } => Patience {
                until: deadline + WAIT_MARGIN,
                then: Then::Abandon,
            },
        };
        let patience = patience.or(wait.since + fetcher.wait_timeout, Then::GiveUp);
        ControlFlow::Continue(match self.fallback.as_deref() {
            Some((_, until)) => patience.or(*until, Then::UseFallback),
            None => patience,
        })
    }
}

impl Patience {
    /// Returns the patience that ends first.
    fn or(self, until: Instant, then: Then) -> Self {
        if until < self.until {
            Self { until, then }
        } else {
            self
        }
    }
}

/// Limits `future` by a timer of the runtime that the settings name, or of the caller's.
pub(crate) fn timer<F: Future>(
    fetcher: &Fetcher,
    deadline: Instant,
    future: F,
) -> Result<Timeout<F>, TokenError> {
    let _context = fetcher.runtime.as_ref().map(Handle::enter);
    within(deadline, future)
}

fn fall_back(
    fallback: Option<&(Arc<CachedToken>, Instant)>,
    error: TokenError,
    fetcher: &Fetcher,
) -> Result<Waited, TokenError> {
    match fallback {
        Some((token, _)) if !token.is_valid() => Ok(Waited::Discarded),
        Some((token, _)) if !token.has_expired(fetcher.timeline.now()) => {
            Ok(Waited::Finished(Arc::clone(token)))
        }
        _ => Err(error),
    }
}

#[cfg(all(test, bearer_auth_model))]
impl Waiter {
    pub(crate) fn fetch(&self) -> crate::cache::state::FetchId {
        self.fetch.id
    }

    pub(crate) fn status(&self) -> FetchStatus {
        self.status.borrow().clone()
    }
}
