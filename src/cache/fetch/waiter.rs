//! A caller that waits for a fetch.

use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Timeout};

use crate::cache::cached_token::CachedToken;
use crate::cache::fetch::chain::FetchChain;
use crate::cache::fetch::runtime::within;
use crate::cache::fetch::watchdog::Watchdog;
use crate::cache::fetch::{FetchStatus, Fetcher, Identity};
use crate::error::TokenError;

/// The time that callers wait beyond the limit of the fetch: the fetch itself reports its timeout
/// first, unless its runtime is no longer polled.
pub(super) const WAIT_MARGIN: Duration = Duration::from_millis(250);

/// A caller that waits for a fetch.
pub(crate) struct Waiter {
    fetch: Arc<Identity>,
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

/// The longest time that a caller waits for a change of the status, and what follows then.
struct Patience {
    until: Instant,
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
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
    pub(super) fn new(fetch: Arc<Identity>, fallback: Option<(Arc<CachedToken>, Instant)>) -> Self {
        Self {
            fetch,
            fallback: fallback.map(Box::new),
        }
    }

    /// Makes sure that the fetch ends when it is overdue, also if nobody polls its runtime: starts
    /// a watchdog on this one, which the caller uses, unless there is one.
    pub(crate) fn watch_on(&self, runtime: &Handle, fetcher: &Fetcher) {
        Watchdog::ensure(&self.fetch, runtime, fetcher);
    }

    /// Waits until the fetch has ended, or for as long as this caller may. A caller with a late
    /// token waits no longer than that is worth.
    ///
    /// Thousands of callers may wait, so the future is kept small: steps without an await are not
    /// in it, and most callers need no timer of their own.
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
            // Before the look at the status, so that no change is missed.
            let changed = self.fetch.status.changed();
            let patience = match self.check(fetcher, wait) {
                ControlFlow::Break(waited) => return waited,
                ControlFlow::Continue(patience) => patience,
            };
            let Some(patience) = patience else {
                changed.await;
                continue;
            };
            let change = match timer(fetcher, patience.until, changed) {
                Ok(change) => Box::pin(change),
                Err(error) => return fall_back(self.fallback.as_deref(), error, fetcher),
            };
            let is_over = change.await.is_err();
            if !is_over {
                continue;
            }
            match patience.then {
                // The late token has expired: the caller waits as one without a token does.
                Then::UseFallback if self.has_expired(fetcher) => self.fallback = None,
                Then::UseFallback => {
                    return self.fail(TokenError::timeout(fetcher.fetch_timeout), fetcher);
                }
                Then::GiveUp => {
                    return self.fail(self.wait_error(fetcher, wait), fetcher);
                }
            }
        }
    }

    /// Ends the wait with an error or, if there is a fallback that has not expired, with that.
    pub(crate) fn fail(&self, error: TokenError, fetcher: &Fetcher) -> Result<Waited, TokenError> {
        fall_back(self.fallback.as_deref(), error, fetcher)
    }

    /// Returns the error of a caller whose wait has reached its limit.
    fn wait_error(&self, fetcher: &Fetcher, wait: &Wait) -> TokenError {
        let limit = fetcher.wait_timeout;
        self.fetch.status.inspect(|status| match status {
            FetchStatus::Queued if wait.rejected.is_some() => {
                TokenError::queue_timeout(limit.min(SLOT_WAIT)).with_unsent()
            }
            FetchStatus::Queued => TokenError::queue_timeout(limit).with_unsent(),
            FetchStatus::Running { deadline }
                if *deadline > wait.since + limit / 2 + fetcher.fetch_timeout =>
            {
                TokenError::queue_timeout(limit)
            }
            _ => TokenError::wait_timeout(limit),
        })
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
        self.fetch.status.inspect(|status| match status {
            FetchStatus::Running { deadline } => *deadline + WAIT_MARGIN < Instant::now(),
            FetchStatus::Overdue => true,
            _ => false,
        })
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

    /// Returns the end of the wait, or how long to wait for a change if the fetch may take longer.
    fn check(
        &self,
        fetcher: &Fetcher,
        wait: &Wait,
    ) -> ControlFlow<Result<Waited, TokenError>, Option<Patience>> {
        let status = self.fetch.status.inspect(FetchStatus::clone);
        let give_up = |until| Patience {
            until,
            then: Then::GiveUp,
        };
        let give_up_at = wait.since + fetcher.wait_timeout;
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
            // Only a caller that has waited for the whole time limit of a fetch fails: nothing was
            // wrong with the source.
            FetchStatus::Lost | FetchStatus::Overdue
                if wait.since.elapsed() < fetcher.fetch_timeout =>
            {
                return ControlFlow::Break(Ok(Waited::Lost));
            }
            FetchStatus::Lost | FetchStatus::Overdue => {
                let error = TokenError::timeout(fetcher.fetch_timeout);
                return ControlFlow::Break(self.fail(error, fetcher));
            }
            FetchStatus::Queued if wait.rejected.is_some() => {
                Some(give_up(give_up_at.min(wait.since + SLOT_WAIT)))
            }
            FetchStatus::Queued => Some(give_up(give_up_at)),
            // Before that time the fetch ends, by itself or by the watchdog.
            FetchStatus::Running { deadline } if deadline + WAIT_MARGIN <= give_up_at => None,
            FetchStatus::Running { .. } => Some(give_up(give_up_at)),
        };
        ControlFlow::Continue(match self.fallback.as_deref() {
            Some((_, until)) => Some(Patience::first(patience, *until)),
            None => patience,
        })
    }
}

impl Patience {
    /// Returns the patience that ends first: this one, or that for a late token.
    fn first(patience: Option<Self>, use_fallback_at: Instant) -> Self {
        match patience {
            Some(patience) if patience.until <= use_fallback_at => patience,
            _ => Self {
                until: use_fallback_at,
                then: Then::UseFallback,
            },
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
        self.fetch.status.inspect(FetchStatus::clone)
    }
}
