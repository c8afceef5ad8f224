//! An API on 127.0.0.1 with scripted responses and a log of its requests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The challenge of an API that rejects a token.
pub(crate) const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";

/// The body of every response that [`rejected`] makes.
pub(crate) const REJECTION_BODY: &[u8] = b"the reason, in words";

pub(crate) type Scripted = Response<Full<Bytes>>;

/// A request as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn token(&self) -> Option<&str> {
        let value = self.headers.get(AUTHORIZATION)?.to_str().ok()?;
        value.strip_prefix("Bearer ")
    }
}

pub(crate) struct Api {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Api {
    /// Starts an API that responds with what `script` returns, once it has read the whole request.
    pub(crate) async fn start<F>(script: F) -> Self
    where
        F: Fn(&Received) -> Scripted + Send + Sync + 'static,
    {
        Self::gated(script, watch::channel(true).1).await
    }

    /// Starts an API whose responses for paths with `/late` in them wait until the gate is open.
    pub(crate) async fn gated<F>(script: F, gate: watch::Receiver<bool>) -> Self
    where
        F: Fn(&Received) -> Scripted + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let log = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                tokio::spawn(serve(
                    stream,
                    Arc::clone(&script),
                    Arc::clone(&log),
                    gate.clone(),
                ));
            }
        });
        Self {
            address,
            requests,
            task,
        }
    }

    /// Starts an API that responds 200 to tokens that `accepts`, and 401 with `invalid_token` else.
    pub(crate) async fn accepting<F>(accepts: F) -> Self
    where
        F: Fn(&str) -> bool + Send + Sync + 'static,
    {
        Self::start(move |request| match request.token() {
            Some(token) if accepts(token) => ok(),
            _ => rejected(INVALID_TOKEN),
        })
        .await
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns host and port.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns the token of each request, in the order of their arrival.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        let token = |request: &Received| request.token().map(str::to_owned);
        self.requests.lock().unwrap().iter().map(token).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F>(
    stream: TcpStream,
    script: Arc<F>,
    log: Arc<Mutex<Vec<Received>>>,
    gate: watch::Receiver<bool>,
) where
    F: Fn(&Received) -> Scripted + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (script, log, mut gate) = (Arc::clone(&script), Arc::clone(&log), gate.clone());
        async move {
            let (parts, body) = request.into_parts();
            let request = Received {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                body: body.collect().await?.to_bytes(),
            };
            let is_late = request.uri.path().contains("/late");
            let response = script(&request);
            log.lock().unwrap().push(request);
            if is_late {
                // The test is over if the sender is gone.
                let _ = gate.wait_for(|open| *open).await;
            }
            Ok::<_, hyper::Error>(response)
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Clients may disconnect at any time.
    let _ = connection.await;
}

pub(crate) fn ok() -> Scripted {
    Response::new(Full::from("fine"))
}

pub(crate) fn status(status: u16) -> Scripted {
    let mut response = Response::new(Full::from("as scripted"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Returns a 401 with this challenge and a body.
pub(crate) fn rejected(challenge: &str) -> Scripted {
    let mut response = Response::new(Full::from(REJECTION_BODY));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let challenge = challenge.parse().unwrap();
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}
