//! Transports for token requests: reqwest, or any tower service over `http`.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
#[cfg(feature = "reqwest")]
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use crate::error::{BoxError, TokenError, TokenErrorKind};
use crate::token_endpoint::response::{LONGEST_BODY, retry_after};
use crate::token_endpoint::try_limit::{TryLimit, is_io_timeout, timed_out};

/// The time in which the client that is built by default must connect, TLS included. Several
/// addresses of one host share it, so that a silent first one does not take all of it.
#[cfg(feature = "reqwest")]
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends one token request, without following redirects.
#[async_trait]
pub(crate) trait Transport: Send + Sync + 'static {
    /// Sends the request and reads the response, all within the limit.
    async fn send(
        &self,
        request: Request<Bytes>,
        limit: TryLimit,
    ) -> Result<RawResponse, TokenError>;
}

/// A response of the token endpoint, not parsed yet.
pub(crate) struct RawResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None` if it is longer than [`LONGEST_BODY`].
    pub(crate) body: Option<Bytes>,
}

/// A body that is collected up to [`LONGEST_BODY`] bytes.
#[derive(Default)]
struct LimitedBody(BytesMut);

impl LimitedBody {
    /// Appends the chunk and returns true, or returns false if the body would be too long.
    fn push(&mut self, mut chunk: impl Buf) -> bool {
        if self.0.len().saturating_add(chunk.remaining()) > LONGEST_BODY {
            return false;
        }
        while chunk.has_remaining() {
            let part = chunk.chunk();
            let len = part.len();
            self.0.extend_from_slice(part);
            chunk.advance(len);
        }
        true
    }
}

/// Sends token requests through reqwest, with redirects disabled.
#[cfg(feature = "reqwest")]
pub(crate) struct ReqwestTransport(reqwest::Client);

#[cfg(feature = "reqwest")]
impl ReqwestTransport {
    /// Builds the client. `builder` keeps its protocol, time limits and `User-Agent`.
    pub(crate) fn new(builder: reqwest::ClientBuilder) -> Result<Self, reqwest::Error> {
        builder
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Each try gets a new connection: a pooled one may be dead without a sign of it, and
            // between two token requests its peer has time to forget it.
            .pool_max_idle_per_host(0)
            .build()
            .map(Self)
    }
}

/// Returns the builder of the client that is used if the user gives none.
#[cfg(feature = "reqwest")]
pub(crate) fn default_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("bearer-auth/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // A token request gains nothing from HTTP/2.
        .http1_only()
}

#[cfg(feature = "reqwest")]
#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(
        &self,
        request: Request<Bytes>,
        limit: TryLimit,
    ) -> Result<RawResponse, TokenError> {
        let request = reqwest::Request::try_from(request).map_err(reqwest_error)?;
        let response = async { self.0.execute(request).await.map_err(reqwest_error) };
        let mut response = limit.run(response).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = async {
            let mut body = LimitedBody::default();
            while let Some(chunk) = response.chunk().await.map_err(reqwest_error)? {
                if !body.push(chunk) {
                    return Ok(None);
                }
            }
            Ok(Some(body.0.freeze()))
        };
        match limit.run(body).await {
            Ok(body) => Ok(RawResponse {
                status,
                headers,
                body,
            }),
            Err(error) => Err(body_error(error, status, &headers)),
        }
    }
}

#[cfg(feature = "reqwest")]
fn reqwest_error(error: reqwest::Error) -> TokenError {
    // The URL may contain confidential parameters.
    let error = error.without_url();
    if error.is_timeout() {
        timed_out(error)
    } else {
        TokenError::new(TokenErrorKind::Connection, true).with_cause(error)
    }
}

/// Sends token requests through a tower service, which is cloned for each request.
pub(crate) struct TowerTransport<S>(Mutex<S>);

impl<S> TowerTransport<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

#[async_trait]
impl<S, R> Transport for TowerTransport<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Body + Send,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    async fn send(
        &self,
        request: Request<Bytes>,
        limit: TryLimit,
    ) -> Result<RawResponse, TokenError> {
        let mut service = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let response = async {
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(connection_error)?;
            service
                .call(request.map(Full::new))
                .await
                .map_err(connection_error)
        };
        let (parts, body) = limit.run(response).await?.into_parts();
        let body = async {
            let mut body = pin!(body);
            let mut collected = LimitedBody::default();
            while let Some(frame) = next_frame(body.as_mut()).await {
                if let Some(data) = frame.map_err(connection_error)?
                    && !collected.push(data)
                {
                    return Ok(None);
                }
            }
            Ok(Some(collected.0.freeze()))
        };
        match limit.run(body).await {
            Ok(body) => Ok(RawResponse {
                status: parts.status,
                headers: parts.headers,
                body,
            }),
            Err(error) => Err(body_error(error, parts.status, &parts.headers)),
        }
    }
}

/// Returns the data of the next frame: `Some(Ok(None))` for a frame without data, such as trailers,
/// and `None` at the end of the body.
async fn next_frame<R: Body>(mut body: Pin<&mut R>) -> Option<Result<Option<R::Data>, R::Error>> {
    let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().ok()))
}

fn connection_error(error: impl Into<BoxError>) -> TokenError {
    let error = error.into();
    #[cfg(feature = "reqwest")]
    let error = match error.downcast::<reqwest::Error>() {
        Ok(error) => return reqwest_error(*error),
        Err(error) => error,
    };
    if is_io_timeout(&*error) {
        return timed_out(error);
    }
    TokenError::new(TokenErrorKind::Connection, true).with_cause(error)
}

/// Completes an error of reading the body by the status and `Retry-After` of the response.
///
/// A body that cannot be decoded is `InvalidResponse`, a broken connection stays `Connection`. TLS
/// records that cannot be decrypted are reported as undecodable bodies.
fn body_error(error: TokenError, status: StatusCode, headers: &HeaderMap) -> TokenError {
    let mut causes = successors(error.source(), |&cause| cause.source());
    let is_undecodable = causes.any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::InvalidData | ErrorKind::InvalidInput
            )
        })
    });
    let error = if is_undecodable && error.kind() == TokenErrorKind::Connection {
        error.with_kind(TokenErrorKind::InvalidResponse)
    } else {
        error
    };
    let error = error.with_status(status);
    match retry_after(headers) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

#[cfg(all(test, feature = "reqwest"))]
mod tests {
    use super::*;

    #[test]
    fn the_default_client_speaks_http_1_and_has_a_connect_timeout() {
        // reqwest has no accessors, but its `Debug` shows the settings.
        let debug = format!("{:?}", default_client());
        assert!(debug.contains("http1_only: true"), "{debug}");
        assert!(debug.contains("connect_timeout: 5s"), "{debug}");
    }

    /// Takes half of the connect timeout in real time. Only Linux drops connection attempts when a
    /// backlog is full.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_default_client_passes_over_a_silent_address() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::{TcpListener, TcpSocket, TcpStream};
        use tokio::time::timeout;

        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = socket.listen(0).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let connect = || {
            timeout(
                Duration::from_millis(500),
                TcpStream::connect(silent_address),
            )
        };
        let mut backlog = Vec::new();
        while let Ok(stream) = connect().await {
            backlog.push(stream.unwrap());
        }

        let answering = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [silent_address, answering.local_addr().unwrap()];
        let client = default_client()
            .no_proxy()
            .resolve_to_addrs("id.test", &addresses);
        let transport = ReqwestTransport::new(client).unwrap();
        let request = Request::post("http://id.test/token").body(Bytes::from("x"));
        let limit = TryLimit::start(Duration::from_secs(10));
        let send = transport.send(request.unwrap(), limit);
        let answer = async {
            let (mut stream, _) = answering.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\nx") {
                stream.read_buf(&mut read).await.unwrap();
            }
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(response).await.unwrap();
            stream
        };
        let (response, _stream) = tokio::join!(send, answer);
        assert_eq!(response.unwrap().body.unwrap(), "ok");
    }
}
