//! What callers meet with in a token's life: its first fetch, its renewal, its revocation.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bearer_auth::{BearerAuthLayer, Clock, Hold, MockTokenSource, TokenCache};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::{Layer, ServiceExt, service_fn};

use crate::stack;

pub(crate) fn runtime(workers: usize) -> Runtime {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(workers).enable_all().build();
    runtime.expect("a runtime")
}

/// 10,000 callers at once.
pub(crate) mod herd {
    use super::*;

    pub(crate) const CALLERS: usize = 10_000;
    pub(crate) const LATENCY: Duration = Duration::from_millis(50);

    /// There is no token yet. How many token requests it takes.
    pub(crate) async fn of_cold_callers() -> usize {
        let tokens = MockTokenSource::new().with_latency(LATENCY);
        let cache = TokenCache::new(tokens.clone());
        let call = || {
            let cache = cache.clone();
            async move {
                cache.token().await.expect("a token");
            }
        };
        until_all_have(call).await;
        tokens.fetches()
    }

    /// All sleep until one moment, each by a timer of its own: what so many tasks cost.
    pub(crate) async fn of_timers() {
        let end = tokio::time::Instant::now() + LATENCY;
        until_all_have(|| tokio::time::sleep_until(end)).await;
    }

    /// All listen to one channel, each with a timer of its own, as waiters for a token do: what that costs without
    /// a cache.
    pub(crate) async fn of_listeners() {
        let (word, listener) = watch::channel(false);
        tokio::spawn(async move {
            tokio::time::sleep(LATENCY).await;
            word.send_replace(true);
        });
        let listen = || {
            let mut listener = listener.clone();
            async move {
                let heard = timeout(Duration::from_secs(30), listener.changed());
                heard.await.expect("in time").expect("word");
            }
        };
        until_all_have(listen).await;
    }

    async fn until_all_have<Fut>(call: impl Fn() -> Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut running = JoinSet::new();
        for _ in 0..CALLERS {
            running.spawn(call());
        }
        running.join_all().await;
    }
}

/// How requests fared while tokens were renewed. `held` counts those that took longer than 50 ms.
pub(crate) struct Rollover {
    pub(crate) requests: usize,
    pub(crate) held: usize,
    pub(crate) token_requests: usize,
}

/// 500 requests/s through renewals of 100 ms, with 4 s tokens.
pub(crate) async fn rollover(lasting: Duration) -> Rollover {
    const EVERY: Duration = Duration::from_millis(2);
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
    while start.elapsed() < lasting {
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
    let requests = calls.len();
    calls.join_all().await;
    Rollover {
        requests,
        held: held.load(Ordering::Relaxed),
        token_requests: tokens.fetches(),
    }
}

/// How requests fared whose token was revoked.
pub(crate) struct Revocation {
    pub(crate) answered_200: usize,
    pub(crate) token_requests: usize,
}

/// So many requests at once with a token that the API knows no more.
pub(crate) async fn revocation(requests: usize) -> Revocation {
    const LATENCY: Duration = Duration::from_millis(20);

    let tokens = MockTokenSource::new().with_latency(LATENCY);
    let layer = BearerAuthLayer::new(tokens.clone());
    layer.cache().token().await.expect("a token");
    let service = layer.layer(service_fn(async |request: Request<()>| {
        // All are under way before the first is refused.
        tokio::time::sleep(LATENCY).await;
        let is_revoked = request.headers()[AUTHORIZATION] == "Bearer mock-token-1";
        let mut answer = Response::new(());
        if is_revoked {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, Infallible>(answer)
    }));
    let mut calls = JoinSet::new();
    for _ in 0..requests {
        calls.spawn(service.clone().oneshot(request()));
    }
    let answers = calls.join_all().await;
    let is_fine = |answer: &Result<Response<()>, _>| {
        answer
            .as_ref()
            .is_ok_and(|it| it.status() == StatusCode::OK)
    };
    Revocation {
        answered_200: answers.iter().filter(|it| is_fine(it)).count(),
        token_requests: tokens.fetches() - 1,
    }
}

fn request() -> Request<()> {
    let request = Request::get("https://api.example.com/").body(());
    request.expect("a request")
}

/// A layer whose token of 900 s has reached a certain age, and stays so. If it is due, the renewal is under way,
/// and never ends.
pub(crate) struct Aged {
    pub(crate) layer: BearerAuthLayer,
    _renewal: (Hold, Runtime),
}

impl Aged {
    pub(crate) fn fresh() -> Self {
        Self::of(10)
    }

    pub(crate) fn due() -> Self {
        Self::of(850)
    }

    fn of(seconds: u64) -> Self {
        let (tokens, runtime) = (MockTokenSource::new(), runtime(1));
        let tokens = tokens.with_lifetime(Duration::from_secs(900));
        let clock = Stopped::default();
        let cache = TokenCache::builder(tokens.clone())
            .clock(clock.clone())
            .build()
            .unwrap();
        let token = || runtime.block_on(cache.token()).expect("a token");
        token();
        let hold = tokens.hold();
        clock.0.store(seconds, Ordering::Relaxed);
        token();
        let layer = stack::over(cache);
        Self {
            layer,
            _renewal: (hold, runtime),
        }
    }
}

/// A clock that stands still between two changes.
#[derive(Clone, Default)]
struct Stopped(Arc<AtomicU64>);

impl Clock for Stopped {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.monotonic()
    }
}
