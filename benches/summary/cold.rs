//! The time of 10,000 concurrent callers that have no token yet.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use bearer_auth::{BearerAuthLayer, MockTokenSource, TokenCache};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use tower::{Layer, ServiceExt};

use crate::rounds::Spread;
use crate::scenarios::{self, request};
use crate::tower_stacks::Noop;
use crate::{Row, locking};

const ROUNDS: usize = 21;
const CALLERS: usize = 10_000;
const LATENCY: Duration = Duration::from_millis(50);

/// Measures 10,000 cold callers of the layer, and beside them the cost of as many tasks that do
/// less.
pub(crate) fn rows() -> Vec<Row> {
    let runtime = scenarios::runtime(2);
    let (mut times, mut most_fetches) = ([const { Vec::new() }; 6], 0);
    let timed = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        round();
        start.elapsed().div_duration_f64(LATENCY)
    };
    for _ in 0..ROUNDS {
        times[0].push(timed(&mut || runtime.block_on(timers())));
        times[1].push(timed(&mut || runtime.block_on(receivers())));
        times[2].push(timed(&mut || runtime.block_on(callers())));
        times[3].push(timed(&mut || {
            runtime.block_on(requests_of_locking_layer());
        }));
        times[4].push(timed(&mut || {
            most_fetches = most_fetches.max(runtime.block_on(requests(false)));
        }));
        times[5].push(timed(&mut || {
            most_fetches = most_fetches.max(runtime.block_on(requests(true)));
        }));
    }
    let to_locking = Spread::of_ratio(&times[4], &times[3]);
    println!("10,000 cold callers, relative to the endpoint's 50 ms");
    let names = [
        "a timer each",
        "a receiver and a timer each",
        "the cache alone",
        "a hand-written layer with a lock",
        "the layer with its defaults",
        "the same with all observers",
    ];
    for (name, times) in names.iter().zip(&times) {
        let spread = Spread::of(times.iter().copied());
        println!("  {name:34}{}", spread.to_ratio());
    }
    let [.., requests, observed] = times.map(Spread::of);
    vec![
        Row::at_most(
            "10,000 cold callers of the layer with its defaults, relative to the endpoint's 50 ms",
            requests,
            1.3,
        ),
        Row::at_most(
            "· relative to a hand-written layer with a lock",
            to_locking,
            1.05,
        ),
        Row::info(
            "· with the observers of the features `tracing` and `metrics`",
            observed,
        ),
        Row {
            figure: "· token requests",
            measured: most_fetches.to_string(),
            target: "1".to_owned(),
            is_met: Some(most_fetches == 1),
        },
    ]
}

/// Sends requests through the layer with its defaults, which has no token yet. Returns the number
/// of fetches.
///
/// The observers are those of features that are not enabled by default, but are for benchmarks.
async fn requests(is_observed: bool) -> usize {
    let tokens = MockTokenSource::new().with_latency(LATENCY);
    let cache = TokenCache::builder(tokens.clone());
    let cache = match is_observed {
        true => cache,
        false => cache.without_default_observers(),
    };
    let cache = cache.build().expect("valid settings");
    let service = BearerAuthLayer::from_cache(cache).layer(Noop);
    in_tasks(|| service.clone().oneshot(request())).await;
    tokens.fetches()
}

/// Sends requests through a hand-written layer that holds a lock while it fetches.
async fn requests_of_locking_layer() {
    let service = locking::locking(LATENCY);
    in_tasks(|| service.clone().oneshot(request())).await;
}

/// Calls a cache that has no token yet, without a request and a layer.
async fn callers() {
    let cache = TokenCache::builder(MockTokenSource::new().with_latency(LATENCY))
        .without_default_observers()
        .build()
        .expect("valid settings");
    in_tasks(|| {
        let cache = cache.clone();
        async move { cache.token().await }
    })
    .await;
}

/// Sleeps until the same moment in every task: the cost of the tasks and of one timer each.
async fn timers() {
    let end = tokio::time::Instant::now() + LATENCY;
    in_tasks(|| async move {
        sleep_until(end).await;
        Ok::<_, Infallible>(())
    })
    .await;
}

/// Waits for one channel, with a timeout, in every task: the cost of waiting for a shared result
/// without a cache.
async fn receivers() {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        sleep(LATENCY).await;
        sender.send_replace(true);
    });
    in_tasks(|| {
        let mut receiver = receiver.clone();
        async move { timeout(Duration::from_secs(30), receiver.changed()).await }
    })
    .await;
}

/// Runs a call in each of the tasks. All of them have to succeed.
async fn in_tasks<F, T, E>(call: impl Fn() -> F)
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Debug + Send + 'static,
{
    let mut running = JoinSet::new();
    for _ in 0..CALLERS {
        running.spawn(call());
    }
    for result in running.join_all().await {
        result.expect("a token");
    }
}
