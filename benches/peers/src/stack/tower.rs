//! Tower stacks over `http` requests.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, Service, ServiceExt};

use crate::peers::{BoxError, Call, Client};
use crate::server::{Api, Target};
use crate::stack::{carries_token, static_header};

pub(crate) type HttpClient = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

/// Creates the client that opens all connections of a stack.
pub(crate) fn http_client() -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector)
}

/// Returns the stand-in for the HTTP client, which opens no connections.
pub(crate) fn canned(target: &Target) -> Canned {
    Canned {
        open: target.api == Api::CannedOpen,
    }
}

/// Creates a client from a service that is the whole stack.
pub(crate) fn client<S, B>(target: &Target, service: S) -> Result<Arc<dyn Client>, BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    Ok(Arc::new(Stack {
        service,
        url: target.api_url.parse()?,
    }))
}

struct Stack<S> {
    service: S,
    url: Uri,
}

impl<S, B> Call for Stack<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn call(&self) -> Result<u16, BoxError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.url.clone();
        let response = self
            .service
            .clone()
            .oneshot(request)
            .await
            .map_err(Into::into)?;
        let status = response.status().as_u16();
        response.into_body().collect().await.map_err(Into::into)?;
        Ok(status)
    }
}

/// A layer that sets a static header.
#[derive(Clone)]
pub(crate) struct StaticHeaderLayer;

#[derive(Clone)]
pub(crate) struct StaticHeader<S> {
    inner: S,
    value: HeaderValue,
}

impl<S> Layer<S> for StaticHeaderLayer {
    type Service = StaticHeader<S>;

    fn layer(&self, inner: S) -> Self::Service {
        StaticHeader {
            inner,
            value: static_header(),
        }
    }
}

impl<S, B> Service<Request<B>> for StaticHeader<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request
            .headers_mut()
            .insert(AUTHORIZATION, self.value.clone());
        self.inner.call(request)
    }
}

/// Responds in place of the HTTP client.
#[derive(Clone)]
pub(crate) struct Canned {
    open: bool,
}

impl<B> Service<Request<B>> for Canned {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut response = Response::new(Full::default());
        if !self.open && !carries_token(request.headers().get(AUTHORIZATION)) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        ready(Ok(response))
    }
}
