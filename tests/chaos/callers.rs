//! The load: callers with different deadlines, through two stacks, and callers whose runtime is
//! polled only while they call.
//!
//! The stacks differ from those of `tests/support`: a service inside of the layer adds a timestamp.
//! Both follow redirects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{BearerAuthLayer, BoxError, RequestAuth, TokenCache, TokenError};
use bytes::Bytes;
use fastrand::Rng;
use http::{Extensions, Method};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceExt};
use tower_http::follow_redirect::FollowRedirect;

use crate::plan::{Plan, Stream, TENANTS, chance};
use crate::server::Addresses;
use crate::{CALL, FETCH_TIMEOUT, LONGEST_PAUSE, RATE, RECOVERY, SENT, WAIT_TIMEOUT, now};

mod source;
mod undriven;

pub(crate) use source::{Attempt, AttemptEnd};
use source::{Attempts, Rotating};
pub(crate) use undriven::FIRST_UNDRIVEN;
use undriven::Undriven;

type Tower = BoxCloneService<http::Request<Full<Bytes>>, http::Response<Bytes>, BoxError>;

/// The longest time that a caller without a deadline may take: two waits for a token, and two API
/// requests, none of which hangs for longer.
const MAX_TIME: Duration = Duration::from_millis(2 * WAIT_TIMEOUT.as_millis() as u64 + 2 * 2_500);
/// The first tenants have few callers on the main runtime, so that undriven ones start most of their
/// fetches.
const QUIET_TENANTS: usize = 3;
/// The body of POST requests.
const BODY: &str = "a body to replay";

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

/// A request to make.
struct Order {
    number: usize,
    method: Method,
    url: String,
    auth: RequestAuth,
}

pub(crate) struct Callers {
    plan: Arc<Plan>,
    addresses: Addresses,
    attempts: Attempts,
    layer: BearerAuthLayer,
    reqwest: ClientWithMiddleware,
    tower: Tower,
}

impl Callers {
    pub(crate) fn new(plan: &Arc<Plan>, addresses: Addresses) -> Self {
        let attempts = Attempts::default();
        let source = Rotating::new(plan, addresses.token, &attempts);
        let cache = TokenCache::builder(source)
            .fetch_timeout(FETCH_TIMEOUT)
            .wait_timeout(WAIT_TIMEOUT)
            .longest_pause(LONGEST_PAUSE)
            .build()
            .unwrap();
        let layer = BearerAuthLayer::from_cache(cache).require_request_auth();

        let inner = Client::builder(TokioExecutor::new()).build_http();
        // The timestamp is added once: a redirected request keeps it.
        let inner =
            FollowRedirect::new(inner).map_request(|mut request: http::Request<Full<Bytes>>| {
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
            addresses,
            attempts,
            reqwest: reqwest_stack(layer.clone()),
            tower: BoxCloneService::new(tower),
            layer,
        }
    }

    /// Calls at the rate until the plan ends, waits for the last response, and returns the calls by
    /// their numbers.
    pub(crate) async fn run(self) -> (BTreeMap<usize, Call>, Vec<Attempt>) {
        let all = (self.plan.total.as_secs_f64() * RATE) as usize;
        let undriven = Undriven::start(&self);
        let mut ticks = interval(Duration::from_secs_f64(1.0 / RATE));
        let mut under_way = JoinSet::new();
        for number in 0..all {
            ticks.tick().await;
            let rng = &mut self.plan.rng(Stream::Caller, number as u64);
            let mut tenant = rng.usize(..TENANTS);
            if tenant < QUIET_TENANTS && chance(rng, 0.8) {
                tenant = rng.usize(QUIET_TENANTS..TENANTS);
            }
            let order = order(rng, number, tenant, self.addresses);
            let limit = limit(rng, &self.plan);
            let (reqwest, tower) = (self.reqwest.clone(), self.tower.clone());
            under_way.spawn(async move {
                let sent = async {
                    if number.is_multiple_of(2) {
                        by_reqwest(reqwest, order).await
                    } else {
                        by_tower(tower, order).await
                    }
                };
                (number, call(tenant, limit, sent).await)
            });
        }
        // A call that hangs is found as one that ended too late.
        let last = Instant::now() + MAX_TIME + Duration::from_secs(1);
        let mut calls = BTreeMap::new();
        while let Ok(Some(call)) = tokio::time::timeout_at(last, under_way.join_next()).await {
            calls.extend([call.unwrap()]);
        }
        assert_eq!(calls.len(), all, "some calls have not ended");
        for thread in undriven {
            let thread = tokio::task::spawn_blocking(|| thread.join().unwrap());
            calls.extend(thread.await.unwrap());
        }
        (calls, source::take(&self.attempts))
    }
}

fn reqwest_stack(layer: BearerAuthLayer) -> ClientWithMiddleware {
    reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(layer)
        .with(Stamp)
        .build()
}

/// Draws a request of a tenant.
fn order(rng: &mut Rng, number: usize, tenant: usize, addresses: Addresses) -> Order {
    Order {
        number,
        method: if rng.bool() {
            Method::GET
        } else {
            Method::POST
        },
        url: format!("http://{}/tenant/{tenant}", addresses.api),
        auth: RequestAuth::scope(format!("tenant/{tenant}")),
    }
}

/// Returns a time limit from 10 ms to 3 s, evenly distributed by its logarithm, or `None` for a few
/// callers.
fn limit(rng: &mut Rng, plan: &Plan) -> Option<Duration> {
    if now() >= plan.faults_end + RECOVERY {
        return Some(Duration::from_secs(5));
    }
    let drawn = Duration::from_secs_f64(0.01 * 300f64.powf(rng.f64()));
    (!chance(rng, 0.03)).then_some(drawn)
}

async fn call(
    tenant: usize,
    limit: Option<Duration>,
    sent: impl Future<Output = CallResult>,
) -> Call {
    let started = now();
    let result = match limit {
        None => sent.await,
        Some(limit) => timeout(limit, sent)
            .await
            .unwrap_or(CallResult::DeadlineExceeded),
    };
    Call {
        tenant,
        started,
        ended: now(),
        deadline: started + limit.unwrap_or(MAX_TIME),
        result,
    }
}

async fn by_reqwest(client: ClientWithMiddleware, order: Order) -> CallResult {
    let is_post = order.method == Method::POST;
    let request = client
        .request(order.method, order.url)
        .header(CALL, order.number)
        .with_extension(order.auth);
    let request = if is_post { request.body(BODY) } else { request };
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

async fn by_tower(mut service: Tower, order: Order) -> CallResult {
    let is_post = order.method == Method::POST;
    let request = http::Request::builder()
        .method(order.method)
        .uri(order.url)
        .header(CALL, order.number)
        .extension(order.auth)
        .body(Full::from(if is_post { BODY } else { "" }))
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
