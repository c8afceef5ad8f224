//! The server's thread, connections and routes.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::state::State;
use super::{api, message, token_endpoint};

/// A handle of the server's thread.
///
/// The thread has its own runtime, so that its time is real even if a test pauses the clock, and
/// its work does not run on the test's runtime.
pub(super) struct Server {
    /// Stops the thread when it is dropped.
    stop: Option<oneshot::Sender<Infallible>>,
    /// Resolves when the port and all connections are closed.
    stopped: oneshot::Receiver<Infallible>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) async fn start(state: Arc<State>, port: u16) -> io::Result<(SocketAddr, Self)> {
        let (stop, stop_asked) = oneshot::channel();
        let (still_running, stopped) = oneshot::channel();
        let (ready, address) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("mock-auth-server".to_owned())
            .spawn(move || {
                run(state, port, ready, stop_asked);
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
        // This always ends with an error, because the thread drops its half without sending.
        let _ = (&mut self.stopped).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // An error means that the thread panicked, which the panic hook has already reported.
            let _ = thread.join();
        }
    }
}

fn run(
    state: Arc<State>,
    port: u16,
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
        match listen(port) {
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
    // Dropping the runtime here aborts the accept task and all connections.
}

fn listen(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    // A server may start again on the port of an earlier one. On Windows, the option would let it
    // share the port with one that still runs.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    // Enough for a test that opens a thousand connections at once.
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
            // Probably out of descriptors: wait until other connections close.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    // Without this, a small response may wait until the client acknowledges the previous one.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(sendable(route(&state, request).await)) }
    });
    // An error means that the client disconnected or sent invalid HTTP; there is nothing to do.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn route(state: &State, request: Request<Incoming>) -> Response<Bytes> {
    let path = request.uri().path();
    if path == "/token" {
        token_endpoint::answer(state, request).await
    } else if api::serves(path) {
        api::answer(state, request).await
    } else {
        message::empty(StatusCode::NOT_FOUND)
    }
}

/// Removes everything from a response that hyper would refuse to send.
///
/// A test can queue any response, so only its status, headers and body are taken.
fn sendable(response: Response<Bytes>) -> Response<Full<Bytes>> {
    let (head, body) = response.into_parts();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(TRANSFER_ENCODING);
    response
}
