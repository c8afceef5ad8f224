//! A source whose tokens all processes of a fleet share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::error::{InvalidSetting, TokenError};
use crate::source::TokenSource;
use crate::source::context::{FetchContext, FetchReason};
use crate::source::shared::breaker::Guarded;
use crate::source::shared::identity::{FleetIdentity, Names};
use crate::source::shared::keys::SealingKeys;
use crate::source::shared::process::Alone;
use crate::source::shared::reports::Reports;
use crate::source::shared::seen::Seen;
use crate::store::TokenStore;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

mod alone;
mod breaker;
pub(crate) mod identity;
pub(crate) mod keys;
mod lease;
mod process;
mod record;
mod reports;
mod seen;
mod timed;
mod view;

const DEFAULT_OPERATION_TIMEOUT: Duration = Duration::from_millis(50);
/// The time limit of a fetch that no cache asks for.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// A source whose tokens all processes of a fleet share, through a [`TokenStore`].
///
/// It wraps the source that obtains tokens. Of all processes with the same [`FleetIdentity`], one
/// fetches a token, and the others take it from the store. They share its due time, the pause after
/// a failed fetch, and the replacement of a rejected token, too.
///
/// The store is asked only when a cache needs another token. While a token is fresh, requests cost
/// what they cost without a store. Records are sealed, see [`SealingKeys`].
///
/// **No caller fails because of the store**, except with [`require_lease`](Self::require_lease).
/// While it is slow, unreachable, full or wrong, each process fetches for itself, as without it,
/// and comes back when the store does. If such a fetch fails, the token endpoint is left alone for
/// the pause that follows, but the store is asked again once a second: another process may have a
/// token. The events [`StoreUnavailable`](crate::Event::StoreUnavailable) and
/// [`StoreAvailable`](crate::Event::StoreAvailable) say so.
///
/// A token whose lifetime is unknown is not shared, since no process could say when it ends: each
/// fetches its own. One that [never expires](AccessToken::without_expiry) is shared for a day.
///
/// ```no_run
/// # #[cfg(not(all(feature = "redis", feature = "client-credentials")))]
/// # fn main() {}
/// # #[cfg(all(feature = "redis", feature = "client-credentials"))]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bearer_auth::{
///     BearerAuthLayer, ClientCredentials, FleetIdentity, RedisTokenStore, SealingKeys,
///     SharedTokenSource,
/// };
/// # let (name_key, new, old) = ([0; 32], [1; 32], [2; 32]);
///
/// let token_url = "https://identity.example.com/connect/token";
/// let credentials = ClientCredentials::builder(token_url)
///     .client_id("my-client")
///     .client_secret("s3cret")
///     .build()?;
/// let store = RedisTokenStore::new("redis://127.0.0.1/")?;
/// let identity = FleetIdentity::new(token_url, "my-client");
/// let source = SharedTokenSource::new(credentials, store, identity)
///     .name_key(name_key)?
///     .sealed_with(SealingKeys::new("2026-11", new)?.and_open("2026-05", old)?);
/// let auth = BearerAuthLayer::new(source).allow_origin("https://api.example.com")?;
/// # let _ = auth;
/// # Ok(())
/// # }
/// ```
pub struct SharedTokenSource {
    shared: Arc<Shared>,
    is_lease_required: bool,
}

/// The parts that outlive a fetch, since a token is put into the store later.
struct Shared {
    source: Arc<dyn TokenSource>,
    store: Guarded,
    names: Names,
    keys: SealingKeys,
    seen: Seen,
    reports: Reports,
}

/// A [`SharedTokenSource`] that has no keys yet, from [`SharedTokenSource::new`].
#[must_use]
pub struct UnnamedSharedTokenSource {
    source: Arc<dyn TokenSource>,
    store: Arc<dyn TokenStore>,
    identity: FleetIdentity,
}

/// A [`SharedTokenSource`] that has no sealing keys yet, from
/// [`UnnamedSharedTokenSource::name_key`].
#[must_use]
pub struct UnsealedSharedTokenSource {
    source: Arc<dyn TokenSource>,
    store: Arc<dyn TokenStore>,
    names: Names,
}

impl SharedTokenSource {
    /// Shares the tokens of `source` among all processes with the same identity.
    ///
    /// Next come the keys: [`name_key`](UnnamedSharedTokenSource::name_key), then
    /// [`sealed_with`](UnsealedSharedTokenSource::sealed_with).
    #[allow(clippy::new_ret_no_self)] // A source without its keys is another type.
    pub fn new(
        source: impl TokenSource,
        store: impl TokenStore,
        identity: FleetIdentity,
    ) -> UnnamedSharedTokenSource {
        UnnamedSharedTokenSource {
            source: Arc::new(source),
            store: Arc::new(store),
            identity,
        }
    }

    /// Sets the time limit of one operation of the store, including a new connection. It is one of
    /// a few operations that a caller without a token waits for.
    ///
    /// Default: 50 ms.
    #[must_use]
    pub fn operation_timeout(self, limit: Duration) -> Self {
        self.shared.store.set_limit(limit);
        self
    }

    /// Fetches only with the lease of the store, and fails without it.
    ///
    /// It is for sources of which two fetches at the same time do harm: one that uses up a refresh
    /// token which the processes share. It is the one way in which a caller fails because of the
    /// store.
    ///
    /// Default: a process fetches without the lease if the store cannot be used.
    #[must_use]
    pub fn require_lease(mut self) -> Self {
        self.is_lease_required = true;
        self
    }

    /// Returns false while the store cannot be read, or cannot be written to, and this process
    /// works alone.
    ///
    /// It starts to after three failures in a row, of reads, of leases or of writes, and tries
    /// again about once a second, whenever a token is needed. If the store can be read, its tokens
    /// are still used.
    pub fn is_store_available(&self) -> bool {
        self.shared.store.is_available()
    }
}

impl UnnamedSharedTokenSource {
    /// Sets the key that makes the names of tokens in the store (HMAC-SHA256).
    ///
    /// All processes need the same one. It is separate from the sealing keys, and stays the same
    /// when they are rotated: with another one, processes do not find each other's tokens.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if it has less than 32 bytes.
    pub fn name_key(
        self,
        key: impl AsRef<[u8]>,
    ) -> Result<UnsealedSharedTokenSource, InvalidSetting> {
        Ok(UnsealedSharedTokenSource {
            names: Names::new(&self.identity, key.as_ref())?,
            source: self.source,
            store: self.store,
        })
    }
}

impl UnsealedSharedTokenSource {
    /// Sets the keys that seal the tokens in the store.
    pub fn sealed_with(self, keys: SealingKeys) -> SharedTokenSource {
        let shared = Shared {
            source: self.source,
            store: Guarded::new(self.store, DEFAULT_OPERATION_TIMEOUT),
            names: self.names,
            keys,
            seen: Seen::default(),
            reports: Reports::default(),
        };
        SharedTokenSource {
            shared: Arc::new(shared),
            is_lease_required: false,
        }
    }
}

#[async_trait]
impl TokenSource for SharedTokenSource {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let context = FetchContext::new(FetchReason::First, Instant::now() + FETCH_TIMEOUT);
        self.fetch_with(request, &context).await
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        let shared = &self.shared;
        let name = shared.names.of(request);
        let outcome = shared.fetch_shared(&name, request, context).await;
        // Its writes, too, before a fetch alone, which may take long.
        shared.reports.store(&shared.store, context.observers());
        match outcome {
            Ok(outcome) => {
                if outcome.is_ok() {
                    shared.seen.end_pause(&name.key);
                }
                outcome
            }
            Err(_) if self.is_lease_required => Err(TokenError::transient(
                "the token store cannot be used, and the source must not fetch without its lease",
            )),
            Err(Alone::Unavailable) => shared.fetch_alone(&name, request, context).await,
            Err(Alone::Unshared) => shared.source.fetch_with(request, context).await,
        }
    }
}

impl fmt::Debug for SharedTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTokenSource")
            .field("keys", &self.shared.keys)
            .field("is_store_available", &self.is_store_available())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UnnamedSharedTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnnamedSharedTokenSource")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UnsealedSharedTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsealedSharedTokenSource")
            .finish_non_exhaustive()
    }
}
