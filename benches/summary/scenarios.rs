//! The stages of a token's life as callers meet them: refresh and revocation.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bearer_auth::{BearerAuthLayer, Clock, Hold, MockTokenSource, TokenCache};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, service_fn};

use crate::tower_stacks;

pub(crate) fn runtime(workers: usize) -> Runtime {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(workers).enable_all().build();
    runtime.expect("a runtime")
}

/// The result of [`rollover`].
pub(crate) struct Rollover {
    pub(crate) requests: usize,
    /// The number of requests that took longer than 50 ms.
    pub(crate) delayed: usize,
    pub(crate) token_requests: usize,
}

/// Sends 500 requests/s with tokens that live for 4 s and take 100 ms to fetch.
pub(crate) async fn rollover(duration: Duration) -> Rollover {
    const INTERVAL: Duration = Duration::from_millis(2);
    /// Half the time of a fetch. Nothing else takes as long.
    const DELAYED: Duration = Duration::from_millis(50);

    let tokens = MockTokenSource::new()
        .with_latency(Duration::from_millis(100))
        .with_lifetime(Duration::from_secs(4));
    let layer = BearerAuthLayer::new(tokens.clone());
    layer.cache().token().await.expect("a token");
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let delayed = Arc::<AtomicUsize>::default();
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut calls = JoinSet::new();
    let start = Instant::now();
    while start.elapsed() < duration {
        ticks.tick().await;
        let (service, delayed) = (service.clone(), Arc::clone(&delayed));
        calls.spawn(async move {
            let start = Instant::now();
            service.oneshot(request()).await.expect("a response");
            if start.elapsed() > DELAYED {
                delayed.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let requests = calls.len();
    calls.join_all().await;
    Rollover {
        requests,
        delayed: delayed.load(Ordering::Relaxed),
        token_requests: tokens.fetches(),
    }
}

/// The result of [`revocation`].
pub(crate) struct Revocation {
    /// The number of responses with 200.
    pub(crate) succeeded: usize,
    /// The number of fetches after the first token.
    pub(crate) token_requests: usize,
}

/// Sends concurrent requests with a token that the API rejects.
pub(crate) async fn revocation(requests: usize) -> Revocation {
    const LATENCY: Duration = Duration::from_millis(20);

    let tokens = MockTokenSource::new().with_latency(LATENCY);
    let layer = BearerAuthLayer::new(tokens.clone());
    layer.cache().token().await.expect("a token");
    let service = layer.layer(service_fn(async |request: Request<()>| {
        // All requests are in progress before the first one is rejected.
        tokio::time::sleep(LATENCY).await;
        let is_revoked = request.headers()[AUTHORIZATION] == "Bearer mock-token-1";
        let mut response = Response::new(());
        if is_revoked {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, Infallible>(response)
    }));
    let mut calls = JoinSet::new();
    for _ in 0..requests {
        calls.spawn(service.clone().oneshot(request()));
    }
    let responses = calls.join_all().await;
    let is_ok = |response: &Result<Response<()>, _>| {
        response
            .as_ref()
            .is_ok_and(|it| it.status() == StatusCode::OK)
    };
    Revocation {
        succeeded: responses.iter().filter(|it| is_ok(it)).count(),
        token_requests: tokens.fetches() - 1,
    }
}

pub(crate) fn request() -> Request<()> {
    let request = Request::get("https://api.example.com/").body(());
    request.expect("a request")
}

/// A layer whose token, with a lifetime of 900 s, stays at a fixed age.
pub(crate) struct TokenAtAge {
    pub(crate) layer: BearerAuthLayer,
    /// Keeps the refresh, if there is one, from ending.
    _refresh: (Hold, Runtime),
}

impl TokenAtAge {
    pub(crate) fn fresh() -> Self {
        Self::new(10)
    }

    /// Returns a layer whose token is being refreshed in the background. The refresh never ends.
    pub(crate) fn refreshing() -> Self {
        Self::new(850)
    }

    fn new(seconds: u64) -> Self {
        let (tokens, runtime) = (MockTokenSource::new(), runtime(1));
        let tokens = tokens.with_lifetime(Duration::from_secs(900));
        let clock = StoppedClock::default();
        let cache = TokenCache::builder(tokens.clone())
            .clock(clock.clone())
            .build()
            .expect("valid settings");
        let token = || runtime.block_on(cache.token()).expect("a token");
        token();
        let hold = tokens.hold();
        clock.0.store(seconds, Ordering::Relaxed);
        token();
        let layer = tower_stacks::layer_over(cache);
        Self {
            layer,
            _refresh: (hold, runtime),
        }
    }
}

/// A clock that changes only when it is set.
#[derive(Clone, Default)]
struct StoppedClock(Arc<AtomicU64>);

impl Clock for StoppedClock {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.monotonic()
    }
}
