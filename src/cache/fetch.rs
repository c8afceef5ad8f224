//! One fetch, shared by all callers that wait for it.
//!
//! A fetch runs in a detached task, so any caller may be dropped. Callers that wait watch its
//! status. If the task is dropped with its runtime, the status says so, and the first of the
//! callers starts the fetch again on its own runtime.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cache::cached_token::CachedToken;
use crate::cache::fetch::chain::FetchChain;
use crate::cache::fetch::events::{FetchEvents, Finished};
use crate::cache::fetch::limiter::{FetchLimiter, Slot};
use crate::cache::fetch::status::SharedStatus;
use crate::cache::fetch::waiter::{WAIT_MARGIN, Waiter};
use crate::cache::state::{FetchId, Fetched, Timing};
use crate::clock::{Moment, Timeline};
use crate::error::{TokenError, TokenErrorKind};
use crate::observe::Observers;
use crate::source::context::{FetchContext, FetchReason};
use crate::source::{TRY_WAITS, TokenSource};
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

mod chain;
pub(crate) mod events;
pub(crate) mod limiter;
pub(crate) mod pause;
pub(crate) mod runtime;
mod status;
pub(crate) mod waiter;
mod watchdog;

pub(crate) use status::FetchStatus;

/// A limit that is noticed later than that was missed because nobody polled the runtime.
const UNDRIVEN: Duration = Duration::from_millis(25);

/// Numbers every token of the process, so that a cache never mistakes another's token for its own.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// The parts that all fetches of a cache share.
pub(crate) struct Fetcher {
    pub(crate) source: Arc<dyn TokenSource>,
    pub(crate) timeline: Timeline,
    pub(crate) timing: Timing,
    pub(crate) fetch_timeout: Duration,
    pub(crate) wait_timeout: Duration,
    /// The runtime of fetches and of callers' timers, in place of the callers' own.
    pub(crate) runtime: Option<Handle>,
    /// No further fetch starts.
    pub(crate) is_closed: AtomicBool,
    pub(crate) limiter: Arc<FetchLimiter>,
    pub(crate) observers: Observers,
}

/// The entry that a fetch is for.
///
/// Fetches hold it weakly: they must not keep a cache alive.
pub(crate) trait FetchOwner: Send + Sync + 'static {
    /// Notes that the task of a fetch starts, with its slot unless it needs none. Returns false if
    /// it is no longer in progress.
    fn begin(&self, fetch: FetchId, slot: Option<Slot>) -> bool;

    /// Remembers the task of a fetch, to abort it when the fetch is abandoned. Aborts it at once if
    /// the fetch is no longer in progress.
    fn attach(&self, fetch: FetchId, task: AbortHandle);

    /// Records that the token request of a fetch is sent now. Returns false if the fetch is no
    /// longer in progress.
    fn send(&self, fetch: FetchId, now: Moment) -> bool;

    /// Returns what the source is told about a try of a fetch.
    fn context(&self, reason: FetchReason, deadline: Instant, now: Moment) -> FetchContext;

    /// Stores the outcome of a fetch. Returns the status that the callers see, and what observers
    /// are to know.
    ///
    /// Consumes the `Arc`, as `abandon` does, so that this call does not keep the entry from being
    /// evicted.
    fn finish(
        self: Arc<Self>,
        fetch: FetchId,
        outcome: Result<Fetched, TokenError>,
        now: Moment,
        timing: Timing,
    ) -> Finished;

    /// Ends a fetch without an outcome. Does nothing if it has ended.
    fn abandon(self: Arc<Self>, fetch: FetchId);

    /// Remembers the timer of the pause after a fetch, to abort it with the pause.
    fn attach_pause_timer(&self, fetch: FetchId, timer: AbortHandle);

    /// Returns true if the pause after this fetch had not been noticed to end.
    fn end_pause(&self, fetch: FetchId) -> bool;
}

/// A fetch that was decided on. Dropped before it has finished, it is abandoned.
pub(crate) struct FetchTask {
    owner: Weak<dyn FetchOwner>,
    fetcher: Arc<Fetcher>,
    request: TokenRequest,
    id: FetchId,
    reason: FetchReason,
    delay: Duration,
    /// Held weakly: a fetch without a handle and without callers has no status.
    fetch: Weak<Identity>,
    /// The fetch within which the caller runs.
    parent: Option<FetchChain>,
    events: FetchEvents,
}

/// The entry's hold on the fetch in progress. Dropped, it aborts the task and frees the slot.
pub(crate) struct FetchHandle {
    identity: Arc<Identity>,
    task: Option<AbortHandle>,
    is_queued: bool,
    /// Held here rather than by the task, which may be on a runtime that never polls it again.
    slot: Option<Slot>,
}

/// A fetch, as its handle and its waiters know it. They share it, which counts the waiters.
struct Identity {
    id: FetchId,
    owner: Weak<dyn FetchOwner>,
    /// Shared with the watchdogs, which do not hold the fetch.
    status: Arc<SharedStatus>,
    /// The runtimes that have a watchdog for this fetch.
    watched_on: Mutex<Vec<Id>>,
}

impl Identity {
    /// Ends the fetch without an outcome, for all callers: it is overdue.
    fn abandon(&self) {
        self.status.end_as(FetchStatus::Overdue);
        if let Some(owner) = self.owner.upgrade() {
            owner.abandon(self.id);
        }
    }
}

impl Drop for Identity {
    /// Ends the watchdogs: no caller is left, and the entry has no such fetch any more.
    fn drop(&mut self) {
        self.status.end_as(FetchStatus::Lost);
    }
}

impl Fetcher {
    /// Calls the source, up to three times if it fails quickly with a transient error. Asks for the
    /// context of each try, since a token may be rejected in between.
    async fn fetch(
        &self,
        request: &TokenRequest,
        context: impl Fn(Moment) -> FetchContext,
        limit: &TimeLimit,
        events: &mut FetchEvents,
    ) -> Result<(AccessToken, Moment), TokenError> {
        let mut waits = TRY_WAITS.iter();
        let mut attempt = 0;
        loop {
            attempt += 1;
            events.started(attempt);
            let started = self.timeline.read();
            let since = Instant::now();
            let context = context(started).with_observers(&self.observers);
            let source = async { self.source.fetch_with(request, &context).await };
            let error = match catch_panic(source, limit).await {
                Some(Ok(token)) => return Ok((token, started)),
                Some(Err(error)) => error,
                None => return Err(TokenError::new(TokenErrorKind::SourcePanicked, true)),
            };
            let try_again = error.allows_another_try(since.elapsed());
            match waits.next() {
                Some(wait) if try_again => sleep(wait.mul_f64(fastrand::f64())).await,
                _ => return Err(error),
            }
        }
    }
}

impl FetchTask {
    /// Creates the task of a fetch and the handle that its owner keeps.
    pub(crate) fn new(
        owner: Weak<dyn FetchOwner>,
        fetcher: &Arc<Fetcher>,
        request: &TokenRequest,
        id: FetchId,
        delay: Duration,
        reason: FetchReason,
    ) -> (Self, FetchHandle) {
        let identity = Arc::new(Identity {
            id,
            owner: Weak::clone(&owner),
            status: Arc::new(SharedStatus::queued()),
            watched_on: Mutex::default(),
        });
        let fetch = Arc::downgrade(&identity);
        let handle = FetchHandle {
            identity,
            task: None,
            is_queued: true,
            slot: None,
        };
        let task = Self {
            owner,
            fetcher: Arc::clone(fetcher),
            request: request.clone(),
            id,
            reason,
            delay,
            fetch,
            parent: FetchChain::current(),
            events: FetchEvents::new(fetcher, request, reason),
        };
        (task, handle)
    }

    /// Starts the fetch on `runtime` as soon as the limiter has a free slot.
    ///
    /// A fetch that a source asks for within its own fetch needs no slot: with all slots taken by
    /// such sources, none would end.
    pub(crate) fn start(mut self, runtime: &Handle) {
        self.events.queued();
        if self.parent.is_some() {
            return self.spawn(runtime, None);
        }
        let limiter = Arc::clone(&self.fetcher.limiter);
        let runtime = runtime.clone();
        let fetch = Weak::clone(&self.fetch);
        let abandon = move || {
            if let Some(fetch) = fetch.upgrade() {
                fetch.abandon();
            }
        };
        let time_limit = self.delay + self.fetcher.fetch_timeout + WAIT_MARGIN;
        limiter.enqueue(time_limit, abandon, move |slot| {
            self.spawn(&runtime, Some(slot));
        });
    }

    fn spawn(mut self, runtime: &Handle, slot: Option<Slot>) {
        let Some(owner) = self.owner.upgrade() else {
            return;
        };
        let id = self.id;
        let is_closed = self.fetcher.is_closed.load(Ordering::Acquire);
        if is_closed || !owner.begin(id, slot) {
            return;
        }
        let deadline = Instant::now() + self.delay + self.fetcher.fetch_timeout;
        self.publish(FetchStatus::Running { deadline });
        // A runtime that is shutting down drops the task here, which abandons the fetch.
        let span = self.events.take_span();
        let task = runtime.spawn(span.instrument(self.run(deadline)));
        owner.attach(id, task.abort_handle());
    }

    /// Runs the fetch. `deadline` is the one that callers know.
    async fn run(mut self, deadline: Instant) {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        let now = self.fetcher.timeline.now();
        if let Some(owner) = self.owner.upgrade()
            && !owner.send(self.id, now)
        {
            return;
        }
        let limit = TimeLimit::new(self.fetcher.fetch_timeout);
        if limit.deadline > deadline + WAIT_MARGIN / 2 {
            // The runtime polled this task late, which must not make callers give up first.
            let deadline = limit.deadline;
            self.publish(FetchStatus::Running { deadline });
        }
        let chain = FetchChain::new(Weak::clone(&self.owner), self.parent.clone());
        let (owner, reason) = (&self.owner, self.reason);
        let context = |now| context(owner, reason, limit.deadline, now);
        let fetch =
            chain.scope(
                self.fetcher
                    .fetch(&self.request, context, &limit, &mut self.events),
            );
        let outcome = match timeout_at(limit.deadline, fetch).await {
            Ok(Ok((token, started))) => Ok(Fetched {
                token,
                generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
                started,
                jitter: fastrand::f64(),
            }),
            Ok(Err(error)) => Err(error),
            // Nobody polled this runtime in time, which says nothing about the source.
            Err(_) if limit.was_missed_by_the_runtime() => return,
            Err(_) => Err(TokenError::timeout(self.fetcher.fetch_timeout)),
        };
        let outcome = outcome.map_err(|error| error.with_token_request(&self.request));
        self.finish(outcome);
    }

    /// Stores the outcome, then wakes the callers.
    fn finish(mut self, outcome: Result<Fetched, TokenError>) {
        // Before the entry drops its handle.
        let fetch = self.fetch.upgrade();
        if let Some(owner) = self.owner.upgrade() {
            let now = self.fetcher.timeline.read();
            let finished = owner.finish(self.id, outcome, now, self.fetcher.timing);
            self.events.finished(&self.owner, self.id, &finished);
            if let Some(fetch) = fetch {
                fetch.status.set(finished.status);
            }
        }
    }

    /// Changes the status that the callers see, if there are any.
    fn publish(&self, status: FetchStatus) {
        if let Some(fetch) = self.fetch.upgrade() {
            fetch.status.set(status);
        }
    }
}

#[cfg(test)]
impl FetchTask {
    pub(crate) fn id(&self) -> FetchId {
        self.id
    }

    /// Runs the fetch as its task does.
    pub(crate) async fn run_here(self) {
        let deadline = Instant::now() + self.fetcher.fetch_timeout;
        self.run(deadline).await;
    }
}

impl Drop for FetchTask {
    fn drop(&mut self) {
        // Does nothing if the fetch has finished.
        let fetch = self.fetch.upgrade();
        if let Some(owner) = self.owner.upgrade() {
            owner.abandon(self.id);
        }
        // Last: the callers that it wakes join the entry again.
        if let Some(fetch) = fetch {
            fetch.status.end_as(FetchStatus::Lost);
        }
    }
}

impl FetchHandle {
    pub(crate) fn id(&self) -> FetchId {
        self.identity.id
    }

    /// Adds a caller that waits for the fetch. A late token is its fallback, from the given time
    /// on.
    pub(crate) fn waiter(&self, fallback: Option<(Arc<CachedToken>, Instant)>) -> Waiter {
        Waiter::new(Arc::clone(&self.identity), fallback)
    }

    /// Returns true if the fetch is queued and no caller waits for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_queued && Arc::strong_count(&self.identity) == 1
    }

    /// Tells the callers that the fetch will have no outcome for them, which decide again.
    pub(crate) fn discard(&self) {
        self.identity.status.end_as(FetchStatus::Discarded);
    }

    /// Notes that the task starts.
    pub(crate) fn begin(&mut self, slot: Option<Slot>) {
        self.is_queued = false;
        self.slot = slot;
    }

    /// Returns the task of the fetch, if it has started.
    pub(crate) fn task(&self) -> Option<&AbortHandle> {
        self.task.as_ref()
    }

    pub(crate) fn set_task(&mut self, task: AbortHandle) {
        self.task = Some(task);
    }

    /// Keeps the task from being aborted: it is about to end.
    pub(crate) fn detach(&mut self) {
        self.task = None;
    }
}

impl Drop for FetchHandle {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Returns what the source is told about a try of a fetch.
fn context(
    owner: &Weak<dyn FetchOwner>,
    reason: FetchReason,
    deadline: Instant,
    now: Moment,
) -> FetchContext {
    match owner.upgrade() {
        Some(owner) => owner.context(reason, deadline, now),
        // The cache is gone, and soon the task.
        None => FetchContext::new(reason, deadline),
    }
}

/// The time limit of a fetch.
struct TimeLimit {
    deadline: Instant,
    /// A poll of the source itself took the time in which the limit was missed.
    source_blocks: AtomicBool,
}

impl TimeLimit {
    fn new(limit: Duration) -> Self {
        Self {
            deadline: Instant::now() + limit,
            source_blocks: AtomicBool::new(false),
        }
    }

    /// Notes a poll of the source that started at this time and has ended.
    fn record_poll(&self, started: Instant) {
        if started < self.deadline && self.is_late() {
            self.source_blocks.store(true, Ordering::Relaxed);
        }
    }

    fn was_missed_by_the_runtime(&self) -> bool {
        self.is_late() && !self.source_blocks.load(Ordering::Relaxed)
    }

    fn is_late(&self) -> bool {
        Instant::now() > self.deadline + UNDRIVEN
    }
}

/// Polls `future` to its end. Returns `None` if it panics.
async fn catch_panic<F: Future>(future: F, limit: &TimeLimit) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let started = Instant::now();
        let poll = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            // The payload may contain a secret, so it is dropped.
            Err(_) => Poll::Ready(None),
        };
        limit.record_poll(started);
        poll
    })
    .await
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("timing", &self.timing)
            .field("fetch_timeout", &self.fetch_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, bearer_auth_model))]
mod model;
