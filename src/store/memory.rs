//! A store in the memory of one process, for tests.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::store::{
    Lease, LeaseOwner, Loaded, StoreError, StoreKey, StoreTime, TokenStore, random,
};

/// The number of published keys that a slow watcher can be behind.
const CHANNEL_SIZE: usize = 1_024;

/// A [`TokenStore`] in memory, for tests: its clones stand for the connections of several processes
/// to one store.
///
/// Its time is tokio's, so `tokio::time::pause` and `advance` expire records and leases.
///
/// ```
/// use bearer_auth::{FleetIdentity, InMemoryTokenStore, SealingKeys, SharedTokenSource};
/// use bearer_auth::{StaticTokenSource, TokenCache};
///
/// let store = InMemoryTokenStore::new();
/// let process = || {
///     let identity = FleetIdentity::new("https://identity.example.com/token", "my-client");
///     let source = SharedTokenSource::new(StaticTokenSource::new("t")?, store.clone(), identity)
///         .name_key([1; 32])?
///         .sealed_with(SealingKeys::new("2026-11", [2; 32])?);
///     Ok::<_, bearer_auth::TokenError>(TokenCache::new(source))
/// };
/// let (one, other) = (process()?, process()?);
/// # let _ = (one, other);
/// # Ok::<(), bearer_auth::TokenError>(())
/// ```
#[derive(Clone)]
pub struct InMemoryTokenStore(Arc<Shared>);

struct Shared {
    /// The moment that the store's time counts from.
    origin: Instant,
    entries: Mutex<HashMap<StoreKey, Entry>>,
    published: broadcast::Sender<StoreKey>,
}

#[derive(Default)]
struct Entry {
    record: Option<(Vec<u8>, StoreTime)>,
    lease: Option<(LeaseOwner, Instant)>,
    last: Option<Lease>,
}

impl InMemoryTokenStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            origin: Instant::now(),
            entries: Mutex::default(),
            published: broadcast::channel(CHANNEL_SIZE).0,
        }))
    }

    /// Removes everything, as a store does that restarts without its data.
    pub fn clear(&self) {
        self.entries().clear();
    }

    /// Returns all records, as somebody sees them who can read the store.
    pub fn records(&self) -> Vec<(StoreKey, Vec<u8>)> {
        let record = |(key, entry): (&StoreKey, &Entry)| {
            let (bytes, _) = entry.record.as_ref()?;
            Some((key.clone(), bytes.clone()))
        };
        self.entries().iter().filter_map(record).collect()
    }

    /// Replaces the bytes of a record, as somebody can who writes to the store. Returns false if
    /// there is none.
    pub fn tamper(&self, key: &StoreKey, bytes: Vec<u8>) -> bool {
        match self
            .entries()
            .get_mut(key)
            .and_then(|it| it.record.as_mut())
        {
            Some((record, _)) => {
                *record = bytes;
                true
            }
            None => false,
        }
    }

    fn now(&self) -> StoreTime {
        StoreTime::from_millis(0).plus(Instant::now().saturating_duration_since(self.0.origin))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<StoreKey, Entry>> {
        // No code that can panic runs under the lock.
        let entries = self.0.entries.lock();
        entries.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn drop_expired(&mut self, now: StoreTime) {
        self.record.take_if(|(_, expires_at)| *expires_at <= now);
        self.lease.take_if(|(_, until)| *until <= Instant::now());
    }

    fn is_held_by(&self, owner: &LeaseOwner) -> bool {
        self.lease.as_ref().is_some_and(|(it, _)| it == owner)
    }
}

#[async_trait]
impl TokenStore for InMemoryTokenStore {
    async fn load(&self, key: &StoreKey) -> Result<Loaded, StoreError> {
        let now = self.now();
        let mut entries = self.entries();
        let record = entries.get_mut(key).and_then(|entry| {
            entry.drop_expired(now);
            entry.record.clone()
        });
        Ok(match record {
            Some((record, expires_at)) => Loaded::present(record, Some(expires_at), now),
            None => Loaded::absent(now),
        })
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<&[u8]>,
        record: &[u8],
        expires_at: StoreTime,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        let mut entries = self.entries();
        let entry = entries.entry(key.clone()).or_default();
        entry.drop_expired(now);
        let current = entry.record.as_ref().map(|(record, _)| &**record);
        let is_expected = current == expected;
        if is_expected {
            entry.record = Some((record.to_vec(), expires_at));
            entry.drop_expired(now);
        }
        Ok(is_expected)
    }

    async fn acquire(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let epoch = random()?;
        let now = self.now();
        let mut entries = self.entries();
        let entry = entries.entry(key.clone()).or_default();
        entry.drop_expired(now);
        if entry.lease.is_some() {
            return Ok(None);
        }
        let lease = match entry.last {
            Some(last) => Lease::new(last.epoch, last.fence + 1),
            None => Lease::new(epoch, 1),
        };
        entry.last = Some(lease);
        entry.lease = Some((owner.clone(), Instant::now() + span));
        Ok(Some(lease))
    }

    async fn extend(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return Ok(false);
        };
        entry.drop_expired(now);
        let is_owner = entry.is_held_by(owner);
        if is_owner {
            entry.lease = Some((owner.clone(), Instant::now() + span));
        }
        Ok(is_owner)
    }

    async fn release(&self, key: &StoreKey, owner: &LeaseOwner) -> Result<(), StoreError> {
        if let Some(entry) = self.entries().get_mut(key) {
            entry.lease.take_if(|(it, _)| it == owner);
        }
        Ok(())
    }

    async fn publish(&self, key: &StoreKey) -> Result<(), StoreError> {
        // Fails if nobody watches.
        let _ = self.0.published.send(key.clone());
        Ok(())
    }

    async fn watch(&self, key: &StoreKey) {
        let mut published = self.0.published.subscribe();
        // An error means that this watcher was too slow, and may have missed it.
        while let Ok(it) = published.recv().await {
            if it == *key {
                return;
            }
        }
    }
}

impl Default for InMemoryTokenStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InMemoryTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryTokenStore")
            .field("entries", &self.entries().len())
            .finish_non_exhaustive()
    }
}
