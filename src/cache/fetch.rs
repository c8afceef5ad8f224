//! A flight: one fetch that belongs to nobody, and those who wait for it.
//!
//! It runs in a task of its own, so that any caller may be dropped. Waiters watch its phase. If the
//! task is dropped with its runtime, the phase's sender goes with it: the waiters see that, and the
//! first of them to come back takes the flight over on its own runtime.

use std::fmt;
use std::future::{Future, poll_fn, ready};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, Timeout, sleep, timeout, timeout_at};

use crate::cache::cached_token::CachedToken;
use crate::cache::entry::Entry;
use crate::cache::fetch::limiter::{Slot, Slots, Taken};
use crate::cache::state::{Fetched, FlightId, Permit, Tempo};
use crate::clock::{Moment, Timeline};
use crate::error::{TokenError, TokenErrorKind};
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

pub(crate) mod limiter;

/// Upper ends of the waits before the second and third try of a flight; full jitter.
const TRY_WAITS: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(400)];
/// A try that failed later than this is not repeated in the flight.
const QUICK_FAILURE: Duration = Duration::from_secs(1);
/// How much longer than the flight's limit its waiters wait for word of it: the flight itself is
/// the first to notice, unless nobody drives its runtime.
const WAITERS_GRACE: Duration = Duration::from_millis(250);

/// Numbers every token of the process, so that one cache never mistakes another's for its own.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// What it takes to fetch. Holds no entry, so that a flight keeps no cache alive.
pub(crate) struct Fetcher {
    pub(crate) source: Arc<dyn TokenSource>,
    pub(crate) timeline: Timeline,
    pub(crate) tempo: Tempo,
    pub(crate) fetch_timeout: Duration,
    pub(crate) slots: Arc<Slots>,
}

/// How far a flight is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Waits for a slot, which its limit doesn't count. Those under way have limits themselves.
    Queued,
    Flying {
        deadline: Instant,
    },
    Landed(Result<Arc<CachedToken>, TokenError>),
    /// It brought a token that was rejected in the meantime.
    Rejected,
}

/// A reserved flight, to be launched.
pub(crate) struct Launch {
    permit: Permit,
    phase: watch::Sender<Phase>,
}

/// A launched flight that waits for its slot.
pub(crate) struct Departure {
    launch: Launch,
    entry: Weak<Entry>,
    fetcher: Weak<Fetcher>,
    runtime: Handle,
}

/// A waiter's hold on a flight.
pub(crate) struct Ticket {
    pub(crate) flight: FlightId,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Counts those who wait.
    pub(crate) awaited: Arc<()>,
}

/// How waiting for a flight ended.
pub(crate) enum Outcome {
    Landed(Result<Arc<CachedToken>, TokenError>),
    /// Decide again: the token was rejected in the meantime.
    Rejected,
    /// Decide again: the flight's task was dropped with its runtime.
    Lost,
    /// Nobody drives the flight.
    TimedOut,
}

impl Fetcher {
    /// Fetches a token, with up to two more tries for what fails quickly and may pass.
    async fn fetch(&self, request: &TokenRequest) -> Result<(AccessToken, Moment), TokenError> {
        let mut waits = TRY_WAITS.iter();
        loop {
            let started = self.timeline.read();
            let since = Instant::now();
            let error = match unwound(async { self.source.fetch(request).await }).await {
                Some(Ok(token)) => return Ok((token, started)),
                Some(Err(error)) => error,
                None => return Err(TokenError::new(TokenErrorKind::SourcePanicked, true)),
            };
            let again = error.is_transient()
                && error.retry_after().is_none()
                && since.elapsed() < QUICK_FAILURE;
            match waits.next() {
                Some(wait) if again => sleep(wait.mul_f64(fastrand::f64())).await,
                _ => return Err(error),
            }
        }
    }
}

impl Launch {
    pub(crate) fn new(permit: Permit) -> (Self, Ticket) {
        let (sender, phase) = watch::channel(Phase::Queued);
        (
            Self {
                permit,
                phase: sender,
            },
            Ticket {
                flight: permit.flight,
                phase,
                awaited: Arc::default(),
            },
        )
    }

    pub(crate) fn flight(&self) -> FlightId {
        self.permit.flight
    }

    /// Starts the flight on this runtime, as soon as there is a slot for it.
    pub(crate) fn start(self, entry: &Arc<Entry>, fetcher: &Arc<Fetcher>, runtime: &Handle) {
        fetcher.slots.enqueue(Departure {
            launch: self,
            entry: Arc::downgrade(entry),
            fetcher: Arc::downgrade(fetcher),
            runtime: runtime.clone(),
        });
    }
}

impl Departure {
    /// Who is to have the slot, and until when: well after the flight's own limit.
    pub(crate) fn taken(&self) -> Taken {
        let limit = self.fetcher.upgrade().map(|fetcher| fetcher.fetch_timeout);
        let Permit { flight, delay } = self.launch.permit;
        let deadline = Instant::now() + delay + limit.unwrap_or_default() + WAITERS_GRACE;
        Taken::new(self.entry.clone(), flight, deadline)
    }

    /// Spawns the flight, unless its cache is gone or it has been given up.
    pub(crate) fn depart(self, slot: Slot) {
        let (Some(entry), Some(fetcher)) = (self.entry.upgrade(), self.fetcher.upgrade()) else {
            return;
        };
        let Launch { permit, phase } = self.launch;
        if !entry.admit(permit.flight, slot) {
            return;
        }
        let deadline = Instant::now() + permit.delay + fetcher.fetch_timeout;
        phase.send_replace(Phase::Flying { deadline });
        let request = entry.request.clone();
        let pilot = Pilot {
            entry: self.entry,
            fetcher,
            request,
            flight: permit.flight,
            phase,
        };
        // A runtime that is shutting down drops the task right here, which gives the slot back.
        let task = self.runtime.spawn(pilot.fly(permit.delay));
        entry.attach(permit.flight, task.abort_handle());
    }
}

impl Ticket {
    /// Waits until the flight has landed, is lost, or is overdue by this caller's own timer.
    ///
    /// There may be many who wait, so its future is kept small: what needs no await is not in it, and what is
    /// awaited is there once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the flight goes on.
    pub(crate) async fn wait(&mut self, fetcher: &Fetcher) -> Result<Outcome, TokenError> {
        loop {
            let patience = match self.look(fetcher) {
                ControlFlow::Break(outcome) => return Ok(outcome),
                ControlFlow::Continue(patience) => patience,
            };
            // Not by `?`, which would keep room for another one.
            let news = match within(patience.until, self.phase.changed()) {
                Ok(news) => news,
                Err(error) => return Err(error),
            };
            match news.await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(Outcome::Lost),
                Err(_) if patience.is_queued => {}
                Err(_) => return Ok(Outcome::TimedOut),
            }
        }
    }

    /// Whether all who waited would have given up the flight by now.
    pub(crate) fn is_overdue(&self) -> bool {
        match *self.phase.borrow() {
            Phase::Flying { deadline } => deadline + WAITERS_GRACE < Instant::now(),
            Phase::Queued | Phase::Landed(_) | Phase::Rejected => false,
        }
    }

    /// How the flight has ended, or until when to wait for news of it.
    fn look(&mut self, fetcher: &Fetcher) -> ControlFlow<Outcome, Patience> {
        let phase = self.phase.borrow_and_update().clone();
        match phase {
            Phase::Landed(result) => ControlFlow::Break(Outcome::Landed(result)),
            Phase::Rejected => ControlFlow::Break(Outcome::Rejected),
            Phase::Queued => {
                let now = Instant::now();
                // Now, since this caller may not stay for as long as a flight takes.
                fetcher.slots.reap(now);
                // By then the first of those who have a slot has ended, or never will.
                let overdue = fetcher.slots.first_deadline();
                ControlFlow::Continue(Patience {
                    until: overdue.unwrap_or(now + fetcher.fetch_timeout) + WAITERS_GRACE,
                    is_queued: true,
                })
            }
            Phase::Flying { deadline } => ControlFlow::Continue(Patience {
                until: deadline + WAITERS_GRACE,
                is_queued: false,
            }),
        }
    }
}

/// How long a waiter goes without news: then it looks again at a queued flight, and gives up one that flies.
struct Patience {
    until: Instant,
    is_queued: bool,
}

/// Runs the flight. Dropped before it has landed, it gives the permit back.
struct Pilot {
    entry: Weak<Entry>,
    fetcher: Arc<Fetcher>,
    request: TokenRequest,
    flight: FlightId,
    phase: watch::Sender<Phase>,
}

impl Pilot {
    async fn fly(self, delay: Duration) {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let fetcher = &self.fetcher;
        let fetched = match timeout(fetcher.fetch_timeout, fetcher.fetch(&self.request)).await {
            Ok(Ok((token, started))) => Ok(Fetched {
                token,
                request: self.request.clone(),
                generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
                started,
                jitter: fastrand::f64(),
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TokenError::new(TokenErrorKind::Timeout, true)),
        };
        self.land(fetched);
    }

    /// Stores the outcome, then wakes those who wait.
    fn land(&self, fetched: Result<Fetched, TokenError>) {
        if let Some(entry) = self.entry.upgrade() {
            let now = self.fetcher.timeline.read();
            let phase = entry.land(self.flight, fetched, now, self.fetcher.tempo);
            self.phase.send_replace(phase);
        }
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        // Without effect on a flight that has landed.
        if let Some(entry) = self.entry.upgrade() {
            entry.abandon(self.flight);
        }
    }
}

/// The caller's runtime, if it is one that flights and waiters can run on.
pub(crate) fn runtime() -> Result<Handle, TokenError> {
    let handle = Handle::try_current().map_err(|error| no_runtime().with_cause(error))?;
    drop(within(Instant::now(), ready(()))?);
    Ok(handle)
}

/// Limits `future`; an error on a runtime that has no timers.
pub(crate) fn within<F: Future>(deadline: Instant, future: F) -> Result<Timeout<F>, TokenError> {
    // tokio has no other way to ask for a timer than to make one.
    catch_unwind(AssertUnwindSafe(|| timeout_at(deadline, future))).map_err(|_| no_runtime())
}

fn no_runtime() -> TokenError {
    TokenError::new(TokenErrorKind::NoRuntime, false)
}

/// Polls `future` to its end; `None` if it panics.
async fn unwound<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            // The payload may hold anything, a secret too: it goes no further.
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("tempo", &self.tempo)
            .field("fetch_timeout", &self.fetch_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, bearer_auth_model))]
mod model;
