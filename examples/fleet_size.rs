//! Sizes a fleet: `cargo run --release --example fleet_size -- 1000`
//!
//! The argument is the largest number of processes; without one, 100.
//!
//! Runs the real cache and the real shared source of every process on a paused clock, over a store
//! in memory. Each process calls once a second for each tenant, with tokens that live 15 minutes.
//! It prints the table of `docs/fleet.md`: token requests per minute at the token endpoint, and
//! operations per minute at the store.
//!
//! Tenants have nothing in common but the connection, so it simulates one tenant and multiplies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{
    FleetIdentity, InMemoryTokenStore, Lease, LeaseOwner, Loaded, MockTokenSource, SealingKeys,
    SharedTokenSource, StoreError, StoreKey, StoreTime, TokenCache, TokenError, TokenSource,
    TokenStore,
};
use tokio::time::{Instant, sleep};

const LIFE: Duration = Duration::from_secs(900);
const LATENCY: Duration = Duration::from_millis(100);
const MINUTES: u64 = 60;
const PROCESSES: [usize; 4] = [1, 10, 100, 1_000];
const TENANTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// Counts the operations of a store, including messages.
#[derive(Clone)]
struct Counting {
    inner: InMemoryTokenStore,
    operations: Arc<AtomicUsize>,
}

impl Counting {
    fn count(&self) -> &InMemoryTokenStore {
        self.operations.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

#[async_trait]
impl TokenStore for Counting {
    async fn load(&self, key: &StoreKey) -> Result<Loaded, StoreError> {
        self.count().load(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<&[u8]>,
        record: &[u8],
        expires_at: StoreTime,
    ) -> Result<bool, StoreError> {
        let swap = self
            .count()
            .compare_and_swap(key, expected, record, expires_at);
        swap.await
    }

    async fn acquire(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        self.count().acquire(key, owner, span).await
    }

    async fn extend(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<bool, StoreError> {
        self.count().extend(key, owner, span).await
    }

    async fn release(&self, key: &StoreKey, owner: &LeaseOwner) -> Result<(), StoreError> {
        self.count().release(key, owner).await
    }

    async fn publish(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.count().publish(key).await
    }

    async fn watch(&self, key: &StoreKey) {
        self.inner.watch(key).await;
    }
}

/// The figures of one tenant, per minute.
struct PerTenant {
    token_requests: f64,
    operations: f64,
}

/// The situation of a fleet.
#[derive(Clone, Copy, PartialEq)]
enum Endpoint {
    Healthy,
    Dead,
}

fn source(tokens: &MockTokenSource, store: &Counting) -> Result<impl TokenSource, TokenError> {
    let identity = FleetIdentity::new("https://identity.example.com/token", "client");
    Ok(
        SharedTokenSource::new(tokens.clone(), store.clone(), identity)
            .name_key([1; 32])?
            .sealed_with(SealingKeys::new("one", [2; 32])?),
    )
}

async fn simulate(
    processes: usize,
    is_shared: bool,
    endpoint: Endpoint,
) -> Result<PerTenant, TokenError> {
    let tokens = MockTokenSource::new()
        .with_lifetime(LIFE)
        .with_latency(LATENCY);
    if endpoint == Endpoint::Dead {
        tokens.fail_times(usize::MAX, TokenError::permanent("dead"));
    }
    let store = Counting {
        inner: InMemoryTokenStore::new(),
        operations: Arc::default(),
    };
    let mut caches = Vec::new();
    for _ in 0..processes {
        caches.push(match is_shared {
            true => TokenCache::new(source(&tokens, &store)?),
            false => TokenCache::new(tokens.clone()),
        });
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60 * MINUTES) {
        for cache in &caches {
            let cache = cache.clone();
            tokio::spawn(async move { cache.token().await.is_ok() });
        }
        sleep(Duration::from_secs(1)).await;
    }
    let per_minute = |number: usize| number as f64 / MINUTES as f64;
    Ok(PerTenant {
        token_requests: per_minute(tokens.fetches()),
        operations: per_minute(store.operations.load(Ordering::Relaxed)),
    })
}

fn row(processes: usize, tenants: usize, figures: [f64; 3]) {
    let [alone, shared, operations] = figures.map(|figure| figure * tenants as f64);
    let plot = |figure: f64| "█".repeat((figure.max(1.0).log10() * 3.0).round() as usize);
    println!(
        "| {processes} | {tenants} | {alone:.1} | {shared:.1} | {operations:.0} | `{}` | `{}` |",
        plot(alone),
        plot(shared)
    );
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), TokenError> {
    let largest = std::env::args().nth(1).and_then(|it| it.parse().ok());
    let largest = largest.unwrap_or(100);
    for endpoint in [Endpoint::Healthy, Endpoint::Dead] {
        println!(
            "{}\n",
            match endpoint {
                Endpoint::Healthy => "Healthy token endpoint, tokens of 900 s, the first hour:",
                Endpoint::Dead => "Dead token endpoint, the first hour:",
            }
        );
        println!("| processes | tenants | alone | shared | store | alone | shared |");
        println!("|---:|---:|---:|---:|---:|---|---|");
        for processes in PROCESSES.into_iter().filter(|it| *it <= largest) {
            let alone = simulate(processes, false, endpoint).await?;
            let shared = simulate(processes, true, endpoint).await?;
            for tenants in TENANTS {
                let figures = [
                    alone.token_requests,
                    shared.token_requests,
                    shared.operations,
                ];
                row(processes, tenants, figures);
            }
        }
        println!();
    }
    Ok(())
}
