//! A token source that needs no server.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::TokenError;
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// A [`TokenSource`] for tests, which returns `mock-token-1`, `mock-token-2` and so on.
///
/// A test can queue failures, delay fetches, and hold them until it releases them.
///
/// Clones share their failures, holds, counters and token numbers; each clone has its own lifetime
/// and latency. Time is tokio's: `tokio::time::pause()` and `advance(…)` expire tokens.
///
/// ```
/// use bearer_auth::{MockTokenSource, TokenCache, TokenError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), TokenError> {
/// let tokens = MockTokenSource::new();
/// let cache = TokenCache::new(tokens.clone());
/// assert_eq!(cache.token().await?.expose_secret(), "mock-token-1");
///
/// tokens.fail_next(TokenError::permanent("no"));
/// cache.invalidate(&cache.token().await?);
/// assert!(cache.token().await.is_err());
/// assert_eq!(tokens.fetches(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MockTokenSource {
    lifetime: Duration,
    latency: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The number of live [`Hold`]s.
    holds: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    requests: Vec<TokenRequest>,
    issued: usize,
    failures: VecDeque<Failure>,
}

/// A failure of a number of fetches.
struct Failure {
    /// The only request that it is for, or `None` for all requests.
    request: Option<TokenRequest>,
    /// The number of fetches that are still to fail; never zero.
    times: usize,
    error: TokenError,
}

/// A guard that makes fetches wait until it is dropped; see [`MockTokenSource::hold`].
#[must_use = "fetches continue as soon as the `Hold` is dropped"]
pub struct Hold {
    shared: Arc<Shared>,
}

impl MockTokenSource {
    /// Creates a source that returns tokens at once, valid for 1 h.
    pub fn new() -> Self {
        Self {
            lifetime: Duration::from_secs(3600),
            latency: Duration::ZERO,
            shared: Arc::new(Shared {
                state: Mutex::default(),
                holds: watch::Sender::new(0),
            }),
        }
    }

    /// Sets the lifetime of the tokens that this clone returns.
    ///
    /// Zero means that the tokens have no known lifetime, as in [`AccessToken::with_lifetime`].
    ///
    /// Default: 1 h.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets the time that each fetch of this clone takes, by tokio's clock.
    ///
    /// Default: zero.
    #[must_use]
    pub fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Makes the next fetch fail with `error`, after any failures already queued.
    ///
    /// The cache may retry a transient failure before it reports it. The retry calls the source
    /// again, so it counts as another fetch.
    pub fn fail_next(&self, error: TokenError) {
        self.fail_times(1, error);
    }

    /// Makes the next `times` fetches fail with `error`, after any failures already queued.
    ///
    /// With `usize::MAX`, all fetches fail until [`clear_failures`](Self::clear_failures).
    pub fn fail_times(&self, times: usize, error: TokenError) {
        self.queue(None, times, error);
    }

    /// Makes the next fetch of a token for `request` fail with `error`.
    ///
    /// Fetches for other requests leave the failure in the queue. A request of another scope,
    /// resource, audience or parameter is another request.
    pub fn fail_next_for(&self, request: &TokenRequest, error: TokenError) {
        self.fail_times_for(request, 1, error);
    }

    /// Makes the next `times` fetches of a token for `request` fail with `error`, after any
    /// failures already queued that apply to it.
    pub fn fail_times_for(&self, request: &TokenRequest, times: usize, error: TokenError) {
        self.queue(Some(request.clone()), times, error);
    }

    /// Removes all failures from the queue, so that the next fetch succeeds.
    ///
    /// A fetch in progress that waits for a [`Hold`] or its latency succeeds too.
    pub fn clear_failures(&self) {
        self.state().failures.clear();
    }

    /// Makes all fetches wait, including those in progress, until the returned [`Hold`] is dropped.
    ///
    /// If there are several holds, fetches wait until the last of them is dropped.
    pub fn hold(&self) -> Hold {
        self.shared.holds.send_modify(|holds| *holds += 1);
        Hold {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Returns the number of fetches that have started.
    pub fn fetches(&self) -> usize {
        self.state().requests.len()
    }

    /// Returns the requests of all fetches that have started, in order.
    ///
    /// The request of `mock-token-n` is the n-th of them only if no fetch has failed and none
    /// overtook another.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.state().requests.clone()
    }

    fn queue(&self, request: Option<TokenRequest>, times: usize, error: TokenError) {
        if times > 0 {
            self.state().failures.push_back(Failure {
                request,
                times,
                error,
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the first failure in the queue that applies to `request`.
    fn next_failure(&mut self, request: &TokenRequest) -> Option<TokenError> {
        let applies =
            |failure: &Failure| failure.request.as_ref().is_none_or(|only| only == request);
        let position = self.failures.iter().position(applies)?;
        let failure = self.failures.get_mut(position)?;
        failure.times -= 1;
        if failure.times > 0 {
            return Some(failure.error.clone());
        }
        self.failures.remove(position).map(|failure| failure.error)
    }
}

#[async_trait]
impl TokenSource for MockTokenSource {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        self.state().requests.push(request.clone());
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        // This fails only if the sender is dropped, and `self` keeps it.
        let _ = self
            .shared
            .holds
            .subscribe()
            .wait_for(|holds| *holds == 0)
            .await;
        let number = {
            let mut state = self.state();
            if let Some(error) = state.next_failure(request) {
                return Err(error);
            }
            state.issued += 1;
            state.issued
        };
        Ok(AccessToken::new(format!("mock-token-{number}"))?.with_lifetime(self.lifetime))
    }
}

impl Default for MockTokenSource {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MockTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockTokenSource")
            .field("lifetime", &self.lifetime)
            .field("latency", &self.latency)
            .field("fetches", &self.fetches())
            .finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.holds.send_modify(|holds| *holds -= 1);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}
