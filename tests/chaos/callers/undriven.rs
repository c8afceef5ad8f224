//! Callers on current-thread runtimes that are polled only while one of them calls.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bearer_auth::BearerAuthLayer;
use fastrand::Rng;
use reqwest_middleware::ClientWithMiddleware;
use tokio::runtime::{Builder, Runtime};

use super::{Call, Callers, QUIET_TENANTS, by_reqwest, call, limit, order, reqwest_stack};
use crate::plan::{Plan, Stream, TENANTS, chance, ms};
use crate::server::Addresses;
use crate::{FETCH_TIMEOUT, now};

/// The number of the first call on an undriven runtime. Each runtime has as many numbers.
pub(crate) const FIRST_UNDRIVEN: usize = 1_000_000;

const RUNTIMES: usize = 3;

/// The longest time for which a runtime is polled at once while there are faults, except for a
/// caller without a deadline. Most callers give up soon, and leave a fetch behind.
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// The callers on one of the runtimes.
pub(super) struct Undriven {
    plan: Arc<Plan>,
    addresses: Addresses,
    layer: BearerAuthLayer,
    /// The number of the next call.
    next: usize,
}

impl Undriven {
    /// Starts the threads, which return their calls.
    pub(super) fn start(callers: &Callers) -> Vec<JoinHandle<Vec<(usize, Call)>>> {
        let start = |nth| {
            let undriven = Self {
                plan: Arc::clone(&callers.plan),
                addresses: callers.addresses,
                layer: callers.layer.clone(),
                next: nth * FIRST_UNDRIVEN,
            };
            thread::spawn(move || undriven.run())
        };
        (1..=RUNTIMES).map(start).collect()
    }

    fn run(mut self) -> Vec<(usize, Call)> {
        let plan = Arc::clone(&self.plan);
        let (mut runtime, mut client) = self.runtime();
        let mut calls = Vec::new();
        // Without faults the runtimes run often enough to end their fetches in time.
        while now() < plan.total {
            let mut rng = plan.rng(Stream::Undriven, self.next as u64);
            calls.push(self.call(&mut rng, &runtime, &client));
            if now() >= plan.faults_end {
                thread::sleep(ms(&mut rng, 5..40));
            } else if chance(&mut rng, 0.03) {
                if chance(&mut rng, 0.2) {
                    // Drops the fetches that it runs. Its connections go with it.
                    (runtime, client) = self.runtime();
                }
                thread::sleep(pause(&mut rng));
            } else {
                thread::sleep(ms(&mut rng, 1..10));
            }
        }
        calls
    }

    fn runtime(&self) -> (Runtime, ClientWithMiddleware) {
        let runtime = Builder::new_current_thread().enable_all().build();
        (runtime.unwrap(), reqwest_stack(self.layer.clone()))
    }

    fn call(
        &mut self,
        rng: &mut Rng,
        runtime: &Runtime,
        client: &ClientWithMiddleware,
    ) -> (usize, Call) {
        let number = self.next;
        self.next += 1;
        let tenant = match rng.bool() {
            true => rng.usize(..QUIET_TENANTS),
            false => rng.usize(..TENANTS),
        };
        let order = order(rng, number, tenant, self.addresses);
        let mut limit = limit(rng, &self.plan);
        if now() < self.plan.faults_end {
            limit = limit.map(|it| it.min(LONGEST_POLL));
        }
        let sent = call(tenant, limit, by_reqwest(client.clone(), order));
        (number, runtime.block_on(sent))
    }
}

/// Draws the time for which nobody polls a runtime. After half of these times, fetches that were
/// left behind have just missed their time limit, and nobody has noticed yet.
fn pause(rng: &mut Rng) -> Duration {
    match rng.bool() {
        true => ms(rng, 100..1_500),
        false => FETCH_TIMEOUT + ms(rng, 0..220),
    }
}
