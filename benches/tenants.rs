//! A fresh lookup: the default token's, one tenant's, one among 10,000 tenants; and maps that could
//! have held the tenants.
//!
//! `cargo bench --bench tenants` prints nanoseconds per lookup, on one thread and on two, for rounds
//! that take turns. A lookup ends with a clone of an `Arc` in every row. Tenants come in any order, and
//! each row does its lookups once before they count.
//!
//! By name: the key is made of a tenant's name for each lookup, as a service does that has just read
//! whom it works for. Key at hand: kept since the tenant's token was first asked for. An equal key: kept
//! as well, but another than the map's, so that both names have to be compared.
//!
//! A row of `token_for` contains one read of the clock, which a row shows alone. The dev-dependencies
//! turn tokio's `test-util` on: each read then looks whether the clock was ever paused, so it costs
//! somewhat more here than in a build without.

use std::array::from_fn;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::hint::{black_box, spin_loop};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use bearer_auth::{AccessToken, TokenCache, TokenError, TokenRequest, source_fn};
use http::HeaderValue;

const TENANTS: usize = 10_000;
/// About the length of the JWTs that APIs hand out.
const TOKEN: usize = 1_000;
/// Per thread and measurement: each tenant a few times, so that the caches hold what they can.
const LOOKUPS: usize = 40_000;
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
    println!("ns per lookup, {ROUNDS} rounds, median (quartiles)");
    println!("{:44}{:24}two threads", "", "one thread");
    for (case, nanos) in cases.iter().zip(&nanos) {
        let [one, two] = nanos.each_ref().map(|it| Spread::of(it.clone()));
        println!("{:44}{:24}{two:.0}", case.name, format!("{one:.0}"));
    }
    let ratio = |of: usize, to: usize, threads: usize| {
        let (of, to) = (&nanos[of][threads], &nanos[to][threads]);
        Spread::of(of.iter().zip(to).map(|(of, to)| of / to).collect())
    };
    println!("the same rounds, one row to another");
    for (name, of, to) in [
        ("10,000 tenants to one, by name       (c/b)", 2, 1),
        ("10,000 tenants to one, key at hand   (e/d)", 4, 3),
        ("10,000 tenants to one, equal key     (g/f)", 6, 5),
        ("one tenant to the default, at hand   (d/a)", 3, 0),
    ] {
        let [one, two] = from_fn(|threads| ratio(of, to, threads));
        println!("{name:44}{:24}{two:.2}", format!("{one:.2}"));
    }
}

/// Looks each of these tenants up once.
type LookUp = Box<dyn Fn(&[u16]) + Sync>;

struct Case {
    name: &'static str,
    look_up: LookUp,
}

impl Case {
    /// `look_up` is called once for all tenants, so that a call through `dyn` isn't in each.
    fn new<R>(name: &'static str, look_up: impl Fn(usize) -> R + Sync + 'static) -> Self {
        Self {
            name,
            look_up: Box::new(move |tenants| {
                for tenant in tenants {
                    black_box(look_up(black_box(usize::from(*tenant))));
                }
            }),
        }
    }

    /// Nanoseconds per lookup: of the slower thread, if there are two.
    fn run(&self, threads: usize) -> f64 {
        let arrived = AtomicUsize::new(0);
        let seconds = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|_| {
                    let arrived = &arrived;
                    scope.spawn(move || {
                        let order: Vec<_> = (0..LOOKUPS)
                            .map(|_| fastrand::u16(..TENANTS as u16))
                            .collect();
                        // The row before this one left its own memory in the caches.
                        (self.look_up)(&order);
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < threads {
                            spin_loop();
                        }
                        let start = Instant::now();
                        (self.look_up)(&order);
                        start.elapsed().as_secs_f64()
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
    let own: &[_] = (0..TENANTS).map(key).collect::<Vec<_>>().leak();
    let equal: &[_] = (0..TENANTS).map(key).collect::<Vec<_>>().leak();
    let [one, all] = [1, TENANTS].map(|tenants| leaked(cache(&own[..tenants])));
    let [plain, stamped] = [leaked(Sharded::new(false)), leaked(Sharded::new(true))];
    let moka = moka::sync::Cache::builder()
        .max_capacity(2 * TENANTS as u64)
        .build_with_hasher(Brings::default());
    let dash = dashmap::DashMap::with_hasher(Brings::default());
    let papaya = papaya::HashMap::with_hasher(Brings::default());
    // Each has keys and values of its own: no row finds in the caches what the one before it read.
    (0..TENANTS).for_each(|n| plain.insert(key(n), Token::new()));
    (0..TENANTS).for_each(|n| stamped.insert(key(n), Token::new()));
    (0..TENANTS).for_each(|n| moka.insert(key(n), Token::new()));
    (0..TENANTS).for_each(|n| _ = dash.insert(key(n), Token::new()));
    (0..TENANTS).for_each(|n| _ = papaya.pin().insert(key(n), Token::new()));
    moka.run_pending_tasks();
    vec![
        Case::new("a  the default token", |_| {
            fresh(one, &TokenRequest::default())
        }),
        Case::new("b  one tenant, by name", |_| fresh(one, &key(0))),
        Case::new("c  any of 10,000 tenants, by name", |tenant| {
            fresh(all, &key(tenant))
        }),
        Case::new("d  one tenant, key at hand", |_| fresh(one, &own[0])),
        Case::new("e  any of 10,000 tenants, key at hand", |tenant| {
            fresh(all, &own[tenant])
        }),
        Case::new("f  one tenant, an equal key", |_| fresh(one, &equal[0])),
        Case::new("g  any of 10,000 tenants, an equal key", |tenant| {
            fresh(all, &equal[tenant])
        }),
        Case::new("   a read of the clock", |_| tokio::time::Instant::now()),
        Case::new("   8 x RwLock<HashMap>, an equal key", |tenant| {
            plain.get(&equal[tenant])
        }),
        Case::new("   the same, last use kept", |tenant| {
            stamped.get(&equal[tenant])
        }),
        Case::new("   moka::sync::Cache", move |tenant| {
            moka.get(&equal[tenant]).expect("a value")
        }),
        Case::new("   dashmap", move |tenant| {
            Arc::clone(&dash.get(&equal[tenant]).expect("a value"))
        }),
        Case::new("   papaya", move |tenant| {
            Arc::clone(papaya.pin().get(&equal[tenant]).expect("a value"))
        }),
    ]
}

/// Held by all rows, to the end.
fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn key(tenant: usize) -> TokenRequest {
    TokenRequest::scope(format!("tenant/{tenant:08x}-0000-4000-8000-{tenant:012x}"))
}

/// A cache that has the tokens of these requests, and the default one.
fn cache(requests: &[TokenRequest]) -> TokenCache {
    let cache = TokenCache::new(source_fn(fetch));
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

/// A token of its own for each tenant.
async fn fetch(request: TokenRequest) -> Result<AccessToken, TokenError> {
    let scope = request.scopes().unwrap_or_default();
    Ok(AccessToken::new(format!("{scope:x<TOKEN$}"))?.without_expiry())
}

/// A fresh token is there on the first poll.
fn fresh(cache: &TokenCache, request: &TokenRequest) -> bearer_auth::AccessToken {
    match pin!(cache.token_for(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(token)) => token,
        _ => panic!("not fresh"),
    }
}

/// What the maps hold: as in the cache, a token of its own for each tenant, and room for the turn at which it was
/// used last.
type Value = Arc<Token>;

struct Token {
    last_used: AtomicU64,
    _authorization: HeaderValue,
}

impl Token {
    fn new() -> Value {
        let value = format!("Bearer {}", "x".repeat(TOKEN));
        Arc::new(Self {
            last_used: AtomicU64::new(0),
            _authorization: value.try_into().expect("ASCII"),
        })
    }
}

type Shard = HashMap<TokenRequest, Value, Brings>;

/// All maps take the hash that a key brings along, as the cache does: none reads the key's name for it.
type Brings = BuildHasherDefault<Brought>;

#[derive(Default)]
struct Brought(u64);

impl Hasher for Brought {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        panic!("a key brings one word");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A map of the cache's own shape, with nothing behind it.
struct Sharded {
    /// Whether it keeps which value was used last.
    stamped: bool,
    shards: [RwLock<Shard>; 8],
    turn: AtomicU64,
}

impl Sharded {
    fn new(stamped: bool) -> Self {
        Self {
            stamped,
            shards: Default::default(),
            turn: AtomicU64::new(1),
        }
    }

    fn shard(&self, key: &TokenRequest) -> &RwLock<Shard> {
        let hash = Brings::default().hash_one(key);
        &self.shards[(hash >> 32) as usize % self.shards.len()]
    }

    fn insert(&self, key: TokenRequest, value: Value) {
        let mut shard = self.shard(&key).write().expect("no panic");
        shard.insert(key, value);
    }

    fn get(&self, key: &TokenRequest) -> Value {
        let shard = self.shard(key).read().expect("no panic");
        let value = shard.get(key).expect("a value");
        let turn = self.turn.load(Ordering::Relaxed);
        if self.stamped && value.last_used.load(Ordering::Relaxed) < turn {
            value.last_used.store(turn, Ordering::Relaxed);
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
        let places = f.precision().unwrap_or_default();
        let [lower, upper] = self.quartiles;
        let median = self.median;
        write!(
            f,
            "{median:5.places$} ({lower:.places$} – {upper:.places$})"
        )
    }
}
