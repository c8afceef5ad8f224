//! The token cache: at most one fetch at a time per [`TokenRequest`], renewal ahead of expiry,
//! pauses after failures.

use std::fmt;
use std::sync::Arc;

use crate::cache::cached_token::CachedToken;
use crate::cache::entry::{Boarding, Entry};
use crate::cache::fetch::{Fetcher, Outcome, Ticket, runtime};
use crate::cache::state::{Rejection, RejectionId};
use crate::cache::tenants::Tenants;
use crate::clock::Moment;
use crate::error::{TokenError, TokenErrorKind};
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

mod builder;
pub(crate) mod cached_token;
mod entry;
mod fetch;
mod last_used;
mod lifespan;
pub(crate) mod per_thread;
mod published;
pub(crate) mod state;
mod tenants;

pub use builder::TokenCacheBuilder;
pub(crate) use fetch::within;

/// Keeps the tokens of a [`TokenSource`], one per [`TokenRequest`].
///
/// [`BearerAuthLayer`](crate::BearerAuthLayer) has one inside. On its own it serves what is not an
/// HTTP request: a WebSocket, a Kafka login, a gRPC credential.
///
/// Clones share tokens and flights. When the last handle is gone (clones, layers, services and calls
/// that wait), background work ends.
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
    /// The default token request's, off the map.
    default: Arc<Entry>,
    tenants: Arc<Tenants>,
}

/// A caller on board: with the token, or with a ticket for the flight that fetches it.
enum Boarded {
    Served(Arc<CachedToken>),
    Waits(Arc<Entry>, Ticket),
}

/// With the last handle, what is queued ends first, or the end of one flight would begin the next.
impl Drop for Shared {
    fn drop(&mut self) {
        self.fetcher.slots.close();
    }
}

impl TokenCache {
    /// A cache with the default settings, see [`TokenCache::builder`].
    pub fn new(source: impl TokenSource) -> Self {
        Self::builder(source).build_unchecked()
    }

    /// A cache with other settings.
    pub fn builder(source: impl TokenSource) -> TokenCacheBuilder {
        TokenCacheBuilder::new(Arc::new(source))
    }

    /// A token of the source's own configuration.
    ///
    /// # Errors
    ///
    /// See [`token_for`](TokenCache::token_for).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch that was begun goes on, and the next caller finds its token.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        self.token_for(&TokenRequest::default()).await
    }

    /// A token for this request.
    ///
    /// At once if there is one that has not expired, else when the one fetch that is under way for all
    /// callers has brought it.
    ///
    /// # Errors
    ///
    /// The fetch failed or timed out, or failed a while ago and the pause after it has not ended:
    /// then [`TokenError::retry_after`] is the time that remains. Outside of a tokio runtime with
    /// timers only a token that is at hand can be had ([`TokenErrorKind::NoRuntime`]). A setting of the
    /// builder or a parameter of the request can't work ([`TokenErrorKind::InvalidSetting`]).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fetch that was begun goes on, and the next caller finds its token.
    pub async fn token_for(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        if let Some(token) = self.if_in_order(request, CachedToken::token) {
            return Ok(token);
        }
        self.acquire(request).await.map(AccessToken::held_by)
    }

    /// Says that a server refused this token.
    ///
    /// It is served no more, and the next call fetches another.
    ///
    /// The token knows where it came from; nothing happens unless it is still current there, so a
    /// late call never costs a newer token. Unlike a 401 that the layer sees, this has no spacing:
    /// call it for a refusal, not by the clock.
    pub fn invalidate(&self, token: &AccessToken) {
        if let Some(issued) = token.issued() {
            self.at_entry(&issued.request, |entry| {
                entry.report(|state| state.invalidate(issued.generation))
            });
        }
    }

    /// Calls `with` on the token for a request, if it is in order: without a lock that a renewal holds, an
    /// allocation or an await.
    #[inline]
    pub(crate) fn if_in_order<R>(
        &self,
        request: &TokenRequest,
        with: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        let now = self.now();
        if request.is_default() {
            self.shared.default.if_in_order(now, with)
        } else {
            self.shared.tenants.if_in_order(request, now, with)
        }
    }

    /// The token for a request: at once, or when the flight has landed.
    pub(crate) async fn acquire(
        &self,
        request: &TokenRequest,
    ) -> Result<Arc<CachedToken>, TokenError> {
        // One flight of one's own, and one more if its runtime went away under it.
        let mut launches = 2_i32;
        loop {
            let (entry, mut ticket) = match self.board(request, &mut launches)? {
                Boarded::Served(current) => return Ok(current),
                Boarded::Waits(entry, ticket) => (entry, ticket),
            };
            match ticket.wait(&self.shared.fetcher).await? {
                Outcome::Landed(result) => return result,
                Outcome::Rejected => launches = 2,
                // Its task has given it up already; if not, this is no place to go round in circles.
                Outcome::Lost => entry.abandon(ticket.flight),
                Outcome::TimedOut => {
                    entry.abandon(ticket.flight);
                    return Err(TokenError::new(TokenErrorKind::Timeout, true));
                }
            }
        }
    }

    /// Serves the token or boards the flight, which is started if there is none: as long as there are
    /// `launches` left.
    fn board(&self, request: &TokenRequest, launches: &mut i32) -> Result<Boarded, TokenError> {
        let fetcher = &self.shared.fetcher;
        loop {
            let entry = self.entry(request);
            let runtime = runtime();
            let ticket = match entry.board(self.now()) {
                Boarding::Serve(current) => return Ok(Boarded::Served(current)),
                Boarding::Fail(error) => return Err(error),
                Boarding::Retired => continue,
                Boarding::ServeAndLaunch(current, launch) => {
                    // Dropped without a runtime; a later caller may have one.
                    match runtime {
                        Ok(runtime) => launch.start(&entry, fetcher, &runtime),
                        Err(_) => entry.abandon(launch.flight()),
                    }
                    return Ok(Boarded::Served(current));
                }
                Boarding::Launch(launch, ticket) => {
                    *launches -= 1;
                    match runtime {
                        Ok(runtime) if *launches >= 0 => launch.start(&entry, fetcher, &runtime),
                        Ok(_) => {
                            entry.abandon(launch.flight());
                            return Err(TokenError::new(TokenErrorKind::NoRuntime, false));
                        }
                        Err(error) => {
                            entry.abandon(launch.flight());
                            return Err(error);
                        }
                    }
                    ticket
                }
                Boarding::Wait(ticket) => {
                    runtime?;
                    if ticket.is_overdue() {
                        // Nobody drives it, and nobody was there to notice.
                        entry.abandon(ticket.flight);
                        continue;
                    }
                    ticket
                }
            };
            return Ok(Boarded::Waits(entry, ticket));
        }
    }

    /// Starts a flight for this request if one is called for, and waits for nothing.
    pub(crate) fn renew(&self, request: &TokenRequest) {
        // Without a runtime the next caller starts it instead, or is told.
        if let Ok(runtime) = runtime() {
            let entry = self.entry(request);
            match entry.board(self.now()) {
                Boarding::ServeAndLaunch(_, launch) | Boarding::Launch(launch, _) => {
                    launch.start(&entry, &self.shared.fetcher, &runtime);
                }
                _ => {}
            }
        }
    }

    /// An API refused the token of this generation.
    pub(crate) fn reject(&self, request: &TokenRequest, generation: u64) -> Rejection {
        let now = self.shared.fetcher.timeline.read();
        self.at_entry(request, |entry| {
            entry.report(|state| state.reject(generation, now))
        })
        .unwrap_or(Rejection::Superseded)
    }

    /// How the request that caused the rejection fared with the new token.
    pub(crate) fn judge(&self, request: &TokenRequest, rejection: RejectionId, refused: bool) {
        self.at_entry(request, |entry| {
            entry.report(|state| state.judge(rejection, refused))
        });
    }

    /// The request that caused the rejection is not sent again.
    pub(crate) fn forgo(&self, request: &TokenRequest, rejection: RejectionId) {
        self.at_entry(request, |entry| {
            entry.report(|state| state.forgo(rejection))
        });
    }

    /// An answer came to a token on probation.
    pub(crate) fn first_answer(&self, request: &TokenRequest, generation: u64, refused: bool) {
        self.at_entry(request, |entry| {
            entry.report(|state| state.first_answer(generation, refused))
        });
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

    /// Calls `with` on the entry, if it is there: a report on an entry that is gone is void.
    fn at_entry<R>(&self, request: &TokenRequest, with: impl FnOnce(&Entry) -> R) -> Option<R> {
        if request.is_default() {
            Some(with(&self.shared.default))
        } else {
            let entry = self.shared.tenants.get(request, self.now())?;
            Some(with(&entry))
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
