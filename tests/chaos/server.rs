//! A token endpoint and an API that do as the plan says, and write down everything that comes in.
//!
//! On a thread of its own, so that a stall of the client's runtime is not one of the records.

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

use crate::plan::{Fate, Plan, Stream, TENANTS};
use crate::{CALL, Lag, SENT, now};

type Reply = Response<Full<Bytes>>;

/// What a 200 says that is no token response.
const GARBAGE: [&str; 6] = [
    "",
    "<html><body>Sign in</body></html>",
    "{\"access_token\":",
    "{\"token_type\":\"Bearer\",\"expires_in\":5}",
    "{\"access_token\":\"two words\",\"token_type\":\"Bearer\"}",
    "{\"access_token\":\"mac\",\"token_type\":\"mac\"}",
];

/// A token as the server knows it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    value: String,
    pub(crate) tenant: usize,
    /// When the request for it came in.
    pub(crate) issued: Duration,
    pub(crate) life: Duration,
    /// How long the server took over it.
    pub(crate) latency: Duration,
    pub(crate) revoked: Option<Duration>,
}

/// One request to the token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) tenant: usize,
    /// The source's own number.
    pub(crate) number: usize,
    pub(crate) received: Duration,
    /// When the answer went out, or the client was gone.
    pub(crate) ended: Option<Duration>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Issued,
    /// What may be tried again at once.
    Transient,
    RetryAfter(u64),
    /// The secret was not the one.
    InvalidClient,
}

/// One request to the API.
#[derive(Clone, Debug)]
pub(crate) struct Called {
    pub(crate) call: usize,
    /// The tenant in the path.
    pub(crate) tenant: usize,
    /// An index of the tokens; `None` for a value that the server never made.
    pub(crate) token: Option<usize>,
    pub(crate) sent: Duration,
    pub(crate) received: Duration,
    /// When and what was answered, if anything.
    pub(crate) answered: Option<(Duration, u16)>,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) tokens: Vec<Token>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) called: Vec<Called>,
    /// How many of the plan's revocations have been done.
    revocations: usize,
    /// Tenants whose next tokens are stillborn, and how many.
    stillborn: [usize; TENANTS],
    asked_by: [usize; TENANTS],
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

    /// Ends everything; what is still under way has no end in the records.
    pub(crate) fn stop(self) -> Log {
        drop(self.stop);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.shared.log())
    }
}

impl Shared {
    /// The records, after what the plan has revoked by now.
    fn log(&self) -> MutexGuard<'_, Log> {
        let mut guard = self.log.lock().unwrap();
        let (log, now) = (&mut *guard, now());
        while let Some(due) = self.plan.revocations.get(log.revocations)
            && due.at <= now
        {
            log.revocations += 1;
            let hit = |tenant| due.tenant.is_none_or(|it| it == tenant);
            for token in log.tokens.iter_mut().filter(|token| hit(token.tenant)) {
                token.revoked.get_or_insert(due.at);
            }
            if let (Some(tenant), true) = (due.tenant, due.successor_too) {
                log.stillborn[tenant] += 1;
            }
        }
        guard
    }

    async fn token(&self, request: Request<Incoming>) -> io::Result<Reply> {
        let received = now();
        let body = request.collect().await.map_err(io::Error::other)?;
        let body = body.to_bytes();
        let field = |name: &str| {
            let found = form_urlencoded::parse(&body).find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).unwrap()
        };
        let tenant: usize = number(&field("scope"), "tenant/").unwrap();
        let secret: usize = number(&field("client_secret"), "s3cret-").unwrap();
        let (treatment, ending, nth) = {
            let mut log = self.log();
            let nth = log.asked_by[tenant];
            log.asked_by[tenant] += 1;
            log.asked.push(Asked {
                tenant,
                number: field("number").parse().unwrap(),
                received,
                ended: None,
                verdict: Verdict::Transient,
            });
            let ending = Ending {
                shared: self,
                index: log.asked.len() - 1,
            };
            (self.plan.token_request(tenant, nth, received), ending, nth)
        };
        tokio::time::sleep(treatment.latency).await;

        let verdict = |verdict| self.log().asked[ending.index].verdict = verdict;
        match treatment.fate {
            fate if fate != Fate::Close && secret != self.plan.secret_enforced(now()) => {
                verdict(Verdict::InvalidClient);
                Ok(reply(401, json!({ "error": "invalid_client" }).to_string()))
            }
            Fate::Serve => {
                verdict(Verdict::Issued);
                Ok(self.issue(tenant, nth, received))
            }
            Fate::Close => Err(io::ErrorKind::ConnectionReset.into()),
            Fate::Fail(status) => Ok(reply(status, "")),
            Fate::Garble(nth) => Ok(reply(200, GARBAGE[nth % GARBAGE.len()])),
            Fate::Throttle(None) => Ok(reply(429, "")),
            Fate::Throttle(Some(seconds)) => {
                verdict(Verdict::RetryAfter(seconds));
                let mut reply = reply(429, "");
                reply.headers_mut().insert(RETRY_AFTER, seconds.into());
                Ok(reply)
            }
        }
    }

    fn issue(&self, tenant: usize, nth: usize, issued: Duration) -> Reply {
        let nth = (tenant << 32 | nth) as u64;
        let rng = &mut self.plan.rng(Stream::Life, nth);
        let life = rng.u64(4..9);
        let mut log = self.log();
        let value = format!("{}.{:016x}", log.tokens.len(), rng.u64(..));
        let is_stillborn = log.stillborn[tenant] > 0;
        log.stillborn[tenant] -= usize::from(is_stillborn);
        log.tokens.push(Token {
            value: value.clone(),
            tenant,
            issued,
            life: Duration::from_secs(life),
            latency: now() - issued,
            revoked: is_stillborn.then_some(issued),
        });
        let body = json!({ "access_token": value, "token_type": "Bearer", "expires_in": life });
        reply(200, body.to_string())
    }

    async fn api(&self, tenant: usize, headers: &HeaderMap) -> io::Result<Reply> {
        let received = now();
        let text = |name| headers[name].to_str().unwrap();
        let value = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        let value = value.and_then(|it| it.strip_prefix("Bearer "));
        let (treatment, index, is_good) = {
            let mut log = self.log();
            let known = |token: &Token| Some(token.value.as_str()) == value;
            let token = log.tokens.iter().rposition(known);
            let is_good = token.map(|it| &log.tokens[it]).is_some_and(|token| {
                token.tenant == tenant
                    && token.revoked.is_none()
                    && received < token.issued + token.life
            });
            log.called.push(Called {
                call: text(CALL).parse().unwrap(),
                tenant,
                token,
                sent: Duration::from_nanos(text(SENT).parse().unwrap()),
                received,
                answered: None,
            });
            let index = log.called.len() - 1;
            (self.plan.api_request(index, received), index, is_good)
        };
        tokio::time::sleep(treatment.latency).await;

        let reply = match treatment.fate {
            Fate::Close | Fate::Garble(_) => return Err(io::ErrorKind::ConnectionReset.into()),
            Fate::Throttle(_) => reply(429, ""),
            Fate::Fail(status) => reply(status, ""),
            Fate::Serve if is_good => reply(200, "fine"),
            Fate::Serve => {
                let mut reply = reply(401, "");
                let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
                reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                reply
            }
        };
        self.log().called[index].answered = Some((now(), reply.status().as_u16()));
        Ok(reply)
    }
}

/// Writes down when a token request ended, also if its client went away.
struct Ending<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // Without revoking, which is for requests; the test is failing if the lock is poisoned.
        if let Ok(mut log) = self.shared.log.lock()
            && let Some(asked) = log.asked.get_mut(self.index)
        {
            asked.ended = Some(now());
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
            // An error of the service closes the connection, and clients hang up as they like.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn number(text: &str, prefix: &str) -> Option<usize> {
    text.strip_prefix(prefix)?.parse().ok()
}

fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    reply
}
