//! Tokens without a server.

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

/// A [`TokenSource`] for tests: `mock-token-1`, `mock-token-2`, …, with failures and waits on request.
///
/// Clones share their state.
///
/// Tokens live for 1 h unless [`with_lifetime`](Self::with_lifetime) says otherwise. Time is tokio's:
/// `tokio::time::pause()` and `advance(…)` expire them.
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
    /// How many [`Hold`]s there are.
    holds: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    requests: Vec<TokenRequest>,
    issued: usize,
    failures: VecDeque<TokenError>,
}

/// Fetches wait until this is dropped. See [`MockTokenSource::hold`].
#[must_use = "dropped at once, it holds nothing"]
pub struct Hold {
    shared: Arc<Shared>,
}

impl MockTokenSource {
    /// A source whose tokens live for 1 h and come at once.
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

    /// The life of this clone's tokens. Zero: none is named.
    ///
    /// Default: 1 h.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// How long each fetch of this clone takes, by tokio's clock.
    ///
    /// Default: zero.
    #[must_use]
    pub fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// The next fetch that has no failure queued yet fails with this.
    ///
    /// A transient failure is tried again in the same flight, which is one more fetch.
    pub fn fail_next(&self, error: TokenError) {
        self.fail_times(1, error);
    }

    /// As many fetches fail with this, after those that are queued already.
    pub fn fail_times(&self, times: usize, error: TokenError) {
        self.state()
            .failures
            .extend(std::iter::repeat_n(error, times));
    }

    /// Fetches, those under way too, wait until the [`Hold`] is dropped.
    pub fn hold(&self) -> Hold {
        self.shared.holds.send_modify(|holds| *holds += 1);
        Hold {
            shared: Arc::clone(&self.shared),
        }
    }

    /// How many fetches have begun.
    pub fn fetches(&self) -> usize {
        self.state().requests.len()
    }

    /// What was asked for, in order.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TokenSource for MockTokenSource {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        self.state().requests.push(request.clone());
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        // Fails only if the sender is gone, which `self` keeps.
        let _ = self
            .shared
            .holds
            .subscribe()
            .wait_for(|holds| *holds == 0)
            .await;
        let number = {
            let mut state = self.state();
            if let Some(error) = state.failures.pop_front() {
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
