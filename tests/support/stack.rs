//! The HTTP stacks behind one interface, so that a test runs through all of them.

use std::convert::Infallible;

use bearer_auth::{BearerAuth, BearerAuthLayer, BoxError, RequestAuth, TokenError};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, Service, ServiceExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// reqwest-middleware.
    Middleware,
    /// tower over `http`, around hyper-util's client.
    TowerHttp,
    /// tower around a bare `reqwest::Client`.
    TowerReqwest,
    /// reqwest-middleware 0.4.
    Middleware04,
    /// tower around a bare `Client` of reqwest 0.12.
    TowerReqwest012,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Middleware,
        Self::TowerHttp,
        Self::TowerReqwest,
        Self::Middleware04,
        Self::TowerReqwest012,
    ];

    /// The stacks whose requests can carry a `RequestAuth` in their extensions.
    pub(crate) const WITH_EXTENSIONS: [Self; 3] =
        [Self::Middleware, Self::TowerHttp, Self::Middleware04];
}

/// A client with the layer around it.
#[derive(Clone)]
pub(crate) enum Stack {
    Middleware(reqwest_middleware::ClientWithMiddleware),
    TowerHttp(Box<TowerHttp>),
    TowerReqwest(BearerAuth<reqwest::Client>),
    Middleware04(reqwest_middleware_0_4::ClientWithMiddleware),
    TowerReqwest012(BearerAuth<reqwest_0_12::Client>),
}

/// One client for in-memory bodies, one for streams.
#[derive(Clone)]
pub(crate) struct TowerHttp {
    in_memory: BearerAuth<Client<HttpConnector, Full<Bytes>>>,
    streamed: BearerAuth<Client<HttpConnector, Streamed>>,
}

type Streamed = UnsyncBoxBody<Bytes, Infallible>;

/// A request for any of the stacks.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body is sent as a stream, which cannot be replayed.
    pub(crate) is_streamed: bool,
    pub(crate) auth: Option<RequestAuth>,
}

/// A response with its whole body.
#[derive(Clone, Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Stack {
    pub(crate) fn new(kind: Kind, layer: &BearerAuthLayer) -> Self {
        match kind {
            Kind::Middleware => Self::Middleware(latest::with_middleware(layer)),
            Kind::TowerHttp => Self::TowerHttp(Box::new(TowerHttp {
                in_memory: layer.layer(Client::builder(TokioExecutor::new()).build_http()),
                streamed: layer.layer(Client::builder(TokioExecutor::new()).build_http()),
            })),
            Kind::TowerReqwest => Self::TowerReqwest(layer.layer(reqwest::Client::new())),
            Kind::Middleware04 => Self::Middleware04(earlier::with_middleware(layer)),
            Kind::TowerReqwest012 => {
                Self::TowerReqwest012(layer.layer(reqwest_0_12::Client::new()))
            }
        }
    }

    pub(crate) async fn get(&self, url: impl Into<String>) -> Result<ApiResponse, BoxError> {
        self.send(Call::get(url)).await
    }

    pub(crate) async fn send(&self, call: Call) -> Result<ApiResponse, BoxError> {
        match self {
            Self::Middleware(client) => latest::send_by_middleware(client, call).await,
            Self::TowerReqwest(service) => latest::send_by_tower(service, call).await,
            Self::Middleware04(client) => earlier::send_by_middleware(client, call).await,
            Self::TowerReqwest012(service) => earlier::send_by_tower(service, call).await,
            Self::TowerHttp(http) if !call.is_streamed => {
                let body = Full::new(call.body.clone());
                send_http(http.in_memory.clone(), call, body).await
            }
            Self::TowerHttp(http) => {
                let frames = chunks(&call.body).into_iter().map(Frame::data).map(Ok);
                let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
                send_http(http.streamed.clone(), call, body).await
            }
        }
    }
}

impl Call {
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            is_streamed: false,
            auth: None,
        }
    }

    pub(crate) fn post(url: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            body: body.into(),
            ..Self::get(url)
        }
    }

    /// Sets the `RequestAuth`, only for [`Kind::WITH_EXTENSIONS`].
    pub(crate) fn auth(mut self, auth: RequestAuth) -> Self {
        self.auth = Some(auth);
        self
    }
}

/// Finds the crate's own error as each stack's documentation says.
pub(crate) fn token_error(error: &BoxError) -> Option<&TokenError> {
    latest::token_error(error)
        .or_else(|| earlier::token_error(error))
        .or_else(|| error.downcast_ref())
}

async fn send_http<B>(
    mut service: BearerAuth<Client<HttpConnector, B>>,
    call: Call,
    body: B,
) -> Result<ApiResponse, BoxError>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let mut request = Request::new(body);
    *request.method_mut() = call.method;
    *request.uri_mut() = call.url.parse()?;
    *request.headers_mut() = call.headers;
    if let Some(auth) = call.auth {
        request.extensions_mut().insert(auth);
    }
    let (parts, body) = service.ready().await?.call(request).await?.into_parts();
    Ok(ApiResponse {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
    })
}

fn chunks(body: &Bytes) -> Vec<Bytes> {
    body.chunks(1000).map(Bytes::copy_from_slice).collect()
}

for_both_reqwests! {
    pub(super) fn with_middleware(
        layer: &BearerAuthLayer,
    ) -> reqwest_middleware::ClientWithMiddleware {
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new());
        client.with(layer.clone()).build()
    }

    pub(super) async fn send_by_middleware(
        client: &reqwest_middleware::ClientWithMiddleware,
        call: Call,
    ) -> Result<ApiResponse, BoxError> {
        let mut request = client
            .request(call.method.clone(), &call.url)
            .headers(call.headers.clone())
            .body(body(&call));
        if let Some(auth) = call.auth {
            request = request.with_extension(auth);
        }
        collect(request.send().await?).await
    }

    pub(super) async fn send_by_tower(
        service: &BearerAuth<reqwest::Client>,
        call: Call,
    ) -> Result<ApiResponse, BoxError> {
        assert!(
            call.auth.is_none(),
            "a reqwest::Request has no public extensions"
        );
        let mut request = reqwest::Request::new(call.method.clone(), call.url.parse()?);
        *request.headers_mut() = call.headers.clone();
        *request.body_mut() = Some(body(&call));
        let mut service = service.clone();
        collect(service.ready().await?.call(request).await?).await
    }

    /// Finds the error inside of an error of reqwest-middleware.
    pub(super) fn token_error(error: &BoxError) -> Option<&TokenError> {
        match error.downcast_ref()? {
            reqwest_middleware::Error::Middleware(error) => error.downcast_ref(),
            reqwest_middleware::Error::Reqwest(_) => None,
        }
    }

    async fn collect(response: reqwest::Response) -> Result<ApiResponse, BoxError> {
        Ok(ApiResponse {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await?,
        })
    }

    fn body(call: &Call) -> reqwest::Body {
        if call.is_streamed {
            let chunks = chunks(&call.body).into_iter().map(Ok::<_, Infallible>);
            reqwest::Body::wrap_stream(stream::iter(chunks))
        } else {
            call.body.clone().into()
        }
    }
}
