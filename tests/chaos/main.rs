//! Twenty seconds of everything that goes wrong: a seeded plan of faults, callers with deadlines of
//! their own, and what must hold all the same, checked from the server's records.
//!
//! `CHAOS_SEED` repeats a run's plan, `CHAOS_SECONDS` sets its length (12 at least).

#[path = "chaos/callers.rs"]
mod callers;
#[path = "chaos/plan.rs"]
mod plan;
#[path = "chaos/server.rs"]
mod server;
#[path = "chaos/verify.rs"]
mod verify;

use std::env;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use callers::{Callers, End};
use plan::{Plan, TENANTS};
use server::{Called, Server, Verdict};
use verify::Run;

/// Calls a second, over all tenants.
const RATE: f64 = 300.0;
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long after the last fault everything is to be well.
const HEALING: Duration = Duration::from_secs(5);

/// Which call this is, and when it left the layer.
const CALL: &str = "x-call";
const SENT: &str = "x-sent";

/// Since the run began, for client and server alike.
fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The longest that a runtime has kept a timer waiting: how busy the machine is.
#[derive(Clone, Default)]
struct Lag(Arc<AtomicU64>);

impl Lag {
    const EVERY: Duration = Duration::from_millis(10);

    /// Measures for as long as the runtime runs.
    async fn measure(self) {
        loop {
            let due = now() + Self::EVERY;
            tokio::time::sleep(Self::EVERY).await;
            let late = now().saturating_sub(due);
            self.0.fetch_max(late.as_millis() as u64, Ordering::Relaxed);
        }
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Names the seed if the test fails, wherever it does.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("chaos: failed; again with CHAOS_SEED={}", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_breaks_that_is_not_broken() {
    let seed = Seed(setting("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..)));
    let seconds: u64 = setting("CHAOS_SECONDS").unwrap_or(20);
    println!("chaos: CHAOS_SEED={} for {seconds} s", seed.0);

    let plan = Arc::new(Plan::new(seed.0, Duration::from_secs(seconds.max(12))));
    now();
    let lag = Lag::default();
    tokio::spawn(lag.clone().measure());
    let server = Server::start(&plan, &lag).await;
    let callers = Callers::new(&plan, server.address);
    let (calls, tries) = callers.run().await;
    let log = server.stop();
    let late = log.called.iter().map(Called::late).max();
    let worst = late.unwrap_or_default().max(lag.longest());
    let run = Run {
        plan,
        log,
        calls,
        tries,
        worst,
    };

    let violations = run.verify();
    summarize(&run);
    assert!(violations.is_empty(), "CHAOS_SEED={}\n{violations}", seed.0);
}

/// Prints what there was, and sees that it was enough to prove anything.
fn summarize(run: &Run) {
    let (log, calm) = (&run.log, run.plan.calm);
    let ended = |end: fn(End) -> bool| run.calls.iter().filter(|call| end(call.end)).count();
    let fine = ended(|end| end == End::Answer(200));
    let issued = log.tokens.len();
    let refused = log.called.iter().filter(|it| it.was_refused()).count();
    let wrong = |end| !matches!(end, End::Answer(200) | End::GivenUp);
    let last = run
        .calls
        .iter()
        .filter(|call| wrong(call.end))
        .map(|call| call.ended)
        .max();
    println!(
        "chaos: {} calls ({fine} fine, {} without a token, {} broken, {} given up), {} arrived \
         (the machine {:?} late at most), {refused} answered 401; {} token requests, {issued} tokens, {} wrong \
         secrets; last failure {:?} after the last fault",
        run.calls.len(),
        ended(|end| end == End::NoToken),
        ended(|end| end == End::Broken),
        ended(|end| end == End::GivenUp),
        log.called.len(),
        run.worst,
        log.asked.len(),
        log.asked
            .iter()
            .filter(|it| it.verdict == Verdict::InvalidClient)
            .count(),
        last.map(|at| at.saturating_sub(calm)),
    );
    assert!(fine > run.calls.len() / 4, "too little went well");
    assert!(issued > 2 * TENANTS, "too few renewals");
    assert!(log.asked.len() > issued, "no token request failed");
    assert!(refused > 0, "no token was refused");
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}
