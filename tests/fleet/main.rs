//! 20 real processes and 100 tenants over a real Redis, with tokens of 4 s, first without and then
//! with faults: `just fleet`, or `cargo test --release --test fleet`. Takes three minutes.
//!
//! Prints what it measured, and fails if a limit is exceeded. On a machine that is busy with other
//! work, an operation of the store takes longer than the default time limit: set another one in
//! milliseconds, in `FLEET_OPERATION_TIMEOUT_MS`.

#[path = "../support"]
mod support {
    pub(crate) mod redis;
}
mod endpoint;
mod worker;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use endpoint::Endpoint;
use support::redis::{RedisServer, redis_is_installed};
use worker::{Failure, Worker};

pub(crate) const TENANTS: u32 = 100;
const WORKERS: usize = 20;

/// A 4 s token is due from 2.6 s.
const DUE_MS: u64 = 2_600;
const HEALING_MS: u64 = 5_000;

/// Milliseconds since 1970, which the processes agree on.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn main() {
    if let Some(number) = worker::number() {
        worker::run(number);
    } else if redis_is_installed() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(lead());
    }
}

struct Fleet {
    endpoint: Endpoint,
    redis: RedisServer,
    workers: Vec<Worker>,
    failures: Vec<Failure>,
    exceeded: Vec<String>,
}

impl Fleet {
    async fn start() -> Self {
        let (endpoint, redis) = (Endpoint::start().await, RedisServer::start(&[]));
        let mut fleet = Self {
            endpoint,
            redis,
            workers: Vec::new(),
            failures: Vec::new(),
            exceeded: Vec::new(),
        };
        for number in 0..WORKERS {
            let worker = fleet.spawn(number, "old");
            fleet.workers.push(worker);
        }
        fleet
    }

    fn spawn(&self, number: usize, keys: &str) -> Worker {
        Worker::spawn(number, &self.redis.url(), &self.endpoint.origin(), keys)
    }

    /// Kills a process, without a chance to clean up, and starts another.
    fn replace(&mut self, number: usize, keys: &str) {
        let worker = self.spawn(number, keys);
        let old = std::mem::replace(&mut self.workers[number], worker);
        self.failures.extend(old.kill());
    }

    fn check(&mut self, name: &str, holds: bool, measured: impl std::fmt::Display) {
        println!("{} {name}: {measured}", if holds { "ok  " } else { "FAIL" });
        if !holds {
            self.exceeded.push(name.to_owned());
        }
    }

    fn failures(&mut self) -> Vec<Failure> {
        let mut failures = std::mem::take(&mut self.failures);
        for worker in &mut self.workers {
            failures.extend(worker.take_failures());
        }
        failures
    }

    /// Reports a fault that lasted from `start` to `end`.
    async fn report(&mut self, name: &str, start: u64, end: u64) {
        let settled = end + HEALING_MS;
        sleep(Duration::from_millis(settled.saturating_sub(now()) + 3_000)).await;
        let failures = self.failures();
        let unnecessary: Vec<_> = failures
            .iter()
            .filter(|it| self.endpoint.had_valid_token(it.tenant, it.sent, it.end))
            .collect();
        for failure in unnecessary.iter().take(3) {
            println!("     {failure:?}");
        }
        let unnecessary = unnecessary.len();
        let late = failures.iter().filter(|it| it.sent > settled).count();
        let requests = self.endpoint.requests_between(start, now());
        println!(
            "     {name}: {} failures of {requests} requests",
            failures.len()
        );
        let what = format!("{name}: failed requests although there was a valid token");
        self.check(&what, unnecessary == 0, unnecessary);
        let what = format!("{name}: failed requests more than 5 s after it");
        self.check(&what, late == 0, late);
        let tokens = self.endpoint.token_requests(start, now());
        let rate = tokens.values().sum::<usize>() as f64
            / f64::from(TENANTS)
            / ((now() - start) as f64 / 1_000.0);
        println!("     {name}: {rate:.2} token requests per tenant and second");
    }
}

async fn lead() {
    let mut fleet = Fleet::start().await;
    sleep(Duration::from_secs(8)).await;
    fleet.failures();
    without_faults(&mut fleet).await;
    killed_holders(&mut fleet).await;

    let start = now();
    fleet.redis.stop();
    sleep(Duration::from_secs(10)).await;
    fleet.redis.restart();
    fleet
        .report("Redis stopped for 10 s and started empty", start, now())
        .await;

    let start = now();
    fleet.redis.signal("STOP");
    sleep(Duration::from_secs(5)).await;
    fleet.redis.signal("CONT");
    fleet.report("Redis stalled for 5 s", start, now()).await;

    let start = now();
    fleet.endpoint.revoke_all();
    fleet.report("all tokens revoked", start, now()).await;
    let tokens = fleet.endpoint.token_requests(start, start + 2_000);
    let most = tokens.values().max().copied().unwrap_or_default();
    fleet.check(
        "token requests per tenant in the 2 s after a revocation",
        most <= 2,
        most,
    );

    throttled(&mut fleet).await;

    let start = now();
    for keys in ["old,new", "new,old"] {
        for number in 0..WORKERS {
            fleet.replace(number, keys);
            sleep(Duration::from_millis(300)).await;
        }
    }
    fleet.report("sealing key rotated", start, now()).await;

    assert!(fleet.exceeded.is_empty(), "exceeded: {:?}", fleet.exceeded);
}

async fn without_faults(fleet: &mut Fleet) {
    let start = now();
    sleep(Duration::from_secs(60)).await;
    let end = now();
    let tokens = fleet.endpoint.token_requests(start, end);
    let most = tokens.values().max().copied().unwrap_or_default();
    let mean = tokens.values().sum::<usize>() as f64 / f64::from(TENANTS);
    let limit = 1.1 * (end - start) as f64 / DUE_MS as f64;
    println!(
        "     60 s: {} requests",
        fleet.endpoint.requests_between(start, end)
    );
    println!("     60 s: {mean:.1} token requests per tenant on average");
    let what = format!("60 s: most token requests of a tenant, at most {limit:.1}");
    fleet.check(&what, most as f64 <= limit, most);
    let (absent, dead) = fleet.endpoint.bad_requests(start, end);
    fleet.check("60 s: requests without a token", absent == 0, absent);
    fleet.check("60 s: requests with a dead token", dead == 0, dead);
    let failures = fleet.failures().len();
    fleet.check("60 s: failed requests", failures == 0, failures);
}

/// Kills processes while they have the lease: during their token request.
async fn killed_holders(fleet: &mut Fleet) {
    let start = now();
    let mut victims = fleet.endpoint.slow_down(Duration::from_millis(300));
    for _ in 0..5 {
        let number = victims.recv().await.unwrap();
        fleet.replace(number, "old");
        sleep(Duration::from_secs(1)).await;
        while victims.try_recv().is_ok() {}
    }
    fleet.endpoint.slow_down(Duration::ZERO);
    fleet
        .report("5 holders of leases killed", start, now())
        .await;
}

async fn throttled(fleet: &mut Fleet) {
    let start = now();
    fleet.endpoint.throttle_until(start + 5_000);
    sleep(Duration::from_secs(5)).await;
    let tokens: HashMap<u32, usize> = fleet.endpoint.token_requests(start, start + 5_000);
    let most = tokens.values().max().copied().unwrap_or_default();
    fleet.check(
        "429 for 5 s: most token requests of a tenant",
        most <= 1,
        most,
    );
    fleet.report("429 for 5 s", start, now()).await;
}
