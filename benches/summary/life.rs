//! What a token's life costs those who call meanwhile: the first fetch, its renewal, its revocation.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bearer_auth::{BearerAuthLayer, MockTokenSource, TokenCache};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, service_fn};

use crate::Row;
use crate::rounds::Spread;

pub(crate) fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut rows = runtime.block_on(herd());
    rows.push(runtime.block_on(rollover()));
    rows.push(runtime.block_on(revocation()));
    rows
}

/// 10,000 cold callers, and a bare timer in the cache's place.
async fn herd() -> Vec<Row> {
    const CALLERS: usize = 10_000;
    const LATENCY: Duration = Duration::from_millis(50);
    const ROUNDS: usize = 21;

    let (mut cached, mut bare, mut most) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        bare.push(until_all(CALLERS, || tokio::time::sleep(LATENCY)).await);
        let tokens = MockTokenSource::new().with_latency(LATENCY);
        let cache = TokenCache::new(tokens.clone());
        let call = || {
            let cache = cache.clone();
            async move {
                cache.token().await.expect("a token");
            }
        };
        cached.push(until_all(CALLERS, call).await);
        most = most.max(tokens.fetches());
    }
    let of = |seconds: &[f64]| Spread::of(seconds.iter().map(|it| it / LATENCY.as_secs_f64()));
    let (cached, bare) = (of(&cached), of(&bare));
    println!(
        "10,000 cold callers: {:.2} times the endpoint's latency, a bare timer {:.2}",
        cached.median, bare.median
    );
    vec![
        Row::at_most("10,000 cold callers, to the endpoint's 50 ms", cached, 1.25),
        Row {
            figure: "the same: token requests",
            measured: most.to_string(),
            target: "1".to_owned(),
            is_met: most == 1,
        },
    ]
}

/// How long it takes until all callers have finished.
async fn until_all<F, Fut>(callers: usize, caller: F) -> f64
where
    F: Fn() -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..callers {
        running.spawn(caller());
    }
    running.join_all().await;
    start.elapsed().as_secs_f64()
}

/// 500 requests/s for 10 s through renewals that take 100 ms.
async fn rollover() -> Row {
    const EVERY: Duration = Duration::from_millis(2);
    const FOR: Duration = Duration::from_secs(10);
    /// Half of what a renewal takes: nothing else takes so long.
    const HELD: Duration = Duration::from_millis(50);

    let tokens = MockTokenSource::new()
        .with_latency(Duration::from_millis(100))
        .with_lifetime(Duration::from_secs(4));
    let layer = BearerAuthLayer::new(tokens.clone());
    layer.cache().token().await.expect("a token");
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let held = Arc::<AtomicUsize>::default();
    let mut ticks = tokio::time::interval(EVERY);
    let mut calls = JoinSet::new();
    let start = Instant::now();
    while start.elapsed() < FOR {
        ticks.tick().await;
        let (service, held) = (service.clone(), Arc::clone(&held));
        calls.spawn(async move {
            let begun = Instant::now();
            service.oneshot(request()).await.expect("an answer");
            if begun.elapsed() > HELD {
                held.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let count = calls.len();
    calls.join_all().await;
    let (held, fetches) = (held.load(Ordering::Relaxed), tokens.fetches());
    Row {
        figure: "500 requests/s through renewals of 100 ms, 4 s tokens, 10 s",
        measured: format!("{held} of {count} waited, {fetches} token requests"),
        target: "0, ≤ 4".to_owned(),
        is_met: held == 0 && fetches <= 4,
    }
}

/// 100 requests with a token that the API knows no more.
async fn revocation() -> Row {
    const REQUESTS: usize = 100;

    let tokens = MockTokenSource::new().with_latency(Duration::from_millis(20));
    let layer = BearerAuthLayer::new(tokens.clone());
    layer.cache().token().await.expect("a token");
    let service = layer.layer(service_fn(async |request: Request<()>| {
        // All are under way before the first is refused.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let is_revoked = request.headers()[AUTHORIZATION] == "Bearer mock-token-1";
        let mut answer = Response::new(());
        if is_revoked {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, Infallible>(answer)
    }));
    let mut calls = JoinSet::new();
    for _ in 0..REQUESTS {
        calls.spawn(service.clone().oneshot(request()));
    }
    let answers = calls.join_all().await;
    let is_fine = |answer: &Result<Response<()>, _>| {
        answer
            .as_ref()
            .is_ok_and(|it| it.status() == StatusCode::OK)
    };
    let fine = answers.iter().filter(|it| is_fine(it)).count();
    let fetches = tokens.fetches() - 1;
    Row {
        figure: "a revoked token, 100 requests at once",
        measured: format!("{fine} answered 200, {fetches} token request(s)"),
        target: "100, 1".to_owned(),
        is_met: fine == REQUESTS && fetches == 1,
    }
}

fn request() -> Request<()> {
    let request = Request::get("https://api.example.com/").body(());
    request.expect("a request")
}
