//! A token endpoint, an API and an API of another origin, which follow the plan and record every
//! request.
//!
//! They run on their own thread, so that a stall of the client's runtime does not distort the
//! records.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::plan::{ConnectionEnd, Fate, Plan};
use crate::{Lag, now};

mod api;
mod log;
mod token_endpoint;

pub(crate) use log::{ApiRecord, Log, Outcome, Token, TokenRecord};

type HttpResponse = Response<Full<Bytes>>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) token: SocketAddr,
    pub(crate) api: SocketAddr,
    other: SocketAddr,
}

struct Shared {
    plan: Arc<Plan>,
    addresses: Addresses,
    log: Mutex<Log>,
}

/// The server that a connection belongs to.
#[derive(Clone, Copy)]
enum Origin {
    Token,
    Api,
    Other,
}

pub(crate) struct Server {
    pub(crate) addresses: Addresses,
    shared: Arc<Shared>,
    stop: oneshot::Sender<Infallible>,
    thread: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(plan: &Arc<Plan>, lag: &Lag) -> Self {
        let (ready, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (plan, lag) = (Arc::clone(plan), lag.clone());
        let thread = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
                let (token, api, other) = (bind().await, bind().await, bind().await);
                let shared = Arc::new(Shared {
                    plan,
                    addresses: Addresses {
                        token: token.local_addr().unwrap(),
                        api: api.local_addr().unwrap(),
                        other: other.local_addr().unwrap(),
                    },
                    log: Mutex::default(),
                });
                tokio::spawn(lag.measure());
                tokio::spawn(accept(token, Origin::Token, Arc::clone(&shared)));
                tokio::spawn(accept(api, Origin::Api, Arc::clone(&shared)));
                tokio::spawn(accept(other, Origin::Other, Arc::clone(&shared)));
                assert!(ready.send(shared).is_ok());
                let _ = stopped.await;
            });
        });
        let shared = started.await.unwrap();
        Self {
            addresses: shared.addresses,
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
}

async fn accept(listener: TcpListener, origin: Origin, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let nth = {
            let mut log = shared.log();
            log.connections += 1;
            log.connections - 1
        };
        let fate = shared.plan.connection(nth, now());
        tokio::spawn(serve(stream, origin, fate, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, origin: Origin, fate: Fate, shared: Arc<Shared>) {
    let answers = Arc::new(AtomicUsize::new(0));
    let last_answer = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, answers) = (Arc::clone(&shared), Arc::clone(&answers));
        let last_answer = Arc::clone(&last_answer);
        async move {
            let has_ended = answers.fetch_add(1, Ordering::Relaxed) >= fate.answers;
            let is_faulty = has_ended && now() < shared.plan.faults_end;
            let path = request.uri().path();
            let response = match (origin, number(path, "/tenant/")) {
                (Origin::Token, _) => {
                    let is_dead = is_faulty && fate.end == ConnectionEnd::Dead;
                    shared.token(request, is_dead).await
                }
                (_, Some(tenant)) => shared.api(tenant, &request).await,
                (_, None) => Ok(shared.hop(path, origin, request.headers())),
            };
            if is_faulty {
                last_answer.notify_one();
            }
            response
        }
    });
    // An error of the service closes the connection, and clients may disconnect at any time.
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let closed = async {
        match fate.end {
            ConnectionEnd::Closed(delay) => {
                last_answer.notified().await;
                tokio::time::sleep(delay).await;
            }
            ConnectionEnd::Never | ConnectionEnd::Dead => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = connection => {}
        () = closed => {}
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
