//! A fleet of processes in one: each is a cache with a shared source of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, FleetIdentity, InMemoryTokenStore, Lease, LeaseOwner, Loaded, MockTokenSource,
    SealingKeys, SharedTokenSource, StoreError, StoreKey, StoreTime, TokenCache, TokenSource,
    TokenStore,
};

pub(crate) const LIFE: Duration = Duration::from_secs(900);

pub(crate) fn identity() -> FleetIdentity {
    FleetIdentity::new("https://identity.example.com/token", "client")
}

pub(crate) fn keys(id: &str) -> SealingKeys {
    SealingKeys::new(id, key(id)).unwrap()
}

/// Returns the sealing key of this name.
pub(crate) fn key(id: &str) -> [u8; 32] {
    let mut key = [42; 32];
    key[..id.len()].copy_from_slice(id.as_bytes());
    key
}

pub(crate) fn shared(
    source: impl TokenSource,
    store: impl TokenStore,
    keys: SealingKeys,
) -> SharedTokenSource {
    let source = SharedTokenSource::new(source, store, identity());
    source.name_key([1; 32]).unwrap().sealed_with(keys)
}

/// One store and one token endpoint.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) tokens: MockTokenSource,
    pub(crate) store: FaultyStore,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let latency = Duration::from_millis(20);
        Self {
            tokens: MockTokenSource::new()
                .with_lifetime(LIFE)
                .with_latency(latency),
            store: FaultyStore::new(),
        }
    }

    pub(crate) fn source(&self) -> SharedTokenSource {
        shared(self.tokens.clone(), self.store.clone(), keys("one"))
    }

    pub(crate) fn process(&self) -> TokenCache {
        TokenCache::new(self.source())
    }

    pub(crate) fn processes(&self, number: usize) -> Vec<TokenCache> {
        (0..number).map(|_| self.process()).collect()
    }
}

pub(crate) fn value(token: &AccessToken) -> &str {
    token.expose_secret()
}

/// The way in which a store fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    Down,
    /// No operation ends.
    Stalled,
    /// Every operation takes this long.
    Slow(Duration),
    /// It can be read, and nothing can be written.
    Full,
    /// Leases can be taken, and no record can be written.
    OnlyLeases,
    /// It says that it stored a record, and does not.
    Forgetful,
    /// It says that somebody else has the lease.
    NeverLeases,
    /// It says that nobody has the lease.
    AlwaysLeases,
    /// Its time stands still, and its records do not expire.
    StoppedClock,
    /// Records do not say when they expire.
    NoExpiry,
}

/// A store that fails as it is told, and counts its operations.
#[derive(Clone)]
pub(crate) struct FaultyStore {
    pub(crate) inner: InMemoryTokenStore,
    fault: Arc<Mutex<Fault>>,
    operations: Arc<AtomicUsize>,
    failed_writes: Arc<AtomicUsize>,
}

impl FaultyStore {
    fn new() -> Self {
        Self {
            inner: InMemoryTokenStore::new(),
            fault: Arc::new(Mutex::new(Fault::None)),
            operations: Arc::default(),
            failed_writes: Arc::default(),
        }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub(crate) fn operations(&self) -> usize {
        self.operations.load(Ordering::Relaxed)
    }

    /// Returns the number of writes that failed because the store was full.
    pub(crate) fn failed_writes(&self) -> usize {
        self.failed_writes.load(Ordering::Relaxed)
    }

    /// Returns the key and the bytes of the only record.
    pub(crate) fn record(&self) -> (StoreKey, Vec<u8>) {
        let mut records = self.inner.records();
        assert_eq!(records.len(), 1);
        records.pop().unwrap()
    }

    fn fail_write(&self) -> StoreError {
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
        StoreError::new("full")
    }

    async fn begin(&self) -> Result<Fault, StoreError> {
        self.operations.fetch_add(1, Ordering::Relaxed);
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Down => return Err(StoreError::new("down")),
            Fault::Stalled => std::future::pending().await,
            Fault::Slow(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        Ok(fault)
    }
}

#[async_trait]
impl TokenStore for FaultyStore {
    async fn load(&self, key: &StoreKey) -> Result<Loaded, StoreError> {
        let fault = self.begin().await?;
        let loaded = self.inner.load(key).await?;
        let Some(record) = loaded.record() else {
            return Ok(loaded);
        };
        Ok(match fault {
            Fault::StoppedClock => {
                let forever = StoreTime::from_millis(u64::MAX);
                let start = StoreTime::from_millis(0);
                Loaded::present(record.to_vec(), Some(forever), start)
            }
            Fault::NoExpiry => Loaded::present(record.to_vec(), None, loaded.now()),
            _ => loaded,
        })
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<&[u8]>,
        record: &[u8],
        expires_at: StoreTime,
    ) -> Result<bool, StoreError> {
        match self.begin().await? {
            Fault::Full | Fault::OnlyLeases => return Err(self.fail_write()),
            Fault::Forgetful => return Ok(true),
            _ => {}
        }
        let swap = self
            .inner
            .compare_and_swap(key, expected, record, expires_at);
        swap.await
    }

    async fn acquire(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        match self.begin().await? {
            Fault::Full => Err(self.fail_write()),
            Fault::NeverLeases => Ok(None),
            Fault::AlwaysLeases => Ok(Some(Lease::new([7; 16], 1))),
            _ => self.inner.acquire(key, owner, span).await,
        }
    }

    async fn extend(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<bool, StoreError> {
        self.begin().await?;
        self.inner.extend(key, owner, span).await
    }

    async fn release(&self, key: &StoreKey, owner: &LeaseOwner) -> Result<(), StoreError> {
        self.begin().await?;
        self.inner.release(key, owner).await
    }

    async fn publish(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.begin().await?;
        self.inner.publish(key).await
    }

    async fn watch(&self, key: &StoreKey) {
        self.inner.watch(key).await;
    }
}
