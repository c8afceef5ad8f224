//! The token cache: at most one fetch at a time per [`TokenRequest`], refresh ahead of expiry,
//! pauses after failures.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cache::cached_token::CachedToken;
use crate::cache::caller::Caller;
use crate::cache::entry::{Entry, Joined};
use crate::cache::fetch::waiter::Waited;
use crate::cache::fetch::{Fetcher, runtime};
use crate::cache::state::{NewTokens, Rejection, RejectionId, Severity};
use crate::cache::tenants::Tenants;
use crate::clock::Moment;
use crate::error::{TokenError, TokenErrorKind};
use crate::observe::{Event, Observers, RejectingResponse, RejectionOutcome};
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

mod blocking;
mod builder;
pub(crate) mod cached_token;
mod caller;
mod entry;
mod fetch;
mod last_used;
mod lifespan;
mod per_thread;
pub(crate) mod state;
mod status;
#[cfg(feature = "stream")]
mod subscribe;
mod tenants;

pub use builder::TokenCacheBuilder;
pub(crate) use fetch::runtime::within;
pub use status::{TokenState, TokenStatus};
#[cfg(feature = "stream")]
pub use subscribe::TokenSubscription;

/// The longest wait for the fetches that closing ends.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// A cache of the tokens of a [`TokenSource`], one per [`TokenRequest`].
///
/// Each [`BearerAuthLayer`](crate::BearerAuthLayer) contains one. Used directly, it provides tokens
/// for other protocols: a WebSocket, a Kafka login, a gRPC credential.
///
/// Clones share tokens and fetches. Background work ends when the last handle is dropped: clones,
/// layers, services and pending calls.
///
/// ```
/// use bearer_auth::{AccessToken, StaticTokenSource, TokenCache, TokenRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = TokenCache::new(StaticTokenSource::new("opaque")?);
/// let token: AccessToken = cache.token().await?;
/// let other = cache.token_for(&TokenRequest::scope("tenant/42")).await?;
/// cache.invalidate(&other);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenCache {
    shared: Arc<Shared>,
}

struct Shared {
    fetcher: Arc<Fetcher>,
    /// The entry of the default token request, which needs no map.
    default: Arc<Entry>,
    tenants: Arc<Tenants>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // First, or each fetch that ends would start the next one in the queue.
        self.fetcher.limiter.close();
    }
}

impl TokenCache {
    /// Creates a cache with the default settings, see [`TokenCache::builder`].
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build_unchecked()
    }

    /// Returns a builder for a cache with other settings.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder::new(Arc::new(source))
    }

    /// Returns a token for the source's own configuration.
    ///
    /// # Errors
    ///
    /// The same as of [`token_for`](TokenCache::token_for).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch that was started continues, and the next caller gets its token.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        self.token_for(&TokenRequest::default()).await
    }

    /// Returns a token for this request.
    ///
    /// Returns at once if there is a token that is fresh or due. One that is
    /// [late](TokenState::Late) is returned when its refresh has failed, is paused or has taken
    /// 1 s. Otherwise, also after the token was invalidated, waits for the one fetch that all
    /// callers share.
    ///
    /// # Errors
    ///
    /// - The fetch failed or timed out, or an earlier one did and the pause after it has not ended:
    ///   [`TokenError::retry_after`] is the remaining time.
    /// - [`TokenErrorKind::Timeout`]: the wait took longer than
    ///   [`wait_timeout`](TokenCacheBuilder::wait_timeout). The fetch continues.
    /// - [`TokenErrorKind::NoRuntime`]: a fetch is needed and the caller is not on a tokio runtime
    ///   with timers.
    /// - [`TokenErrorKind::Closed`]: a fetch is needed and the cache is [closed](Self::close).
    /// - [`TokenErrorKind::FetchCycle`]: a source asks its own cache for the token that it is to
    ///   fetch.
    /// - [`TokenErrorKind::InvalidSetting`]: the source cannot use a parameter of the request.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch that was started continues, and the next caller gets its token.
    pub async fn token_for(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        if let Some(token) = self.if_usable(request, CachedToken::token) {
            return Ok(token);
        }
        self.acquire(request, None).await.map(AccessToken::held_by)
    }

    /// Withdraws a token that a server has rejected. The next call fetches another.
    ///
    /// If the source returns the same value again, it is served again: a source that can tell by
    /// [`FetchContext::rejected`](crate::FetchContext::rejected) returns an error instead.
    ///
    /// The token knows its cache entry. Nothing happens unless it is still the current token there,
    /// so a late call never costs a newer token. Unlike the 401s that the layer sees, calls have no
    /// minimum spacing: call this after a rejection, not periodically.
    pub fn invalidate(&self, token: &AccessToken) {
        if let Some(issued) = token.issued()
            && let Some(entry) = self.existing_entry(&issued.request)
        {
            entry.report(|state| state.invalidate(issued.generation));
        }
    }

    /// Removes the token for this request and all that is known about it, as after a logout.
    ///
    /// No later request carries the token, and its memory is zeroed when the last request that
    /// carries it has ended. A pause after a failure ends, too. A fetch in progress is abandoned,
    /// and the callers that wait for it start another one: end their login at the source first.
    ///
    /// The server still accepts the token until it expires, unless it is revoked there (RFC 7009).
    pub fn forget(&self, request: &TokenRequest) {
        let entry = if request.is_default() {
            Some(Arc::clone(&self.shared.default))
        } else {
            self.shared.tenants.take(request)
        };
        if let Some(entry) = entry
            && entry.forget()
        {
            self.observers().emit(|| Event::PauseEnded {
                token_request: request,
            });
        }
    }

    /// Returns the token for the source's own configuration if there is one that has not expired.
    ///
    /// Never fetches and never waits: it returns a token that is due or late, and starts no
    /// refresh.
    pub fn peek(&self) -> Option<AccessToken> {
        self.peek_for(&TokenRequest::default())
    }

    /// Returns the token for this request if there is one that has not expired.
    ///
    /// See [`peek`](Self::peek).
    pub fn peek_for(&self, request: &TokenRequest) -> Option<AccessToken> {
        let token = self.existing_entry(request)?.peek(self.now())?;
        Some(AccessToken::held_by(token))
    }

    /// Returns a token for the source's own configuration, blocking the thread until there is one.
    ///
    /// # Errors
    ///
    /// The same as of [`token_for_blocking`](Self::token_for_blocking).
    pub fn token_blocking(&self) -> Result<AccessToken, TokenError> {
        self.token_for_blocking(&TokenRequest::default())
    }

    /// Returns a token for this request, blocking the thread until there is one.
    ///
    /// This is for threads outside of any runtime, such as the callbacks of a Kafka client. A fetch
    /// runs on the [`runtime`](TokenCacheBuilder::runtime) of the settings. On a thread of a
    /// runtime, use [`token_for`](Self::token_for): this method blocks the thread, and on the only
    /// thread of a runtime the fetch cannot proceed until
    /// [`wait_timeout`](TokenCacheBuilder::wait_timeout) ends the wait.
    ///
    /// # Errors
    ///
    /// The same as of [`token_for`](Self::token_for): [`TokenErrorKind::NoRuntime`] if a fetch is
    /// needed and there is neither a runtime in the settings nor one that the thread belongs to.
    pub fn token_for_blocking(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let wait_timeout = self.shared.fetcher.wait_timeout;
        match blocking::wait(self.token_for(request), wait_timeout) {
            Some(result) => result,
            None => Err(TokenError::wait_timeout(wait_timeout)),
        }
    }

    /// Ends the background work of this cache and of all its clones, for a graceful shutdown.
    ///
    /// Usable tokens are still returned until they expire. A call that needs a fetch fails with
    /// [`TokenErrorKind::Closed`], also if it is waiting now. Waits at most 1 s for the fetches
    /// that it ends. Further calls do nothing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the cache is closed at the first poll, and only the wait ends early.
    pub async fn close(&self) {
        let shared = &self.shared;
        shared.fetcher.is_closed.store(true, Ordering::Release);
        shared.fetcher.limiter.close();
        let mut entries = shared.tenants.all();
        entries.push(Arc::clone(&shared.default));
        for entry in entries.iter().filter(|entry| entry.forget_pause()) {
            self.observers().emit(|| Event::PauseEnded {
                token_request: &entry.request,
            });
        }
        for entry in &entries {
            entry.notify();
        }
        let tasks: Vec<_> = entries.into_iter().filter_map(Entry::close).collect();
        let ended = async {
            while !tasks.iter().all(AbortHandle::is_finished) {
                tokio::task::yield_now().await;
            }
        };
        // Without timers, the tasks end without a witness.
        if let Ok(ended) = within(Instant::now() + CLOSE_WAIT, ended) {
            let _ = ended.await;
        }
    }

    /// Calls `f` with the token for a request if it is usable without starting a refresh. Takes no
    /// lock that a refresh holds, allocates nothing and does not wait.
    #[inline]
    pub(crate) fn if_usable<R>(
        &self,
        request: &TokenRequest,
        f: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        // Not usable by then only means that the caller looks at the exact time.
        let now = self.shared.fetcher.timeline.now_or_ahead();
        if request.is_default() {
            self.shared.default.if_usable(now, f)
        } else {
            self.shared.tenants.if_usable(request, now, f)
        }
    }

    /// Returns the token for a request: at once, or when its fetch has finished. A token of the
    /// generation `rejected` is not one.
    pub(crate) fn acquire<'a>(
        &'a self,
        request: &'a TokenRequest,
        rejected: Option<u64>,
    ) -> impl Future<Output = Result<Arc<CachedToken>, TokenError>> {
        let mut caller = Caller::new(self, request, rejected);
        async move { caller.acquire().await }
    }

    /// Gets the token, or a fetch to wait for. Starts the fetch if there is none and the caller has
    /// starts left.
    fn join(
        &self,
        request: &TokenRequest,
        rejected: Option<u64>,
        starts_left: &mut u32,
    ) -> Result<Joined, TokenError> {
        let fetcher = &self.shared.fetcher;
        loop {
            let runtime = self.runtime();
            let (joined, task) = self.entry(request).join(self.now(), rejected, fetcher)?;
            let waiter = match joined {
                Joined::Token(token) => {
                    // Without a runtime, dropping the task abandons it, and a later caller starts
                    // it.
                    if let (Some(task), Ok(runtime)) = (task, runtime) {
                        task.start(&runtime);
                    }
                    return Ok(Joined::Token(token));
                }
                Joined::Waiter(waiter) => waiter,
            };
            if waiter.is_cycle() {
                // Not started: nobody else waits for this fetch.
                drop(task);
                let error = TokenError::new(TokenErrorKind::FetchCycle, false);
                match waiter.fail(error, fetcher)? {
                    Waited::Finished(token) => return Ok(Joined::Token(token)),
                    Waited::Discarded | Waited::Lost => continue,
                }
            }
            let error = match (runtime, task) {
                _ if fetcher.is_closed.load(Ordering::Acquire) => {
                    TokenError::new(TokenErrorKind::Closed, false)
                }
                (Ok(runtime), Some(task)) if *starts_left > 0 => {
                    *starts_left -= 1;
                    // First: of two tasks, tokio runs the one next that was spawned last.
                    waiter.watch_on(&runtime, fetcher);
                    task.start(&runtime);
                    return Ok(Joined::Waiter(waiter));
                }
                (Ok(_), None) if waiter.is_overdue() => {
                    // Its runtime is not polled, and no other caller was there to notice.
                    waiter.abandon();
                    continue;
                }
                (Ok(runtime), None) => {
                    waiter.watch_on(&runtime, fetcher);
                    return Ok(Joined::Waiter(waiter));
                }
                (Ok(_), Some(_)) => TokenError::new(TokenErrorKind::NoRuntime, false),
                (Err(error), _) => error,
            };
            match waiter.fail(error, fetcher)? {
                Waited::Finished(token) => return Ok(Joined::Token(token)),
                Waited::Discarded | Waited::Lost => {}
            }
        }
    }

    /// Starts a fetch for this request if one is needed, without waiting for it. A token of the
    /// generation `rejected` needs one.
    ///
    /// Returns the error that a caller who needs a token would get at once.
    pub(crate) fn refresh(&self, request: &TokenRequest, rejected: u64) -> Result<(), TokenError> {
        match self.join(request, Some(rejected), &mut 1) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.with_token_request(request)),
        }
    }

    /// Records that an API rejected the token of this generation.
    pub(crate) fn reject(
        &self,
        request: &TokenRequest,
        generation: u64,
        severity: Severity,
        response: RejectingResponse<'_>,
    ) -> Rejection {
        let now = self.shared.fetcher.timeline.read();
        let rejection = match self.existing_entry(request) {
            Some(entry) => entry.report(|state| state.reject(generation, severity, now)),
            None => Rejection::Superseded,
        };
        self.observers().emit(|| Event::TokenRejected {
            token_request: request,
            outcome: match rejection {
                Rejection::Effective(_) => RejectionOutcome::Effective,
                Rejection::Superseded => RejectionOutcome::Superseded,
                Rejection::Spaced => RejectionOutcome::Spaced,
            },
            response,
        });
        rejection
    }

    /// Returns true if a text contains a token for this request: the current one, or the one that
    /// was rejected last.
    pub(crate) fn occurs_in(&self, request: &TokenRequest, text: &str) -> bool {
        self.existing_entry(request)
            .is_some_and(|entry| entry.inspect(|state| state.occurs_in(text)))
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.shared.fetcher.observers
    }

    /// Records whether the replay of the request that caused a rejection was rejected too.
    pub(crate) fn record_replay(
        &self,
        request: &TokenRequest,
        rejection: RejectionId,
        rejected: bool,
    ) -> Option<NewTokens> {
        self.existing_entry(request)?
            .report(|state| state.record_replay(rejection, rejected))
    }

    /// Records that the request that caused a rejection is not replayed.
    pub(crate) fn abandon_replay(&self, request: &TokenRequest, rejection: RejectionId) {
        if let Some(entry) = self.existing_entry(request) {
            entry.report(|state| state.abandon_replay(rejection));
        }
    }

    /// Records a response to a token whose responses are awaited.
    pub(crate) fn record_response(
        &self,
        request: &TokenRequest,
        generation: u64,
        rejected: bool,
    ) -> Option<NewTokens> {
        self.existing_entry(request)?
            .report(|state| state.record_response(generation, rejected))
    }

    /// Returns the runtime for fetches.
    fn runtime(&self) -> Result<Handle, TokenError> {
        match &self.shared.fetcher.runtime {
            Some(runtime) => Ok(runtime.clone()),
            None => runtime::current(),
        }
    }

    #[inline]
    fn now(&self) -> Moment {
        self.shared.fetcher.timeline.now()
    }

    fn entry(&self, request: &TokenRequest) -> Arc<Entry> {
        if request.is_default() {
            Arc::clone(&self.shared.default)
        } else {
            self.shared.tenants.entry(request, self.now())
        }
    }

    /// Returns the entry of a request, unless it was evicted: reports about it are then ignored.
    fn existing_entry(&self, request: &TokenRequest) -> Option<Arc<Entry>> {
        if request.is_default() {
            Some(Arc::clone(&self.shared.default))
        } else {
            self.shared.tenants.get(request, self.now())
        }
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache")
            .field("fetcher", &self.shared.fetcher)
            .field("tenants", &self.shared.tenants)
            .finish_non_exhaustive()
    }
}
