//! A token endpoint and an API that follow the plan and record every request.
//!
//! They run on their own thread, so that a stall of the client's runtime does not distort the
//! records.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::plan::{Action, Plan, Stream, TENANTS};
use crate::{CALL, Lag, SENT, now};

type HttpResponse = Response<Full<Bytes>>;

/// The bodies of 200 responses without a token.
const GARBAGE: [&str; 6] = [
    "",
    "<html><body>Sign in</body></html>",
    "{\"access_token\":",
    "{\"token_type\":\"Bearer\",\"expires_in\":5}",
    "{\"access_token\":\"two words\",\"token_type\":\"Bearer\"}",
    "{\"access_token\":\"mac\",\"token_type\":\"mac\"}",
];

/// An issued token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    value: String,
    pub(crate) tenant: usize,
    /// The arrival of the token request.
    pub(crate) issued: Duration,
    pub(crate) lifetime: Duration,
    /// The time from the arrival to the response.
    pub(crate) latency: Duration,
    pub(crate) revoked: Option<Duration>,
}

/// One request to the token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct TokenRecord {
    pub(crate) tenant: usize,
    /// The number that the source gave it.
    pub(crate) number: usize,
    pub(crate) received: Duration,
    /// The time of the response, or of the client's disconnection.
    pub(crate) ended: Option<Duration>,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Issued,
    /// A failure that may be retried at once.
    Transient,
    RetryAfter(u64),
    /// The secret was wrong.
    InvalidClient,
}

/// One request to the API.
#[derive(Clone, Debug)]
pub(crate) struct ApiRecord {
    pub(crate) call: usize,
    /// The tenant in the path.
    pub(crate) tenant: usize,
    /// The index of the token, or `None` for a value that the server did not issue.
    pub(crate) token: Option<usize>,
    pub(crate) sent: Duration,
    pub(crate) received: Duration,
    /// The time and the status of the response, if there was one.
    pub(crate) responded: Option<(Duration, u16)>,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) tokens: Vec<Token>,
    pub(crate) token_requests: Vec<TokenRecord>,
    pub(crate) api_requests: Vec<ApiRecord>,
    /// The number of the plan's revocations that have been applied.
    revocations: usize,
    /// The number of tokens by tenant that will be revoked as soon as they are issued.
    revoked_in_advance: [usize; TENANTS],
    requests_of: [usize; TENANTS],
}

struct Shared {
    plan: Arc<Plan>,
    log: Mutex<Log>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    stop: oneshot::Sender<Infallible>,
    thread: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(plan: &Arc<Plan>, lag: &Lag) -> Self {
        let shared = Arc::new(Shared {
            plan: Arc::clone(plan),
            log: Mutex::default(),
        });
        let (ready, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (own, lag) = (Arc::clone(&shared), lag.clone());
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                tokio::spawn(lag.measure());
                tokio::spawn(accept(listener, own));
                let _ = stopped.await;
            });
        });
        Self {
            address: address.await.unwrap(),
            shared,
            stop,
            thread,
        }
    }

    /// Stops the server. Requests in progress have no end in the records.
    pub(crate) fn stop(self) -> Log {
        drop(self.stop);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.shared.log())
    }
}

impl Shared {
    /// Returns the records, after applying the revocations that are due.
    fn log(&self) -> MutexGuard<'_, Log> {
        let mut guard = self.log.lock().unwrap();
        let (log, now) = (&mut *guard, now());
        while let Some(due) = self.plan.revocations.get(log.revocations)
            && due.at <= now
        {
            log.revocations += 1;
            let applies = |tenant| due.tenant.is_none_or(|it| it == tenant);
            for token in log.tokens.iter_mut().filter(|it| applies(it.tenant)) {
                token.revoked.get_or_insert(due.at);
            }
            if let (Some(tenant), true) = (due.tenant, due.successor_too) {
                log.revoked_in_advance[tenant] += 1;
            }
        }
        guard
    }

    async fn token(&self, request: Request<Incoming>) -> io::Result<HttpResponse> {
        let received = now();
        let body = request.collect().await.map_err(io::Error::other)?;
        let body = body.to_bytes();
        let field = |name: &str| {
            let found = form_urlencoded::parse(&body).find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap()
        };
        let tenant: usize = number(&field("scope"), "tenant/").unwrap();
        let secret: usize = number(&field("client_secret"), "s3cret-").unwrap();
        let (behaviour, ending, nth) = {
            let mut log = self.log();
            let nth = log.requests_of[tenant];
            log.requests_of[tenant] += 1;
            log.token_requests.push(TokenRecord {
                tenant,
                number: field("number").parse().unwrap(),
                received,
                ended: None,
                outcome: Outcome::Transient,
            });
            let ending = Ending {
                shared: self,
                index: log.token_requests.len() - 1,
            };
            (self.plan.token_request(tenant, nth, received), ending, nth)
        };
        tokio::time::sleep(behaviour.latency).await;

        let outcome = |outcome| self.log().token_requests[ending.index].outcome = outcome;
        match behaviour.action {
            action if action != Action::Close && secret != self.plan.secret_enforced(now()) => {
                outcome(Outcome::InvalidClient);
                Ok(response(
                    401,
                    json!({ "error": "invalid_client" }).to_string(),
                ))
            }
            Action::Serve => {
                outcome(Outcome::Issued);
                Ok(self.issue(tenant, nth, received))
            }
            Action::Close => Err(io::ErrorKind::ConnectionReset.into()),
            Action::Fail(status) => Ok(response(status, "")),
            Action::Garble(nth) => Ok(response(200, GARBAGE[nth % GARBAGE.len()])),
            Action::Throttle(None) => Ok(response(429, "")),
            Action::Throttle(Some(seconds)) => {
                outcome(Outcome::RetryAfter(seconds));
                let mut response = response(429, "");
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
                Ok(response)
            }
        }
    }

    fn issue(&self, tenant: usize, nth: usize, issued: Duration) -> HttpResponse {
        let nth = (tenant << 32 | nth) as u64;
        let rng = &mut self.plan.rng(Stream::Lifetime, nth);
        let lifetime = rng.u64(4..9);
        let mut log = self.log();
        let value = format!("{}.{:016x}", log.tokens.len(), rng.u64(..));
        let is_revoked = log.revoked_in_advance[tenant] > 0;
        log.revoked_in_advance[tenant] -= usize::from(is_revoked);
        log.tokens.push(Token {
            value: value.clone(),
            tenant,
            issued,
            lifetime: Duration::from_secs(lifetime),
            latency: now() - issued,
            revoked: is_revoked.then_some(issued),
        });
        let body = json!({ "access_token": value, "token_type": "Bearer", "expires_in": lifetime });
        response(200, body.to_string())
    }

    async fn api(&self, tenant: usize, headers: &HeaderMap) -> io::Result<HttpResponse> {
        let received = now();
        let text = |name| headers[name].to_str().unwrap();
        let value = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        let value = value.and_then(|it| it.strip_prefix("Bearer "));
        let (behaviour, index, is_good) = {
            let mut log = self.log();
            let known = |token: &Token| Some(token.value.as_str()) == value;
            let token = log.tokens.iter().rposition(known);
            let is_good = token.map(|it| &log.tokens[it]).is_some_and(|token| {
                token.tenant == tenant
                    && token.revoked.is_none()
                    && received < token.issued + token.lifetime
            });
            log.api_requests.push(ApiRecord {
                call: text(CALL).parse().unwrap(),
                tenant,
                token,
                sent: Duration::from_nanos(text(SENT).parse().unwrap()),
                received,
                responded: None,
            });
            let index = log.api_requests.len() - 1;
            (self.plan.api_request(index, received), index, is_good)
        };
        tokio::time::sleep(behaviour.latency).await;

        let response = match behaviour.action {
            Action::Close | Action::Garble(_) => return Err(io::ErrorKind::ConnectionReset.into()),
            Action::Throttle(_) => response(429, ""),
            Action::Fail(status) => response(status, ""),
            Action::Serve if is_good => response(200, "fine"),
            Action::Serve => {
                let mut response = response(401, "");
                let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                response
            }
        };
        self.log().api_requests[index].responded = Some((now(), response.status().as_u16()));
        Ok(response)
    }
}

/// Records the end of a token request, also if its client disconnects.
struct Ending<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // Not by `log()`, which panics on a poisoned lock: the test is failing already then.
        if let Ok(mut log) = self.shared.log.lock()
            && let Some(request) = log.token_requests.get_mut(self.index)
        {
            request.ended = Some(now());
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let shared = Arc::clone(&shared);
                async move {
                    match number(request.uri().path(), "/tenant/") {
                        Some(tenant) => shared.api(tenant, request.headers()).await,
                        None => shared.token(request).await,
                    }
                }
            });
            // An error of the service closes the connection, and clients may disconnect at any
            // time.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn number(text: &str, prefix: &str) -> Option<usize> {
    text.strip_prefix(prefix)?.parse().ok()
}

fn response(status: u16, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
