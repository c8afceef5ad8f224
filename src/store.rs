//! The store through which the processes of a fleet share tokens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::BoxError;

#[cfg(feature = "mock")]
pub(crate) mod conformance;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;

/// Keeps sealed records and leases for
/// [`SharedTokenSource`](crate::SharedTokenSource): a store that all processes of a fleet reach.
///
/// The store is trusted with nothing but availability. It sees sealed records and hashed names, and
/// no caller fails because a store is slow, unreachable or wrong: the process then fetches alone,
/// except with [`require_lease`](crate::SharedTokenSource::require_lease).
///
/// `RedisTokenStore` (feature `redis`) implements it for Redis and Valkey, [`InMemoryTokenStore`]
/// for tests. `token_store_conformance` (feature `mock`) checks another implementation. The trait
/// is object-safe.
///
/// [`InMemoryTokenStore`]: crate::InMemoryTokenStore
///
/// # Cancel safety
///
/// Each operation has a time limit, after which its future is dropped. An implementation that talks
/// over a connection then has to give up that connection, so that no later operation reads the
/// answer to an earlier one. The operation itself may still happen, late: its conditions keep it
/// from doing harm.
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// Returns the record of a key with the moment at which it expires, and the store's time.
    ///
    /// All three belong to one moment: Redis reads them in one script.
    ///
    /// # Errors
    ///
    /// Returns [`StoreError`] if the store cannot be reached or does not answer as it should.
    async fn load(&self, key: &StoreKey) -> Result<Loaded, StoreError>;

    /// Stores a record until `expires_at`, if the key has exactly the record `expected`, or none
    /// if that is `None`. Returns true if it did.
    ///
    /// A moment that has passed removes the record.
    ///
    /// # Errors
    ///
    /// As of [`load`](Self::load), and if the store is full.
    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<&[u8]>,
        record: &[u8],
        expires_at: StoreTime,
    ) -> Result<bool, StoreError>;

    /// Gives the lease of a key to `owner` for `span`, unless somebody has it.
    ///
    /// # Errors
    ///
    /// As of [`load`](Self::load).
    async fn acquire(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<Option<Lease>, StoreError>;

    /// Sets the end of a lease to `span` from now, if it belongs to `owner`. Returns true if it
    /// does.
    ///
    /// # Errors
    ///
    /// As of [`load`](Self::load).
    async fn extend(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<bool, StoreError>;

    /// Ends a lease, if it belongs to `owner`.
    ///
    /// # Errors
    ///
    /// As of [`load`](Self::load).
    async fn release(&self, key: &StoreKey, owner: &LeaseOwner) -> Result<(), StoreError>;

    /// Wakes those who watch the key, in all processes.
    ///
    /// # Errors
    ///
    /// As of [`load`](Self::load).
    async fn publish(&self, key: &StoreKey) -> Result<(), StoreError>;

    /// Waits until the key is published. May also return earlier, or never: those who wait look at
    /// the record every 50 to 250 ms, too.
    async fn watch(&self, key: &StoreKey);
}

/// The name of the record and the lease of one token.
///
/// It is made of keyed hashes (HMAC-SHA256), and says nothing about the token, its tenant or the
/// client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreKey {
    fleet: [u8; 16],
    token: [u8; 16],
}

/// A record as a store returns it, see [`TokenStore::load`].
#[derive(Clone)]
pub struct Loaded {
    pub(crate) record: Option<Vec<u8>>,
    pub(crate) expires_at: Option<StoreTime>,
    pub(crate) now: StoreTime,
}

/// A moment by the clock of the store, in milliseconds since a moment of the store's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreTime(u64);

/// A random value that identifies the holder of a lease.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseOwner([u8; 16]);

/// The number of a lease, which orders the records that its holders write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(crate) epoch: [u8; 16],
    pub(crate) fence: u64,
}

/// The reason why a store failed.
///
/// It reaches no caller of a token, but observers and logs. An implementation keeps records, keys
/// and passwords out of it.
#[derive(Clone)]
pub struct StoreError(Arc<dyn std::error::Error + Send + Sync>);

impl StoreKey {
    pub(crate) fn new(fleet: [u8; 16], token: [u8; 16]) -> Self {
        Self { fleet, token }
    }

    /// Returns the hash of the fleet's identity: 16 bytes, for a channel that the fleet watches.
    pub fn fleet(&self) -> &[u8; 16] {
        &self.fleet
    }

    /// Returns the hash of the token's identity: 16 bytes, unlike those of all other tokens.
    pub fn token(&self) -> &[u8; 16] {
        &self.token
    }
}

impl Loaded {
    /// Says that there is no record.
    pub fn absent(now: StoreTime) -> Self {
        Self {
            record: None,
            expires_at: None,
            now,
        }
    }

    /// Returns a record. One that does not expire was not written by this crate, and is replaced.
    pub fn present(record: Vec<u8>, expires_at: Option<StoreTime>, now: StoreTime) -> Self {
        Self {
            record: Some(record),
            expires_at,
            now,
        }
    }

    /// Returns the record, if there is one.
    pub fn record(&self) -> Option<&[u8]> {
        self.record.as_deref()
    }

    /// Returns the moment at which the record expires.
    pub fn expires_at(&self) -> Option<StoreTime> {
        self.expires_at
    }

    /// Returns the store's time at which it was read.
    pub fn now(&self) -> StoreTime {
        self.now
    }
}

impl StoreTime {
    /// Returns the moment after this number of milliseconds.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the number of milliseconds since the moment that the store counts from.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    pub(crate) fn plus(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns the time until `later`; zero if that has passed.
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

impl LeaseOwner {
    /// Creates an owner from random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Returns the random bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Lease {
    /// Creates the number of a lease.
    ///
    /// `epoch` is random: a store chooses it again whenever it has lost its `fence`, which is one
    /// higher at each lease of a key.
    pub fn new(epoch: [u8; 16], fence: u64) -> Self {
        Self { epoch, fence }
    }

    /// Returns the random value within which fences are ordered.
    pub fn epoch(&self) -> &[u8; 16] {
        &self.epoch
    }

    /// Returns the number, which is higher at each lease of a key.
    pub fn fence(&self) -> u64 {
        self.fence
    }
}

impl StoreError {
    /// Creates an error.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(Arc::from(error.into()))
    }
}

/// Returns random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(StoreError::new)?;
    Ok(bytes)
}

macro_rules! forward_to_inner {
    ($pointer:ident) => {
        #[async_trait]
        impl<T: TokenStore + ?Sized> TokenStore for $pointer<T> {
            async fn load(&self, key: &StoreKey) -> Result<Loaded, StoreError> {
                (**self).load(key).await
            }

            async fn compare_and_swap(
                &self,
                key: &StoreKey,
                expected: Option<&[u8]>,
                record: &[u8],
                expires_at: StoreTime,
            ) -> Result<bool, StoreError> {
                let swap = (**self).compare_and_swap(key, expected, record, expires_at);
                swap.await
            }

            async fn acquire(
                &self,
                key: &StoreKey,
                owner: &LeaseOwner,
                span: Duration,
            ) -> Result<Option<Lease>, StoreError> {
                (**self).acquire(key, owner, span).await
            }

            async fn extend(
                &self,
                key: &StoreKey,
                owner: &LeaseOwner,
                span: Duration,
            ) -> Result<bool, StoreError> {
                (**self).extend(key, owner, span).await
            }

            async fn release(&self, key: &StoreKey, owner: &LeaseOwner) -> Result<(), StoreError> {
                (**self).release(key, owner).await
            }

            async fn publish(&self, key: &StoreKey) -> Result<(), StoreError> {
                (**self).publish(key).await
            }

            async fn watch(&self, key: &StoreKey) {
                (**self).watch(key).await;
            }
        }
    };
}

forward_to_inner!(Arc);
forward_to_inner!(Box);

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("bytes", &self.record.as_ref().map(Vec::len))
            .field("expires_at", &self.expires_at)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseOwner(..)")
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreError").field(&self.0).finish()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token store failed: check that it is reachable and has memory left")
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
