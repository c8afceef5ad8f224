//! A gRPC service that checks tokens. It is written by hand, as `tonic-build` would generate it, so
//! that no protobuf compiler is needed; messages are bytes.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bearer_auth::BoxError;
use bytes::{Buf, BufMut, Bytes};
use futures_util::stream;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tower::{Service, service_fn};

/// The number of messages that `List` streams.
pub(crate) const LISTED: usize = 3;

/// A `Ledger` service; clones share their state.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    state: Arc<Mutex<State>>,
    pub(crate) imports: watch::Sender<Imports>,
}

#[derive(Default)]
struct State {
    revoked: Vec<String>,
    rejections: usize,
}

/// The client streams that the service has seen.
#[derive(Default)]
pub(crate) struct Imports {
    pub(crate) messages: usize,
    /// The end of a stream whose call was rejected: the number of its messages, or the error.
    pub(crate) rejected: Option<Result<usize, Status>>,
}

/// Messages of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BytesCodec;

impl Ledger {
    /// Starts the service on loopback. Returns its address.
    pub(crate) async fn start(&self) -> Result<SocketAddr, BoxError> {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?;
        let address = incoming.local_addr()?;
        let server = Server::builder().add_service(self.clone());
        tokio::spawn(server.serve_with_incoming(incoming));
        Ok(address)
    }

    /// Rejects this token from now on.
    pub(crate) fn revoke(&self, token: &str) {
        self.state().revoked.push(format!("Bearer {token}"));
    }

    /// Returns the number of calls that were rejected.
    pub(crate) fn rejections(&self) -> usize {
        self.state().rejections
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_authorized(&self, request: &http::Request<Body>) -> bool {
        let header = request.headers().get("authorization");
        let mut state = self.state();
        let is_authorized = header.is_some_and(|header| {
            header.as_bytes().starts_with(b"Bearer ")
                && !state.revoked.iter().any(|revoked| header == revoked)
        });
        state.rejections += usize::from(!is_authorized);
        is_authorized
    }

    async fn call(self, request: http::Request<Body>) -> http::Response<Body> {
        let is_authorized = self.is_authorized(&request);
        let unauthenticated = || Status::unauthenticated("the token was revoked");
        let mut grpc = Grpc::new(BytesCodec);
        match request.uri().path() {
            // Reads a message before it rejects the token, and the others afterwards.
            "/demo.Ledger/ImportSlowly" => {
                let import = service_fn(move |request: Request<Streaming<Bytes>>| {
                    let ledger = self.clone();
                    async move {
                        let mut messages = request.into_inner();
                        if is_authorized {
                            return ledger.import(messages).await.map(size_response);
                        }
                        messages.message().await?;
                        ledger.imports.send_modify(|seen| seen.messages += 1);
                        tokio::spawn(async move {
                            let end = ledger.import(messages).await;
                            ledger.imports.send_modify(|seen| seen.rejected = Some(end));
                        });
                        Err(unauthenticated())
                    }
                });
                grpc.client_streaming(import, request).await
            }
            _ if !is_authorized => unauthenticated().into_http(),
            "/demo.Ledger/Echo" => {
                let echo = service_fn(async |request: Request<Bytes>| {
                    Ok(Response::new(request.into_inner()))
                });
                grpc.unary(echo, request).await
            }
            "/demo.Ledger/List" => {
                let list = service_fn(async |request: Request<Bytes>| {
                    let messages = (0..LISTED).map(move |_| Ok(request.get_ref().clone()));
                    Ok(Response::new(stream::iter(messages)))
                });
                grpc.server_streaming(list, request).await
            }
            "/demo.Ledger/Import" => {
                let import = service_fn(move |request: Request<Streaming<Bytes>>| {
                    let ledger = self.clone();
                    async move { ledger.import(request.into_inner()).await.map(size_response) }
                });
                grpc.client_streaming(import, request).await
            }
            _ => Status::unimplemented("no such method").into_http(),
        }
    }

    /// Reads a stream to its end. Returns the number of messages.
    async fn import(&self, mut messages: Streaming<Bytes>) -> Result<usize, Status> {
        let mut size = 0;
        while messages.message().await?.is_some() {
            size += 1;
            self.imports.send_modify(|seen| seen.messages += 1);
        }
        Ok(size)
    }
}

fn size_response(size: usize) -> Response<Bytes> {
    Response::new(size.to_string().into())
}

impl NamedService for Ledger {
    const NAME: &'static str = "demo.Ledger";
}

impl Service<http::Request<Body>> for Ledger {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let response = self.clone().call(request);
        Box::pin(async { Ok(response.await) })
    }
}

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
