//! The state of a token, for readiness probes and dashboards.

use std::time::{Duration, SystemTime};

use crate::cache::TokenCache;
use crate::cache::state::State;
use crate::clock::Moment;
use crate::error::TokenError;
use crate::token::request::TokenRequest;

/// The state of a token at one moment, see [`TokenCache::status`].
#[derive(Clone, Debug)]
pub struct TokenStatus {
    state: TokenState,
    is_fetching: bool,
    expires_at: Option<SystemTime>,
    age: Option<Duration>,
    retry_after: Option<Duration>,
    last_error: Option<TokenError>,
}

/// The stages of a token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// There has been no token yet, or its entry was evicted.
    Absent,
    /// The token is usable.
    Fresh,
    /// The token is usable, and the next request starts its refresh in the background.
    Due,
    /// The token is usable, and requests wait up to 1 s for its refresh.
    Late,
    /// The token has expired.
    Expired,
    /// The token was rejected by an API as invalid, or was
    /// [invalidated](TokenCache::invalidate), and there is no other yet.
    Rejected,
}

impl TokenStatus {
    pub(crate) fn new(state: &State, now: Moment) -> Self {
        let current = state.current();
        let paused = state.paused(now);
        Self {
            state: match current.map(|current| current.lifespan) {
                None if state.is_withdrawn() => TokenState::Rejected,
                None => TokenState::Absent,
                Some(life) if now.has_reached(life.expired) => TokenState::Expired,
                Some(life) if now.has_reached(life.late) => TokenState::Late,
                Some(life) if now.has_reached(life.due) => TokenState::Due,
                Some(_) => TokenState::Fresh,
            },
            is_fetching: state.is_fetching(),
            expires_at: current.and_then(|current| current.lifespan.end()),
            age: current.map(|current| {
                let requested = current.requested.monotonic();
                now.monotonic().saturating_sub(requested)
            }),
            retry_after: paused.as_ref().and_then(TokenError::retry_after),
            last_error: paused.or_else(|| state.last_error().cloned()),
        }
    }

    /// Returns the status of a token that the cache has no entry for.
    fn absent() -> Self {
        Self {
            state: TokenState::Absent,
            is_fetching: false,
            expires_at: None,
            age: None,
            retry_after: None,
            last_error: None,
        }
    }

    /// Returns the stage of the token's life.
    pub fn state(&self) -> TokenState {
        self.state
    }

    /// Returns true if a request sent now would carry a token, whether or not a refresh succeeds:
    /// the token is fresh, due or late. While it is late, the request waits up to 1 s for the
    /// refresh.
    pub fn is_ready(&self) -> bool {
        match self.state {
            TokenState::Fresh | TokenState::Due | TokenState::Late => true,
            TokenState::Absent | TokenState::Expired | TokenState::Rejected => false,
        }
    }

    /// Returns true if a fetch is queued or in progress.
    pub fn is_fetching(&self) -> bool {
        self.is_fetching
    }

    /// Returns the time at which the token expires or has expired, by the wall clock; `None` if it
    /// never does, or if there is none.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// Returns the time since the token was requested from the source; `None` if there is none.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Returns the time until the source may be called again; `None` outside of a pause.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the error of the last fetch; `None` if it has succeeded.
    ///
    /// The error stays when the pause after it has ended, until a fetch succeeds.
    pub fn last_error(&self) -> Option<TokenError> {
        self.last_error.clone()
    }
}

impl TokenCache {
    /// Returns the status of the token for the source's own configuration, for readiness probes.
    ///
    /// Never fetches and never waits for a fetch. A cache that nobody has asked for a token is not
    /// ready: call [`token`](Self::token) at the start of the program.
    ///
    /// ```
    /// use bearer_auth::{StaticTokenSource, TokenCache, TokenState};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = TokenCache::new(StaticTokenSource::new("opaque")?);
    /// assert_eq!(cache.status().state(), TokenState::Absent);
    /// cache.token().await?;
    /// assert!(cache.status().is_ready());
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> TokenStatus {
        self.status_of(&TokenRequest::default())
    }

    /// Returns the status of the token for this request.
    ///
    /// See [`status`](Self::status). It does not count as a use of the token: the entry may be
    /// evicted all the same.
    pub fn status_of(&self, request: &TokenRequest) -> TokenStatus {
        let now = self.now();
        if request.is_default() {
            return self
                .shared
                .default
                .inspect(|state| TokenStatus::new(state, now));
        }
        match self.shared.tenants.find(request) {
            Some(entry) => entry.inspect(|state| TokenStatus::new(state, now)),
            None => TokenStatus::absent(),
        }
    }
}
