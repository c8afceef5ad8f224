//! The place of one token in the cache: its state behind a lock, and the current token for readers.

use std::fmt;
#[cfg(feature = "stream")]
use std::sync::OnceLock;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

#[cfg(feature = "stream")]
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cache::cached_token::{CachedToken, TokenCell};
use crate::cache::fetch::events::Finished;
use crate::cache::fetch::limiter::Slot;
use crate::cache::fetch::pause::PauseTimer;
use crate::cache::fetch::waiter::Waiter;
use crate::cache::fetch::{FetchHandle, FetchOwner, FetchStatus, FetchTask, Fetcher};
use crate::cache::last_used::LastUsed;
use crate::cache::state::{Completed, Decision, FetchId, Fetched, LATE_WAIT, State, Timing};
use crate::clock::Moment;
use crate::error::TokenError;
use crate::observe::Event;
use crate::source::context::{FetchContext, FetchReason};
use crate::sync::{Mutex, MutexGuard};
use crate::token::request::TokenRequest;

pub(crate) struct Entry {
    /// The current token of the state in `core`.
    token: TokenCell,
    pub(crate) last_used: LastUsed,
    pub(crate) request: TokenRequest,
    /// Called when a fetch has ended, without a lock.
    on_fetch_end: Option<OnFetchEnd>,
    /// Held for a few instructions at a time, never across an await.
    core: Mutex<Core>,
    /// Created by the first subscription.
    #[cfg(feature = "stream")]
    changes: OnceLock<Box<Notify>>,
}

pub(crate) type OnFetchEnd = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Core {
    state: State,
    /// The fetch in progress, the same as that of `state`.
    /// Boxed, since most entries have none.
    fetch: Option<Box<FetchHandle>>,
    /// The fetch of the token that was stored for readers.
    published: Option<FetchId>,
    /// The pause whose end no observer knows of. Boxed, since most entries have none.
    pause: Option<Box<PauseTimer>>,
}

/// The wait of a caller for the fetch in progress.
enum Wait {
    No,
    ForFetch,
    AtMost(Duration),
}

/// A caller's way to a token.
pub(crate) enum Joined {
    Token(Arc<CachedToken>),
    Waiter(Waiter),
}

impl Entry {
    pub(crate) fn new(request: TokenRequest, on_fetch_end: Option<OnFetchEnd>) -> Self {
        Self {
            token: TokenCell::empty(),
            last_used: LastUsed::never(),
            request,
            on_fetch_end,
            core: Mutex::default(),
            #[cfg(feature = "stream")]
            changes: OnceLock::new(),
        }
    }

    /// Calls `f` with the current token if it is usable without starting a refresh. Takes no lock.
    #[inline]
    pub(crate) fn if_usable<R>(
        &self,
        now: Moment,
        f: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        self.token.if_usable(now, f)
    }

    /// Gives a caller the token, or the fetch to wait for. The caller starts the task, if there is
    /// one: the fetch was decided on just now. A token of the generation `rejected` is of no use to
    /// it.
    pub(crate) fn join(
        self: &Arc<Self>,
        now: Moment,
        rejected: Option<u64>,
        fetcher: &Arc<Fetcher>,
    ) -> Result<(Joined, Option<FetchTask>), TokenError> {
        let mut core = self.lock();
        let decision = core.state.decide(now, rejected);
        let (started, wait) = match decision {
            Decision::Use => (None, Wait::No),
            Decision::Refresh { fetch, delay } => (Some((fetch, delay)), Wait::No),
            Decision::Fetch { fetch, delay } => (Some((fetch, delay)), Wait::ForFetch),
            Decision::FetchLate { fetch } => {
                (Some((fetch, Duration::ZERO)), Wait::AtMost(LATE_WAIT))
            }
            Decision::Wait => (None, Wait::ForFetch),
            Decision::WaitLate { limit } => (None, Wait::AtMost(limit)),
            Decision::Fail(error) => return Err(error),
        };
        let ended_pause = started.and_then(|_| core.pause.take());
        let task = started.map(|(fetch, delay)| {
            // The state has just started it, so the default is never used.
            let reason = core.state.fetch_reason(fetch).unwrap_or(FetchReason::First);
            let owner: Weak<Self> = Arc::downgrade(self);
            let request = &self.request;
            let (task, handle) = FetchTask::new(owner, fetcher, request, fetch, delay, reason);
            core.fetch = Some(Box::new(handle));
            task
        });
        let joined = match (wait, self.publish(&mut core), &core.fetch) {
            (Wait::No, Some(token), _) => Some(Joined::Token(token)),
            (Wait::ForFetch, _, Some(fetch)) => Some(Joined::Waiter(fetch.waiter(None))),
            (Wait::AtMost(limit), Some(token), Some(fetch)) => {
                let fallback = (token, Instant::now() + limit);
                Some(Joined::Waiter(fetch.waiter(Some(fallback))))
            }
            _ => None,
        };
        // Before a task may be dropped, which takes the lock.
        drop(core);
        if ended_pause.is_some() {
            fetcher.observers.emit(|| Event::PauseEnded {
                token_request: &self.request,
            });
        }
        match joined {
            Some(joined) => Ok((joined, task)),
            // The state decided on a token or a fetch that is not there.
            None => Err(TokenError::transient(
                "the token cache is inconsistent: report it",
            )),
        }
    }

    /// Changes the state by something that a user of the token found out.
    pub(crate) fn report<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut core = self.lock();
        let result = change(&mut core.state);
        self.publish(&mut core);
        drop(core);
        self.notify();
        result
    }

    /// Returns true if the entry can be evicted. A queued fetch that no caller waits for is
    /// abandoned; any other prevents the eviction. So does a pause or a rejection that must not be
    /// forgotten, unless `force` is set.
    ///
    /// The caller prevents new callers from joining meanwhile.
    pub(crate) fn prepare_eviction(&self, now: Moment, force: bool) -> bool {
        let mut core = self.lock();
        if !force && core.state.must_be_kept(now) {
            return false;
        }
        let idle = core.fetch.take_if(|fetch| fetch.is_idle());
        if let Some(fetch) = &idle {
            core.state.abandon(fetch.id());
        }
        core.fetch.is_none()
    }

    /// Ends the fetch in progress, if there is one. Returns its task.
    pub(crate) fn close(self: Arc<Self>) -> Option<AbortHandle> {
        let core = self.lock();
        let fetch = core.fetch.as_ref()?;
        let (id, task) = (fetch.id(), fetch.task().cloned());
        drop(core);
        FetchOwner::abandon(self, id);
        task
    }

    /// Forgets the token and all that is known about it. Callers that wait decide again. Returns
    /// true if there was a pause whose end no observer knows of.
    pub(crate) fn forget(self: Arc<Self>) -> bool {
        let mut core = self.lock();
        core.state.forget();
        self.publish(&mut core);
        let handle = core.fetch.take();
        let pause = core.pause.take();
        drop(core);
        self.notify();
        if let Some(fetch) = &handle {
            // Otherwise it ends as lost, and a caller starts only one fetch after a lost one.
            fetch.discard();
        }
        self.end(handle);
        pause.is_some()
    }

    /// Returns the current token unless it has expired.
    pub(crate) fn peek(&self, now: Moment) -> Option<Arc<CachedToken>> {
        self.token
            .get()
            .filter(|token| token.is_valid() && !token.has_expired(now))
    }

    /// Looks at the state of the token.
    pub(crate) fn inspect<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock().state)
    }

    /// Returns the notifications of changes, for subscriptions.
    #[cfg(feature = "stream")]
    pub(crate) fn changes(&self) -> &Notify {
        self.changes.get_or_init(Box::default)
    }

    /// Notifies subscriptions. Called without the lock.
    pub(crate) fn notify(&self) {
        #[cfg(feature = "stream")]
        if let Some(changes) = self.changes.get() {
            changes.notify_waiters();
        }
    }

    /// Returns true if there was a pause whose end no observer knows of.
    pub(crate) fn forget_pause(&self) -> bool {
        let pause = self.lock().pause.take();
        pause.is_some()
    }

    /// Stores the current token of the state for the readers, before the lock is released and any
    /// caller is woken. Returns that token.
    fn publish(&self, core: &mut Core) -> Option<Arc<CachedToken>> {
        let current = core.state.current().map(|current| current.fetch);
        if core.published == current {
            self.token.update(&core.state);
        } else {
            if current.is_none() {
                self.token.withdraw();
            }
            core.published = current;
            self.token
                .set(CachedToken::from_state(&core.state, &self.request));
        }
        self.token.get()
    }

    /// Drops the handle of a fetch that was in progress. Called without the lock: this starts the
    /// next fetch in the queue and may evict the entry.
    fn end(self: Arc<Self>, handle: Option<Box<FetchHandle>>) {
        self.notify();
        let Some(handle) = handle else {
            return;
        };
        drop(handle);
        let on_fetch_end = self.on_fetch_end.clone();
        drop(self);
        if let Some(on_fetch_end) = on_fetch_end {
            on_fetch_end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // Nothing panics while the lock is held, and no intermediate state is left behind.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchOwner for Entry {
    fn begin(&self, fetch: FetchId, slot: Option<Slot>) -> bool {
        let mut core = self.lock();
        match core.fetch.as_mut().filter(|it| it.id() == fetch) {
            Some(handle) => {
                handle.begin(slot);
                true
            }
            None => {
                drop(core);
                // Freed without the lock: it may start another fetch.
                drop(slot);
                false
            }
        }
    }

    fn send(&self, fetch: FetchId, now: Moment) -> bool {
        let mut core = self.lock();
        let is_in_progress = core.fetch.as_ref().is_some_and(|it| it.id() == fetch);
        if is_in_progress {
            core.state.record_sent(fetch, now);
            self.publish(&mut core);
        }
        is_in_progress
    }

    fn attach(&self, fetch: FetchId, task: AbortHandle) {
        let mut core = self.lock();
        match core.fetch.as_mut().filter(|it| it.id() == fetch) {
            Some(handle) => handle.set_task(task),
            None => {
                drop(core);
                // It has finished, or was abandoned after it began.
                task.abort();
            }
        }
    }

    fn context(&self, reason: FetchReason, deadline: Instant, now: Moment) -> FetchContext {
        let core = self.lock();
        let context = FetchContext::new(reason, deadline);
        let context = match core.state.held() {
            Some(token) => {
                let current = core.state.current();
                let life = current.and_then(|current| current.lifespan.life(now));
                context.with_held(token.clone()).with_held_life(life)
            }
            None => context,
        };
        match core.state.rejected() {
            Some(token) => context.with_rejected(token.clone()),
            None => context,
        }
    }

    fn finish(
        self: Arc<Self>,
        fetch: FetchId,
        outcome: Result<Fetched, TokenError>,
        now: Moment,
        timing: Timing,
    ) -> Finished {
        let mut core = self.lock();
        let earlier_failures = core.state.failures();
        let was_transient = core
            .state
            .last_error()
            .is_some_and(TokenError::is_transient);
        let other = match outcome {
            Ok(fetched) => match core.state.complete(fetch, fetched, now, timing) {
                Completed::Stored => None,
                Completed::Discarded => Some(FetchStatus::Discarded),
                Completed::Failed(error) => Some(FetchStatus::Finished(Err(error))),
            },
            Err(error) => {
                let jitter = fastrand::f64();
                let error = core.state.fail(fetch, error, now, timing, jitter);
                Some(FetchStatus::Finished(Err(error)))
            }
        };
        let token = self.publish(&mut core);
        let mut handle = core.take_fetch(fetch);
        let failures = core.state.failures();
        let is_paused = failures > earlier_failures;
        let ended_pause = if is_paused {
            core.pause.replace(Box::new(PauseTimer::new(fetch)))
        } else if failures < earlier_failures {
            core.pause.take()
        } else {
            None
        };
        let life = core.state.current().and_then(|it| it.lifespan.life(now));
        drop(core);
        if let Some(handle) = &mut handle {
            // The task is about to end: it is not aborted.
            handle.detach();
        }
        self.end(handle);
        let token = token.map(|token| FetchStatus::Finished(Ok(token)));
        let status = other.or(token).unwrap_or(FetchStatus::Discarded);
        Finished {
            failures: failures.max(earlier_failures),
            has_become_permanent: match &status {
                FetchStatus::Finished(Err(error)) => was_transient && !error.is_transient(),
                _ => false,
            },
            pause: match &status {
                FetchStatus::Finished(Err(error)) if is_paused => error.retry_after(),
                _ => None,
            },
            has_ended_pause: ended_pause.is_some(),
            life: match &status {
                FetchStatus::Finished(Ok(_)) => life,
                _ => None,
            },
            status,
        }
    }

    fn abandon(self: Arc<Self>, fetch: FetchId) {
        let mut core = self.lock();
        core.state.abandon(fetch);
        self.publish(&mut core);
        let handle = core.take_fetch(fetch);
        drop(core);
        self.end(handle);
    }

    fn attach_pause_timer(&self, fetch: FetchId, timer: AbortHandle) {
        match self.lock().pause.as_mut().filter(|it| it.is_after(fetch)) {
            Some(pause) => pause.set_timer(timer),
            // The pause has ended already.
            None => timer.abort(),
        }
    }

    fn end_pause(&self, fetch: FetchId) -> bool {
        let pause = self.lock().pause.take_if(|it| it.is_after(fetch));
        pause.is_some()
    }
}

impl Core {
    fn take_fetch(&mut self, fetch: FetchId) -> Option<Box<FetchHandle>> {
        self.fetch.take_if(|handle| handle.id() == fetch)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
