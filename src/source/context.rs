//! The reason of a fetch, and what else the cache knows about it.

use std::time::Duration;

use tokio::time::Instant;

use crate::observe::Observers;
use crate::token::AccessToken;

/// The reason why the cache fetches a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchReason {
    /// The cache has had no token for this request yet.
    First,
    /// The token is due for its refresh. It is still used.
    Due,
    /// The token expires soon, and callers wait a moment for its successor.
    Late,
    /// The token has expired.
    Expired,
    /// An API rejected the token.
    Rejected,
    /// The token was withdrawn with [`TokenCache::invalidate`](crate::TokenCache::invalidate).
    Invalidated,
}

/// A fetch as the cache knows it, for
/// [`TokenSource::fetch_with`](crate::TokenSource::fetch_with).
///
/// ```
/// use std::time::Duration;
/// use bearer_auth::{AccessToken, FetchContext, FetchReason};
/// use tokio::time::Instant;
///
/// let context = FetchContext::new(FetchReason::Rejected, Instant::now() + Duration::from_secs(30))
///     .with_rejected(AccessToken::new("old")?);
/// assert_eq!(context.rejected().map(AccessToken::expose_secret), Some("old"));
/// # Ok::<(), bearer_auth::InvalidToken>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FetchContext {
    reason: FetchReason,
    held: Option<AccessToken>,
    /// The time at which the cache stops using that token, unless it never does.
    #[cfg_attr(not(feature = "fleet"), allow(dead_code))]
    held_until: Option<Instant>,
    rejected: Option<AccessToken>,
    deadline: Instant,
    /// For the troubles of a source. Without a cache there are none.
    #[cfg_attr(
        not(any(feature = "client-credentials", feature = "fleet")),
        allow(dead_code)
    )]
    observers: Observers,
}

impl FetchContext {
    /// Creates the context of a fetch without a token, for tests of sources and for sources that
    /// ask others.
    pub fn new(reason: FetchReason, deadline: Instant) -> Self {
        Self {
            reason,
            held: None,
            held_until: None,
            rejected: None,
            deadline,
            observers: Observers::default(),
        }
    }

    /// Sets the token that the cache holds.
    ///
    /// Default: none.
    #[must_use]
    pub fn with_held(mut self, token: AccessToken) -> Self {
        self.held = Some(token);
        self
    }

    /// Sets the token that an API rejected.
    ///
    /// Default: none.
    #[must_use]
    pub fn with_rejected(mut self, token: AccessToken) -> Self {
        self.rejected = Some(token);
        self
    }

    /// Sets the life that the token of the cache has left, unless it is unlimited.
    pub(crate) fn with_held_life(mut self, life: Option<Duration>) -> Self {
        self.held_until = life.map(|life| Instant::now() + life);
        self
    }

    /// Returns the time at which the cache stops using the token that it holds, if it is known.
    #[cfg(feature = "fleet")]
    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Sets the observers of the cache.
    pub(crate) fn with_observers(mut self, observers: &Observers) -> Self {
        self.observers = observers.clone();
        self
    }

    /// Returns the observers of the cache.
    #[cfg(any(feature = "client-credentials", feature = "fleet"))]
    pub(crate) fn observers(&self) -> &Observers {
        &self.observers
    }

    /// Sets the time at which the fetch ends.
    #[cfg(feature = "fleet")]
    pub(crate) fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }

    /// Returns the reason for which the fetch was started. It is the same for each of its tries.
    pub fn reason(&self) -> FetchReason {
        self.reason
    }

    /// Returns the token that the cache holds at this try, as the source returned it. It may have
    /// expired.
    ///
    /// There is none before the first token, nor after one was withdrawn: because an API declared
    /// it invalid, or by [`TokenCache::invalidate`](crate::TokenCache::invalidate).
    pub fn held(&self) -> Option<&AccessToken> {
        self.held.as_ref()
    }

    /// Returns the token that was rejected or invalidated last, as the source returned it.
    ///
    /// It is set at every try of every fetch until another value is stored, so that a source which
    /// keeps tokens does not return it again.
    pub fn rejected(&self) -> Option<&AccessToken> {
        self.rejected.as_ref()
    }

    /// Returns the time at which the cache ends the fetch, all tries together.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}
