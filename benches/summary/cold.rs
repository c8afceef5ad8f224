//! The time of 10,000 concurrent callers that have no token yet.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use bearer_auth::{BearerAuthLayer, MockTokenSource, TokenCache};
use http::{Request, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::{Layer, Service, ServiceExt};

use crate::Row;
use crate::rounds::Spread;
use crate::scenarios::{self, request};
use crate::support::references;
use crate::tower_stacks::Noop;

const ROUNDS: usize = 21;
const CALLERS: usize = 10_000;
const LATENCY: Duration = Duration::from_millis(50);

/// Measures 10,000 cold callers of the layer, and beside them the cost of as many tasks that do
/// less.
pub(crate) fn rows() -> Vec<Row> {
    let runtime = scenarios::runtime(2);
    let (mut times, mut most_fetches) = ([const { Vec::new() }; 5], 0);
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
            most_fetches = most_fetches.max(runtime.block_on(requests()));
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
    ];
    for (name, times) in names.iter().zip(&times) {
        let spread = Spread::of(times.iter().copied());
        println!("  {name:34}{}", spread.to_ratio());
    }
    let [.., requests] = times.map(Spread::of);
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
        Row {
            figure: "· token requests",
            measured: most_fetches.to_string(),
            target: "1".to_owned(),
            is_met: Some(most_fetches == 1),
        },
    ]
}

/// Sends requests through the layer with its defaults, which has no token yet. Returns the
/// number of fetches.
async fn requests() -> usize {
    let tokens = MockTokenSource::new().with_latency(LATENCY);
    let service = BearerAuthLayer::new(tokens.clone()).layer(Noop);
    send(|| service.clone()).await;
    tokens.fetches()
}

/// Calls a cache that has no token yet, without a request and a layer.
async fn callers() {
    let cache = TokenCache::new(MockTokenSource::new().with_latency(LATENCY));
    let call = || {
        let cache = cache.clone();
        async move {
            cache.token().await.expect("a token");
        }
    };
    in_tasks(call).await;
}

/// Sends requests through a hand-written layer that holds a lock while it fetches.
async fn requests_of_locking_layer() {
    let service = references::locking(LATENCY);
    send(|| service.clone()).await;
}

async fn send<S>(service: impl Fn() -> S)
where
    S: Service<Request<()>, Response = Response<()>, Error: Debug, Future: Send>,
    S: Send + 'static,
{
    in_tasks(|| {
        let request = service().oneshot(request());
        async move {
            request.await.expect("a response");
        }
    })
    .await;
}

/// Sleeps until the same moment in every task: the cost of the tasks and of one timer each.
async fn timers() {
    let end = tokio::time::Instant::now() + LATENCY;
    in_tasks(|| tokio::time::sleep_until(end)).await;
}

/// Waits for one channel, with a timeout, in every task: the cost of waiting for a shared
/// result without a cache.
async fn receivers() {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::time::sleep(LATENCY).await;
        sender.send_replace(true);
    });
    let receive = || {
        let mut receiver = receiver.clone();
        async move {
            let received = timeout(Duration::from_secs(30), receiver.changed());
            received.await.expect("in time").expect("a value");
        }
    };
    in_tasks(receive).await;
}

async fn in_tasks<Fut>(call: impl Fn() -> Fut)
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    for _ in 0..CALLERS {
        running.spawn(call());
    }
    running.join_all().await;
}
