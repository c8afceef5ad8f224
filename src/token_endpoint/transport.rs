//! Transports for token requests: reqwest, or any tower service over `http`.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::pin::{Pin, pin};
#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use crate::error::{BoxError, TokenError, TokenErrorKind};
use crate::token_endpoint::response::{LONGEST_BODY, retry_after};
use crate::token_endpoint::try_limit::{TryLimit, is_io_timeout, timed_out};

/// Sends one token request, without following redirects.
#[async_trait]
pub(crate) trait Transport: Send + Sync + 'static {
    /// Sends the request and reads the response, all within the limit.
    async fn send(
        &self,
        request: Request<Bytes>,
        limit: TryLimit,
    ) -> Result<RawResponse, TokenError>;

    /// Returns true if each request has a client of its own, perhaps with another certificate.
    fn is_built_anew(&self) -> bool {
        false
    }
}

/// Makes the builder of a client for one request.
#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
pub(crate) type Factory<B> = Arc<dyn Fn() -> Result<B, BoxError> + Send + Sync>;

/// A response of the token endpoint, not parsed yet.
pub(crate) struct RawResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None` if it is longer than [`LONGEST_BODY`].
    pub(crate) body: Option<Bytes>,
}

/// A body that is collected up to [`LONGEST_BODY`] bytes.
#[derive(Default)]
pub(crate) struct LimitedBody(BytesMut);

impl LimitedBody {
    /// Appends the chunk and returns true, or returns false if the body would be too long.
    pub(crate) fn push(&mut self, mut chunk: impl Buf) -> bool {
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

    pub(crate) fn freeze(self) -> Bytes {
        self.0.freeze()
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
                .map_err(|error| connection_error(error).with_unsent())?;
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
            Ok(Some(collected.freeze()))
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
        Ok(error) => return crate::for_reqwest_0_13::transport::token_error(*error),
        Err(error) => error,
    };
    #[cfg(feature = "reqwest-0-12")]
    let error = match error.downcast::<reqwest_0_12::Error>() {
        Ok(error) => return crate::for_reqwest_0_12::transport::token_error(*error),
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
pub(crate) fn body_error(error: TokenError, status: StatusCode, headers: &HeaderMap) -> TokenError {
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
