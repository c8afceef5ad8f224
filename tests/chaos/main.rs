//! Twenty seconds of random faults from a seeded plan, callers with different deadlines, and the
//! invariants that must hold in spite of them, checked from the records of the run.
//!
//! `CHAOS_SEED` repeats the plan of a run, and `CHAOS_SECONDS` sets its length (at least 12).

mod callers;
mod plan;
mod server;
mod verify;

use std::env;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use callers::{AttemptEnd, CallResult, Callers, FIRST_UNDRIVEN};
use plan::{Plan, TENANTS};
use server::{ApiRecord, Outcome, Server};
use verify::Run;

/// Calls per second, over all tenants.
const RATE: f64 = 300.0;
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than any quick failure, and short enough for a second try.
const TRY_TIMEOUT: Duration = Duration::from_millis(1_500);
const WAIT_TIMEOUT: Duration = Duration::from_secs(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The time after the last fault by which every call must succeed again.
const RECOVERY: Duration = Duration::from_secs(5);

/// The headers for the number of a call and for the time at which it left the layer.
const CALL: &str = "x-call";
const SENT: &str = "x-sent";

/// Returns the time since the start of the run, for the client and the server.
fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The longest delay of a timer so far, which measures how busy the machine is.
#[derive(Clone, Default)]
struct Lag(Arc<AtomicU64>);

impl Lag {
    const INTERVAL: Duration = Duration::from_millis(10);

    /// Measures until the runtime is dropped.
    async fn measure(self) {
        loop {
            let due = now() + Self::INTERVAL;
            tokio::time::sleep(Self::INTERVAL).await;
            let delay = now().saturating_sub(due);
            self.0
                .fetch_max(delay.as_millis() as u64, Ordering::Relaxed);
        }
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Prints the seed if the test panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("chaos: failed, repeat with CHAOS_SEED={}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_invariants_hold_under_random_faults() {
    let seed = Seed(setting("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..)));
    let seconds: u64 = setting("CHAOS_SECONDS").unwrap_or(20);
    println!("chaos: CHAOS_SEED={} for {seconds} s", seed.0);

    let plan = Arc::new(Plan::new(seed.0, Duration::from_secs(seconds.max(12))));
    now();
    let lag = Lag::default();
    tokio::spawn(lag.clone().measure());
    let server = Server::start(&plan, &lag).await;
    let callers = Callers::new(&plan, server.addresses);
    let (calls, attempts) = callers.run().await;
    let log = server.stop();
    // Those of undriven callers may be sent when the next of them calls.
    let driven = log
        .api_requests
        .iter()
        .filter(|it| it.call < FIRST_UNDRIVEN);
    let delay = driven.map(ApiRecord::delay).max();
    let longest_delay = delay.unwrap_or_default().max(lag.longest());
    let run = Run {
        plan,
        log,
        calls,
        attempts,
        longest_delay,
    };

    let violations = run.verify();
    println!("{violations}");
    summarize(&run);
    assert!(violations.is_empty(), "CHAOS_SEED={}\n{violations}", seed.0);
}

/// Prints the figures of the run, and checks that it exercised enough.
fn summarize(run: &Run) {
    let (log, plan) = (&run.log, &run.plan);
    let count = |result| run.calls.values().filter(|it| it.result == result).count();
    let succeeded = count(CallResult::Response(200));
    let issued = log.tokens.len();
    let rejections = log.api_requests.iter().filter(|it| it.was_rejected());
    let rejections = rejections.count();
    let redirects = log.api_requests.iter().filter(|it| it.is_redirected);
    let redirects = redirects.count();
    let outcomes = |outcome| {
        let requests = log.token_requests.iter();
        requests.filter(|it| it.outcome == outcome).count()
    };
    let dead_connections = outcomes(Outcome::Dead);
    let undriven = run.attempts.iter().filter(|it| it.is_undriven);
    let lost = undriven.clone().filter(|it| it.end == AttemptEnd::Dropped);
    let failed = run.calls.values().filter(|call| {
        let expected = [CallResult::Response(200), CallResult::DeadlineExceeded];
        !expected.contains(&call.result)
    });
    let last_failure = failed.map(|call| call.ended).max();
    println!(
        "chaos: {} calls: {succeeded} succeeded, {} without a token, {} failed, {} gave up; \
         {} API requests, {rejections} rejections, {redirects} redirects; {} token requests, \
         {issued} tokens, {} wrong secrets, {dead_connections} dead connections, {} wrong dates; \
         {} undriven tries, {} of them lost; longest delay {:?}; last failure {:?} after the last \
         fault",
        run.calls.len(),
        count(CallResult::NoToken),
        count(CallResult::Failed),
        count(CallResult::DeadlineExceeded),
        log.api_requests.len(),
        log.token_requests.len(),
        outcomes(Outcome::InvalidClient),
        log.wrong_dates,
        undriven.clone().count(),
        lost.count(),
        run.longest_delay,
        last_failure.map(|at| at.saturating_sub(plan.faults_end)),
    );
    assert!(succeeded > run.calls.len() / 4, "too few calls succeeded");
    assert!(issued > 2 * TENANTS, "too few refreshes");
    assert!(log.token_requests.len() > issued, "no token request failed");
    assert!(rejections > 0, "no token was rejected");
    assert!(redirects > 0, "no request was redirected");
    assert!(dead_connections > 0, "no connection died");
    assert!(undriven.count() > 0, "no fetch on an undriven runtime");
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}
