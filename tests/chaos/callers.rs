//! The load: callers with deadlines of their own, through both stacks, and the source behind them.

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
use crate::{CALL, FETCH_TIMEOUT, HEALING, LONGEST_PAUSE, RATE, SENT, now};

type Tower = BoxCloneService<http::Request<Full<Bytes>>, http::Response<Bytes>, BoxError>;

/// How long a caller without a deadline may take: twice the token (by a waiter's own timer) and
/// twice the API, none of which hangs for longer.
const PATIENCE: Duration = Duration::from_millis(2 * 3_250 + 2 * 2_500);

/// What became of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) tenant: usize,
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
    pub(crate) deadline: Duration,
    pub(crate) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answer(u16),
    NoToken,
    Broken,
    /// Its deadline came first.
    GivenUp,
}

/// When each try of the source was done with, finished or not.
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
            .and_then(|answer: http::Response<Incoming>| async {
                let (head, body) = answer.into_parts();
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

    /// Calls at the rate until the plan ends, and waits for the last answer. In the calls' order.
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
                let begun = now();
                let sent = async {
                    if number.is_multiple_of(2) {
                        by_reqwest(reqwest, url, auth, number).await
                    } else {
                        by_tower(tower, url, auth, number).await
                    }
                };
                let end = match limit {
                    None => sent.await,
                    Some(limit) => timeout(limit, sent).await.unwrap_or(End::GivenUp),
                };
                let deadline = begun + limit.unwrap_or(PATIENCE);
                let ended = now();
                (
                    number,
                    Call {
                        tenant,
                        begun,
                        ended,
                        deadline,
                        end,
                    },
                )
            });
        }
        // A call that hangs is seen as one that ended too late.
        let last = Instant::now() + PATIENCE + Duration::from_secs(1);
        let mut calls = Vec::with_capacity(all);
        while let Ok(Some(call)) = tokio::time::timeout_at(last, under_way.join_next()).await {
            calls.push(call.unwrap());
        }
        calls.sort_by_key(|(number, _)| *number);
        assert_eq!(calls.len(), all, "calls that have not ended at all");
        let tries = self.tries.lock().unwrap().clone();
        (calls.into_iter().map(|(_, call)| call).collect(), tries)
    }

    /// From 10 ms to 3 s, short ones as likely as long ones; a few have none.
    fn limit(&self, rng: &mut Rng) -> Option<Duration> {
        if now() >= self.plan.calm + HEALING {
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
) -> End {
    let request = client.get(url).header(CALL, number).with_extension(auth);
    match request.send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            match answer.bytes().await {
                Ok(_) => End::Answer(status),
                Err(_) => End::Broken,
            }
        }
        Err(reqwest_middleware::Error::Middleware(error)) if error.is::<TokenError>() => {
            End::NoToken
        }
        Err(_) => End::Broken,
    }
}

async fn by_tower(mut service: Tower, url: String, auth: RequestAuth, number: usize) -> End {
    let request = http::Request::post(url)
        .header(CALL, number)
        .extension(auth)
        .body(Full::from("a body to be sent again"))
        .unwrap();
    let sent = async { service.ready().await?.call(request).await };
    match sent.await {
        Ok(answer) => End::Answer(answer.status().as_u16()),
        Err(error) if error.is::<TokenError>() => End::NoToken,
        Err(_) => End::Broken,
    }
}

/// Says when a request left the layer.
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

/// Learns of a new secret some time after the server has taken it up, and numbers its tries.
struct Rotating {
    plan: Arc<Plan>,
    secrets: Vec<ClientCredentials>,
    tries: Arc<Mutex<Tries>>,
}

/// Writes down when a try was over.
struct Over<'a> {
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
        let _over = Over {
            tries: &self.tries,
            number,
        };
        let request = request.clone().with_param("number", number.to_string());
        let secret = &self.secrets[self.plan.secret_known(now())];
        secret.fetch(&request).await
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if let Ok(mut tries) = self.tries.lock() {
            tries[self.number] = Some(now());
        }
    }
}
