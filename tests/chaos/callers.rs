//! The load: callers with different deadlines, through two stacks, and the source behind them.
//!
//! The stacks differ from those of `tests/support`: a service inside of the layer adds a timestamp.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, BearerAuthLayer, BoxError, ClientCredentials, RequestAuth, TokenCache, TokenError,
    TokenRequest, TokenSource,
};
use bytes::Bytes;
use fastrand::Rng;
use http::Extensions;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceExt};

use crate::plan::{Plan, Stream, TENANTS, chance};
use crate::{CALL, FETCH_TIMEOUT, LONGEST_PAUSE, RATE, RECOVERY, SENT, now};

type Tower = BoxCloneService<http::Request<Full<Bytes>>, http::Response<Bytes>, BoxError>;

/// The longest time that a caller without a deadline may take: two waits for a token, limited by
/// the timer of each wait, and two API requests, none of which hangs for longer.
const MAX_TIME: Duration = Duration::from_millis(2 * 3_250 + 2 * 2_500);

/// A call and its result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) tenant: usize,
    pub(crate) started: Duration,
    pub(crate) ended: Duration,
    pub(crate) deadline: Duration,
    pub(crate) result: CallResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallResult {
    Response(u16),
    /// A `TokenError`.
    NoToken,
    /// An error of the HTTP client.
    Failed,
    /// The caller gave up.
    DeadlineExceeded,
}

/// The times at which the source's tries ended, completed or dropped.
pub(crate) type Tries = Vec<Option<Duration>>;

pub(crate) struct Callers {
    plan: Arc<Plan>,
    address: SocketAddr,
    tries: Arc<Mutex<Tries>>,
    reqwest: ClientWithMiddleware,
    tower: Tower,
}

impl Callers {
    pub(crate) fn new(plan: &Arc<Plan>, address: SocketAddr) -> Self {
        let tries = Arc::<Mutex<Tries>>::default();
        let secret = |nth| {
            ClientCredentials::builder(format!("http://{address}/token"))
                .client_id("chaos")
                .client_secret(format!("s3cret-{nth}"))
                .build()
                .unwrap()
        };
        let source = Rotating {
            plan: Arc::clone(plan),
            secrets: (0..=plan.rotations.len()).map(secret).collect(),
            tries: Arc::clone(&tries),
        };
        let cache = TokenCache::builder(source)
            .fetch_timeout(FETCH_TIMEOUT)
            .longest_pause(LONGEST_PAUSE)
            .build()
            .unwrap();
        let layer = BearerAuthLayer::from_cache(cache).require_request_auth();

        let inner = Client::builder(TokioExecutor::new()).build_http();
        let inner = inner.map_request(|mut request: http::Request<Full<Bytes>>| {
            request.headers_mut().insert(SENT, stamp());
            request
        });
        let tower = layer
            .layer(inner)
            .and_then(|response: http::Response<Incoming>| async {
                let (head, body) = response.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok(http::Response::from_parts(head, body))
            });
        Self {
            plan: Arc::clone(plan),
            address,
            tries,
            reqwest: reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
                .with(layer)
                .with(Stamp)
                .build(),
            tower: BoxCloneService::new(tower),
        }
    }

    /// Calls at the rate until the plan ends, waits for the last response, and returns the calls in
    /// their order.
    pub(crate) async fn run(self) -> (Vec<Call>, Tries) {
        let all = (self.plan.total.as_secs_f64() * RATE) as usize;
        let mut ticks = interval(Duration::from_secs_f64(1.0 / RATE));
        let mut under_way = JoinSet::new();
        for number in 0..all {
            ticks.tick().await;
            let rng = &mut self.plan.rng(Stream::Caller, number as u64);
            let tenant = rng.usize(..TENANTS);
            let limit = self.limit(rng);
            let url = format!("http://{}/tenant/{tenant}", self.address);
            let auth = RequestAuth::scope(format!("tenant/{tenant}"));
            let (reqwest, tower) = (self.reqwest.clone(), self.tower.clone());
            under_way.spawn(async move {
                let started = now();
                let sent = async {
                    if number.is_multiple_of(2) {
                        by_reqwest(reqwest, url, auth, number).await
                    } else {
                        by_tower(tower, url, auth, number).await
                    }
                };
                let result = match limit {
                    None => sent.await,
                    Some(limit) => timeout(limit, sent)
                        .await
                        .unwrap_or(CallResult::DeadlineExceeded),
                };
                let deadline = started + limit.unwrap_or(MAX_TIME);
                let ended = now();
                (
                    number,
                    Call {
                        tenant,
                        started,
                        ended,
                        deadline,
                        result,
                    },
                )
            });
        }
        // A call that hangs is found as one that ended too late.
        let last = Instant::now() + MAX_TIME + Duration::from_secs(1);
        let mut calls = Vec::with_capacity(all);
        while let Ok(Some(call)) = tokio::time::timeout_at(last, under_way.join_next()).await {
            calls.push(call.unwrap());
        }
        calls.sort_by_key(|(number, _)| *number);
        assert_eq!(calls.len(), all, "some calls have not ended");
        let tries = self.tries.lock().unwrap().clone();
        (calls.into_iter().map(|(_, call)| call).collect(), tries)
    }

    /// Returns a time limit from 10 ms to 3 s, evenly distributed by its logarithm, or `None` for a
    /// few callers.
    fn limit(&self, rng: &mut Rng) -> Option<Duration> {
        if now() >= self.plan.faults_end + RECOVERY {
            return Some(Duration::from_secs(5));
        }
        let drawn = Duration::from_secs_f64(0.01 * 300f64.powf(rng.f64()));
        (!chance(rng, 0.03)).then_some(drawn)
    }
}

async fn by_reqwest(
    client: ClientWithMiddleware,
    url: String,
    auth: RequestAuth,
    number: usize,
) -> CallResult {
    let request = client.get(url).header(CALL, number).with_extension(auth);
    match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            match response.bytes().await {
                Ok(_) => CallResult::Response(status),
                Err(_) => CallResult::Failed,
            }
        }
        Err(reqwest_middleware::Error::Middleware(error)) if error.is::<TokenError>() => {
            CallResult::NoToken
        }
        Err(_) => CallResult::Failed,
    }
}

async fn by_tower(mut service: Tower, url: String, auth: RequestAuth, number: usize) -> CallResult {
    let request = http::Request::post(url)
        .header(CALL, number)
        .extension(auth)
        .body(Full::from("a body to replay"))
        .unwrap();
    let sent = async { service.ready().await?.call(request).await };
    match sent.await {
        Ok(response) => CallResult::Response(response.status().as_u16()),
        Err(error) if error.is::<TokenError>() => CallResult::NoToken,
        Err(_) => CallResult::Failed,
    }
}

/// Returns the current time, which is added to each request that leaves the layer.
fn stamp() -> http::HeaderValue {
    (now().as_nanos() as u64).into()
}

struct Stamp;

#[async_trait]
impl Middleware for Stamp {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        request.headers_mut().insert(SENT, stamp());
        next.run(request, extensions).await
    }
}

/// A source that gets each new secret some time after the server requires it, and numbers its
/// tries.
struct Rotating {
    plan: Arc<Plan>,
    secrets: Vec<ClientCredentials>,
    tries: Arc<Mutex<Tries>>,
}

/// Records the end of a try, also if it is dropped.
struct TryGuard<'a> {
    tries: &'a Mutex<Tries>,
    number: usize,
}

#[async_trait]
impl TokenSource for Rotating {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let number = {
            let mut tries = self.tries.lock().unwrap();
            tries.push(None);
            tries.len() - 1
        };
        let _guard = TryGuard {
            tries: &self.tries,
            number,
        };
        let request = request.clone().with_param("number", number.to_string());
        let secret = &self.secrets[self.plan.secret_known(now())];
        secret.fetch(&request).await
    }
}

impl Drop for TryGuard<'_> {
    fn drop(&mut self) {
        if let Ok(mut tries) = self.tries.lock() {
            tries[self.number] = Some(now());
        }
    }
}
