//! The time of `TokenCache::token_for` alone, when the cache has a fresh token.
//!
//! Each lookup reads the clock once, which has a row of its own. The dev-dependencies enable
//! tokio's
//! `test-util`, with which reading the clock takes somewhat longer than in a program without it.

use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bearer_auth::{AccessToken, TokenCache, TokenRequest};

use crate::rounds::{Case, Load, measure, print};
use crate::tower_stacks::{scope, tenant_cache};

const TENANTS: usize = 10_000;
const ROUNDS: usize = 21;
/// Each tenant several times, so that the processor's caches hold as much as they can.
const LOOKUPS: usize = 40_000;

const NAMES: [&str; 8] = [
    "default token",
    "one tenant, by name",
    "any of 10,000, by name",
    "one tenant, with a kept key",
    "any of 10,000, with a kept key",
    "one tenant, with an equal key",
    "any of 10,000, with an equal key",
    "reading the clock",
];

/// Prints the nanoseconds per lookup, with one thread and with two.
///
/// "By name" makes the key from text each time, as a service does that has just learned which
/// tenant it works for. A kept key shares its name with the key in the cache, so that one
/// comparison of pointers is enough. An equal key was made separately, so that the names are
/// compared.
pub(crate) fn print_table() {
    let ((one, one_key), (all, keys)) = (tenant_cache(1), tenant_cache(TENANTS));
    let equal_keys: Arc<[_]> = (0..TENANTS).map(key).collect();
    for threads in [1, 2] {
        let cases = [
            Case::new(threads, || with(&one, &[TokenRequest::default()].into())),
            Case::new(threads, || by_name(&one, 1)),
            Case::new(threads, || by_name(&all, TENANTS)),
            Case::new(threads, || with(&one, &one_key)),
            Case::new(threads, || with(&all, &keys)),
            Case::new(threads, || with(&one, &equal_keys[..1].into())),
            Case::new(threads, || with(&all, &equal_keys)),
            Case::new(threads, reading_the_clock),
        ];
        let nanos = measure(cases, ROUNDS, LOOKUPS);
        println!("cache alone, {threads} thread(s), ns per lookup");
        print(&NAMES, &nanos);
    }
}

fn key(tenant: usize) -> TokenRequest {
    TokenRequest::scope(scope(tenant))
}

fn by_name(cache: &TokenCache, tenants: usize) -> Load {
    let cache = cache.clone();
    Box::new(move |lookups| {
        for _ in 0..lookups {
            black_box(look_up(&cache, &key(fastrand::usize(..tenants))));
        }
    })
}

fn with(cache: &TokenCache, keys: &Arc<[TokenRequest]>) -> Load {
    let (cache, keys) = (cache.clone(), Arc::clone(keys));
    Box::new(move |lookups| {
        for _ in 0..lookups {
            black_box(look_up(&cache, &keys[fastrand::usize(..keys.len())]));
        }
    })
}

fn reading_the_clock() -> Load {
    Box::new(|readings| {
        for _ in 0..readings {
            black_box(tokio::time::Instant::now());
        }
    })
}

/// Returns a fresh token, which is available on the first poll.
fn look_up(cache: &TokenCache, request: &TokenRequest) -> AccessToken {
    match pin!(cache.token_for(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(token)) => token,
        _ => panic!("no fresh token"),
    }
}
