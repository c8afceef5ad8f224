//! The three stacks behind one face, so that each scenario runs through all of them.

use bearer_auth::{BearerAuth, BearerAuthLayer, BoxError, RequestAuth, TokenError};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use serde_json::Value;
use tower::{Service, ServiceBuilder, ServiceExt};

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
}

/// A client with the layer around it.
#[derive(Clone)]
pub(crate) enum Stack {
    Middleware(ClientWithMiddleware),
    TowerHttp(BearerAuth<Client<HttpConnector, Full<Bytes>>>),
    TowerReqwest(BearerAuth<reqwest::Client>),
}

/// A request for any of them.
pub(crate) struct Call {
    method: Method,
    url: String,
    body: Bytes,
    auth: Option<RequestAuth>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
}

impl Stack {
    pub(crate) fn new(kind: Kind, layer: BearerAuthLayer) -> Self {
        match kind {
            Kind::Middleware => {
                let client = ClientBuilder::new(reqwest::Client::new());
                Self::Middleware(client.with(layer).build())
            }
            Kind::TowerHttp => {
                let client = Client::builder(TokioExecutor::new()).build_http();
                Self::TowerHttp(ServiceBuilder::new().layer(layer).service(client))
            }
            Kind::TowerReqwest => {
                let client = reqwest::Client::new();
                Self::TowerReqwest(ServiceBuilder::new().layer(layer).service(client))
            }
        }
    }

    pub(crate) async fn send(&self, call: Call) -> Result<Answer, BoxError> {
        let Call {
            method,
            url,
            body,
            auth,
        } = call;
        let (status, headers, body) = match self {
            Self::Middleware(client) => {
                let mut request = client.request(method, url).body(body);
                if let Some(auth) = auth {
                    request = request.with_extension(auth);
                }
                read(request.send().await?).await?
            }
            Self::TowerHttp(service) => {
                let mut request = Request::builder().method(method).uri(url);
                if let Some(auth) = auth {
                    request = request.extension(auth);
                }
                let request = request.body(Full::new(body))?;
                let (parts, body) = service
                    .clone()
                    .ready()
                    .await?
                    .call(request)
                    .await?
                    .into_parts();
                (
                    parts.status,
                    parts.headers,
                    body.collect().await?.to_bytes(),
                )
            }
            Self::TowerReqwest(service) => {
                assert!(
                    auth.is_none(),
                    "there are no public extensions to put it in"
                );
                let mut request = reqwest::Request::new(method, url.parse()?);
                *request.body_mut() = Some(body.into());
                read(service.clone().ready().await?.call(request).await?).await?
            }
        };
        Ok(Answer {
            status,
            headers,
            json: serde_json::from_slice(&body)?,
        })
    }
}

impl Call {
    pub(crate) fn get(url: String) -> Self {
        Self {
            method: Method::GET,
            url,
            body: Bytes::new(),
            auth: None,
        }
    }

    pub(crate) fn post(url: String, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            url,
            body,
            auth: None,
        }
    }

    /// Only where a request can carry it: not in [`Stack::TowerReqwest`].
    pub(crate) fn auth(mut self, auth: RequestAuth) -> Self {
        self.auth = Some(auth);
        self
    }
}

/// The crate's own error, found as each stack's documentation says.
pub(crate) fn token_error(kind: Kind, error: &BoxError) -> Option<&TokenError> {
    if kind != Kind::Middleware {
        return error.downcast_ref();
    }
    match error.downcast_ref()? {
        reqwest_middleware::Error::Middleware(error) => error.downcast_ref(),
        reqwest_middleware::Error::Reqwest(_) => None,
    }
}

async fn read(response: reqwest::Response) -> reqwest::Result<(StatusCode, HeaderMap, Bytes)> {
    let (status, headers) = (response.status(), response.headers().clone());
    Ok((status, headers, response.bytes().await?))
}
