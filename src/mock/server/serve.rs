//! The thread, the connections and the routes.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::state::State;
use super::{api, token_endpoint};

/// The thread that serves. A runtime of its own keeps the server's time real where a test pauses
/// the clock, and its work off the test's runtime.
pub(super) struct Server {
    /// Dropped to stop the thread.
    stop: Option<oneshot::Sender<Infallible>>,
    /// Resolves when everything is closed.
    stopped: oneshot::Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) async fn start(state: Arc<State>) -> io::Result<(SocketAddr, Self)> {
        let (stop, stop_asked) = oneshot::channel();
        let (still_running, stopped) = oneshot::channel();
        let (ready, address) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("mock-auth-server".to_owned())
            .spawn(move || {
                run(state, ready, stop_asked);
                drop(still_running);
            })?;
        let server = Self {
            stop: Some(stop),
            stopped,
            thread: Some(thread),
        };
        let address = address.await.map_err(io::Error::other)??;
        Ok((address, server))
    }

    pub(super) async fn stop(mut self) {
        self.stop = None;
        // An error is the news: the other half is gone.
        let _ = (&mut self.stopped).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // An error would be a panic, which its thread has reported.
            let _ = thread.join();
        }
    }
}

/// The whole body of a request.
pub(super) struct Body {
    /// In bytes; more than what was allowed if reading stopped there.
    pub(super) len: usize,
    /// `None` if there were more than should be kept.
    pub(super) bytes: Option<Bytes>,
}

impl Body {
    /// Reads to the end or until there are more than `max` bytes; `None` if the client broke off.
    pub(super) async fn read(mut incoming: Incoming, keep: usize, max: usize) -> Option<Self> {
        let mut len = 0;
        // A copy: a slice of the connection's buffer would keep all of it alive in a record.
        let mut kept = Some(Vec::new());
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame.ok()?.into_data() {
                len += data.len();
                if len > keep {
                    kept = None;
                }
                if let Some(kept) = &mut kept {
                    kept.extend_from_slice(&data);
                }
                if len > max {
                    break;
                }
            }
        }
        Some(Self {
            len,
            bytes: kept.map(Bytes::from),
        })
    }
}

pub(super) fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn empty(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// Whether `path` is `root` or lies below it.
pub(super) fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) async fn wait(latency: Duration) {
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
}

fn run(
    state: Arc<State>,
    ready: oneshot::Sender<io::Result<SocketAddr>>,
    stop_asked: oneshot::Receiver<Infallible>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        match listen() {
            Ok((listener, address)) => {
                tokio::spawn(accept(listener, state));
                let _ = ready.send(Ok(address));
                let _ = stop_asked.await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
    // With the runtime go the accepting task and every connection.
}

fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    // Room for a thousand clients that connect at the same moment.
    let listener = socket.listen(4096)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
            // Out of descriptors, most likely: others must close first.
            Err(_) => wait(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    // Without it a small answer may wait for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(sendable(route(&state, request).await)) }
    });
    // A connection that breaks off is its client's affair.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn route(state: &State, request: Request<Incoming>) -> Response<Bytes> {
    let path = request.uri().path();
    if path == "/token" {
        token_endpoint::answer(state, request).await
    } else if is_within(path, api::ROOT) || is_within(path, api::OPEN_ROOT) {
        api::answer(state, request).await
    } else {
        empty(StatusCode::NOT_FOUND)
    }
}

/// Status, headers and body of an answer, and nothing that hyper would refuse to send: a test may
/// have written it.
fn sendable(response: Response<Bytes>) -> Response<Full<Bytes>> {
    let (head, body) = response.into_parts();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(TRANSFER_ENCODING);
    response
}
