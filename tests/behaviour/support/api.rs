//! An API on 127.0.0.1 that answers as it is told, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) type Reply = Response<Full<Bytes>>;

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn token(&self) -> Option<&str> {
        self.headers
            .get(AUTHORIZATION)?
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")
    }
}

pub(crate) struct Api {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Api {
    /// Answers each request, once it has been read whole, with what `answer` makes of it.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Seen) -> Reply + Send + Sync + 'static,
    {
        Self::gated(answer, watch::channel(true).1).await
    }

    /// As `start`, but answers requests for paths with `/late` in them only once the gate is open.
    pub(crate) async fn gated<F>(answer: F, gate: watch::Receiver<bool>) -> Self
    where
        F: Fn(&Seen) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let (answer, log, gate) = (Arc::clone(&answer), Arc::clone(&log), gate.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (answer, log, mut gate) =
                            (Arc::clone(&answer), Arc::clone(&log), gate.clone());
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            let seen = Seen {
                                method: parts.method,
                                uri: parts.uri,
                                headers: parts.headers,
                                body,
                            };
                            let is_late = seen.uri.path().contains("/late");
                            let reply = answer(&seen);
                            log.lock().unwrap().push(seen);
                            if is_late {
                                // The test is over if the sender is gone.
                                let _ = gate.wait_for(|open| *open).await;
                            }
                            Ok::<_, hyper::Error>(reply)
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // Clients hang up as they like.
                    let _ = connection.await;
                });
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// Answers 200 to tokens that `accepts`, else 401 with `invalid_token`.
    pub(crate) async fn accepting<F>(accepts: F) -> Self
    where
        F: Fn(&str) -> bool + Send + Sync + 'static,
    {
        Self::start(move |seen| match seen.token() {
            Some(token) if accepts(token) => ok(),
            _ => refused("Bearer error=\"invalid_token\""),
        })
        .await
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The tokens that came, in order.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.seen()
            .iter()
            .map(|seen| seen.token().map(str::to_owned))
            .collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn ok() -> Reply {
    Response::new(Full::from("fine"))
}

pub(crate) fn status(status: u16) -> Reply {
    let mut reply = Response::new(Full::from("as told"));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    reply
}

/// A 401 with this challenge and a body.
pub(crate) fn refused(challenge: &str) -> Reply {
    let mut reply = Response::new(Full::from("the reason, in words"));
    *reply.status_mut() = StatusCode::UNAUTHORIZED;
    reply
        .headers_mut()
        .insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    reply
}
