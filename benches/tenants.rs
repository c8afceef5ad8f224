//! A fresh lookup: the default token's, one tenant's, one among 10,000 tenants; and maps that could
//! have held the tenants.
//!
//! `cargo bench --bench tenants` prints nanoseconds per lookup, on one thread and on two, for rounds
//! that take turns. A lookup ends with a clone of an `Arc` in every row. Keys are made beforehand and
//! are equal to the map's, not clones of them: they are compared by content. Where there are 10,000,
//! each thread takes them in an order of its own. Before each few lookups their keys are read, untimed:
//! a caller has just made or been given its key, and what is measured is the cache.
//!
//! A row of `token_for` contains one read of the clock, which a row shows alone. The dev-dependencies
//! turn tokio's `test-util` on: each read then looks whether the clock was ever paused, so it costs
//! somewhat more here than in a build without.

use std::array::from_fn;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::hint::{black_box, spin_loop};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use bearer_auth::{StaticTokenSource, TokenCache, TokenRequest};

const TENANTS: usize = 10_000;
/// Per thread and measurement.
const LOOKUPS: usize = 10_000;
/// Whose keys stay in the nearest cache.
const FEW: usize = 50;
const ROUNDS: usize = 51;

fn main() {
    let cases = cases();
    let mut nanos = vec![[Vec::new(), Vec::new()]; cases.len()];
    for _ in 0..ROUNDS {
        for (case, nanos) in cases.iter().zip(&mut nanos) {
            nanos[0].push(case.run(1));
            nanos[1].push(case.run(2));
        }
    }
    let spreads: Vec<_> = nanos.into_iter().map(|it| it.map(Spread::of)).collect();
    println!("ns per lookup, {ROUNDS} rounds, median (quartiles)");
    println!("{:44}{:24}two threads", "", "one thread");
    for (case, [one, two]) in cases.iter().zip(&spreads) {
        println!("{:44}{:24}{two}", case.name, one.to_string());
    }
    let ratio = |of: usize, to: usize| {
        from_fn::<_, 2, _>(|threads| spreads[of][threads].median / spreads[to][threads].median)
    };
    for (name, [one, two]) in [
        ("one tenant to the default token  (b/a)", ratio(1, 0)),
        ("10,000 tenants to one            (c/b)", ratio(2, 1)),
    ] {
        println!("{name:44}{one:<24.2}{two:.2}");
    }
}

/// Looks each of these up once.
type LookUp = Box<dyn Fn(&[TokenRequest]) + Sync>;

struct Case {
    name: &'static str,
    /// One order for each thread.
    keys: [Vec<TokenRequest>; 2],
    look_up: LookUp,
}

impl Case {
    /// `look_up` is called once for all keys, so that a call through `dyn` isn't in each.
    fn new<R>(
        name: &'static str,
        keys: impl Fn() -> Vec<TokenRequest>,
        look_up: impl Fn(&TokenRequest) -> R + Sync + 'static,
    ) -> Self {
        Self {
            name,
            keys: from_fn(|_| keys()),
            look_up: Box::new(move |keys| {
                for key in keys {
                    black_box(look_up(black_box(key)));
                }
            }),
        }
    }

    /// Nanoseconds per lookup: of the slower thread, if there are two.
    fn run(&self, threads: usize) -> f64 {
        let arrived = AtomicUsize::new(0);
        let seconds = thread::scope(|scope| {
            let threads: Vec<_> = self.keys[..threads]
                .iter()
                .map(|keys| {
                    let arrived = &arrived;
                    scope.spawn(move || {
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < threads {
                            spin_loop();
                        }
                        let mut seconds = 0.0;
                        for few in keys.chunks(FEW) {
                            for key in few {
                                black_box(key == &key.clone().with_param("", ""));
                                black_box(key.scopes().map(str::len));
                            }
                            let start = Instant::now();
                            (self.look_up)(few);
                            seconds += start.elapsed().as_secs_f64();
                        }
                        seconds
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|it| it.join().expect("no panic"))
                .fold(0.0, f64::max)
        });
        seconds * 1e9 / LOOKUPS as f64
    }
}

fn cases() -> Vec<Case> {
    let many = || {
        let mut keys = tenants();
        fastrand::shuffle(&mut keys);
        keys
    };
    let (default, one, all) = (cache(&[]), cache(&tenants()[..1]), cache(&tenants()));
    let hasher = RandomState::new();
    let plain = Sharded::<false>::new();
    let stamped = Sharded::<true>::new();
    let moka = moka::sync::Cache::new(2 * TENANTS as u64);
    let dash = dashmap::DashMap::new();
    let papaya = papaya::HashMap::new();
    for key in tenants() {
        let value = Value::default();
        plain.insert(key.clone(), Arc::clone(&value));
        stamped.insert(key.clone(), Arc::clone(&value));
        moka.insert(key.clone(), Arc::clone(&value));
        dash.insert(key.clone(), Arc::clone(&value));
        papaya.pin().insert(key, value);
    }
    moka.run_pending_tasks();
    vec![
        Case::new(
            "a  token_for, the default token",
            || vec![TokenRequest::default(); LOOKUPS],
            move |key| fresh(&default, key),
        ),
        Case::new(
            "b  token_for, one tenant in a cache of 1",
            || vec![tenants().swap_remove(0); LOOKUPS],
            move |key| fresh(&one, key),
        ),
        Case::new("c  token_for, any of 10,000 tenants", many, move |key| {
            fresh(&all, key)
        }),
        Case::new("   a read of the clock", many, |_| {
            tokio::time::Instant::now()
        }),
        Case::new("   hash of a key, any of 10,000", many, move |key| {
            hasher.hash_one(key)
        }),
        Case::new("   32 x RwLock<HashMap>", many, move |key| plain.get(key)),
        Case::new("   32 x RwLock<HashMap>, last use kept", many, move |key| {
            stamped.get(key)
        }),
        Case::new("   moka::sync::Cache", many, move |key| {
            moka.get(key).expect("a value")
        }),
        Case::new("   dashmap", many, move |key| {
            Arc::clone(&dash.get(key).expect("a value"))
        }),
        Case::new("   papaya", many, move |key| {
            Arc::clone(papaya.pin().get(key).expect("a value"))
        }),
    ]
}

/// As many keys as lookups, equal each time and never the same in memory.
fn tenants() -> Vec<TokenRequest> {
    let key = |n| TokenRequest::scope(format!("tenant/{n:08x}-0000-4000-8000-{n:012x}"));
    (0..TENANTS).map(key).collect()
}

/// A cache that has the tokens of these requests, and the default one.
fn cache(requests: &[TokenRequest]) -> TokenCache {
    let cache = TokenCache::new(StaticTokenSource::new("x".repeat(1_000)).expect("a token"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for request in [&TokenRequest::default()].into_iter().chain(requests) {
            cache.token_for(request).await.expect("a token");
        }
    });
    cache
}

/// A fresh token is there on the first poll.
fn fresh(cache: &TokenCache, request: &TokenRequest) -> bearer_auth::AccessToken {
    match pin!(cache.token_for(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(token)) => token,
        _ => panic!("not fresh"),
    }
}

/// What the maps hold: as in the cache, room for the turn at which it was used last.
type Value = Arc<AtomicU64>;
type Shard = HashMap<TokenRequest, Value>;

/// The cache's own shape; with `STAMPED`, it keeps which value was used last.
struct Sharded<const STAMPED: bool> {
    shards: [RwLock<Shard>; 32],
    hasher: RandomState,
    turn: AtomicU64,
}

impl<const STAMPED: bool> Sharded<STAMPED> {
    fn new() -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            turn: AtomicU64::new(1),
        }
    }

    fn shard(&self, key: &TokenRequest) -> &RwLock<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % self.shards.len()]
    }

    fn insert(&self, key: TokenRequest, value: Value) {
        let mut shard = self.shard(&key).write().expect("no panic");
        shard.insert(key, value);
    }

    fn get(&self, key: &TokenRequest) -> Value {
        let shard = self.shard(key).read().expect("no panic");
        let value = shard.get(key).expect("a value");
        if STAMPED && value.load(Ordering::Relaxed) != self.turn.load(Ordering::Relaxed) {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
            value.store(turn, Ordering::Relaxed);
        }
        Arc::clone(value)
    }
}

struct Spread {
    median: f64,
    quartiles: [f64; 2],
}

impl Spread {
    fn of(mut nanos: Vec<f64>) -> Self {
        nanos.sort_by(f64::total_cmp);
        Self {
            median: nanos[nanos.len() / 2],
            quartiles: [nanos[nanos.len() / 4], nanos[nanos.len() * 3 / 4]],
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lower, upper] = self.quartiles;
        write!(f, "{:5.0} ({lower:.0} – {upper:.0})", self.median)
    }
}
