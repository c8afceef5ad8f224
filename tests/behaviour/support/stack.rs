//! The three stacks behind one face, so that one scenario runs through all of them.

use std::convert::Infallible;
use std::error::Error;

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
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Middleware, Self::TowerHttp, Self::TowerReqwest];

    /// Whether a request can carry a `RequestAuth` in its extensions.
    pub(crate) fn has_extensions(self) -> bool {
        self != Self::TowerReqwest
    }
}

type Streamed = UnsyncBoxBody<Bytes, Infallible>;

/// A client with the layer around it.
#[derive(Clone)]
pub(crate) enum Stack {
    Middleware(reqwest_middleware::ClientWithMiddleware),
    TowerHttp(Box<TowerHttp>),
    TowerReqwest(BearerAuth<reqwest::Client>),
}

/// One client for bodies in memory, one for streams.
#[derive(Clone)]
pub(crate) struct TowerHttp {
    in_memory: BearerAuth<Client<HttpConnector, Full<Bytes>>>,
    streamed: BearerAuth<Client<HttpConnector, Streamed>>,
}

/// A request for any of the stacks.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body is a stream, which can't be had twice.
    pub(crate) streamed: bool,
    pub(crate) auth: Option<RequestAuth>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            streamed: false,
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

    pub(crate) fn streamed(mut self) -> Self {
        self.streamed = true;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub(crate) fn auth(mut self, auth: RequestAuth) -> Self {
        self.auth = Some(auth);
        self
    }
}

impl Stack {
    pub(crate) fn new(kind: Kind, layer: &BearerAuthLayer) -> Self {
        Self::around(kind, layer, reqwest::Client::new())
    }

    /// With this client, where the stack has a reqwest client in it.
    pub(crate) fn around(kind: Kind, layer: &BearerAuthLayer, client: reqwest::Client) -> Self {
        match kind {
            Kind::Middleware => Self::Middleware(
                reqwest_middleware::ClientBuilder::new(client)
                    .with(layer.clone())
                    .build(),
            ),
            Kind::TowerHttp => Self::TowerHttp(Box::new(TowerHttp {
                in_memory: layer.layer(Client::builder(TokioExecutor::new()).build_http()),
                streamed: layer.layer(Client::builder(TokioExecutor::new()).build_http()),
            })),
            Kind::TowerReqwest => Self::TowerReqwest(layer.layer(client)),
        }
    }

    pub(crate) async fn get(&self, url: impl Into<String>) -> Result<Answer, BoxError> {
        self.send(Call::get(url)).await
    }

    pub(crate) async fn send(&self, call: Call) -> Result<Answer, BoxError> {
        match self {
            Self::Middleware(client) => {
                let mut request = client
                    .request(call.method.clone(), &call.url)
                    .headers(call.headers.clone())
                    .body(reqwest_body(&call));
                if let Some(auth) = call.auth {
                    request = request.with_extension(auth);
                }
                from_reqwest(request.send().await?).await
            }
            Self::TowerReqwest(service) => {
                assert!(call.auth.is_none(), "no public extensions");
                let mut request = reqwest::Request::new(call.method.clone(), call.url.parse()?);
                *request.headers_mut() = call.headers.clone();
                *request.body_mut() = Some(reqwest_body(&call));
                let mut service = service.clone();
                from_reqwest(service.ready().await?.call(request).await?).await
            }
            Self::TowerHttp(http) if !call.streamed => {
                let body = Full::new(call.body.clone());
                Self::send_http(http.in_memory.clone(), call, body).await
            }
            Self::TowerHttp(http) => {
                let body = StreamBody::new(stream::iter(
                    chunks(&call.body)
                        .into_iter()
                        .map(|chunk| Ok(Frame::data(chunk))),
                ))
                .boxed_unsync();
                Self::send_http(http.streamed.clone(), call, body).await
            }
        }
    }

    async fn send_http<B>(
        mut service: BearerAuth<Client<HttpConnector, B>>,
        call: Call,
        body: B,
    ) -> Result<Answer, BoxError>
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
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: parts.status,
            body,
        })
    }
}

/// The crate's own error, as the documentation says to find it.
pub(crate) fn token_error(error: &BoxError) -> Option<&TokenError> {
    if let Some(reqwest_middleware::Error::Middleware(error)) = error.downcast_ref() {
        return error.downcast_ref();
    }
    error.downcast_ref()
}

/// Everything that an error says, down its chain of sources.
pub(crate) fn everything(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("{error}\n{error:?}\n");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!("{error}\n{error:?}\n");
        source = error.source();
    }
    text
}

fn reqwest_body(call: &Call) -> reqwest::Body {
    if call.streamed {
        let chunks = chunks(&call.body).into_iter().map(Ok::<_, Infallible>);
        reqwest::Body::wrap_stream(stream::iter(chunks))
    } else {
        call.body.clone().into()
    }
}

fn chunks(body: &Bytes) -> Vec<Bytes> {
    body.chunks(1000).map(Bytes::copy_from_slice).collect()
}

async fn from_reqwest(response: reqwest::Response) -> Result<Answer, BoxError> {
    let status = response.status();
    Ok(Answer {
        status,
        body: response.bytes().await?,
    })
}
