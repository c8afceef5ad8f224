//! object_store: an [`HttpConnector`] whose requests carry tokens.
//!
//! It is for stores that take tokens of an OAuth 2.0 server, such as WebDAV behind a gateway. Give
//! stores that sign their requests (`aws`, `azure`, `gcp`) their own credentials instead.
//!
//! The recipe ignores [`ClientOptions`], which are for reqwest: set timeouts and TLS on the client
//! at the end of the stack.

use async_trait::async_trait;
use bearer_auth::{BearerAuth, BearerAuthLayer, BoxError, TokenError};
use http_body_util::BodyExt;
use hyper_util::client::legacy::{Client, connect};
use hyper_util::rt::TokioExecutor;
use object_store::ClientOptions;
use object_store::client::HttpService;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind};
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody};
use tower::{Layer, ServiceExt};

/// Connects stores through this layer.
#[derive(Debug)]
pub struct BearerConnector(pub BearerAuthLayer);

#[derive(Debug)]
struct BearerService(BearerAuth<Client<connect::HttpConnector, HttpRequestBody>>);

impl HttpConnector for BearerConnector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let auth = self.0.clone().replay_body::<HttpRequestBody>();
        let http = Client::builder(TokioExecutor::new()).build_http();
        Ok(HttpClient::new(BearerService(auth.layer(http))))
    }
}

#[async_trait]
impl HttpService for BearerService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.clone().oneshot(request).await.map_err(http_error)?;
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(|e| http_error(e.into())))))
    }
}

/// The store retries idempotent requests after an `Interrupted`, and none after an `Unknown`.
fn http_error(error: BoxError) -> HttpError {
    let permanent = TokenError::find(&*error).is_some_and(|error| !error.is_transient());
    let kind = if permanent {
        HttpErrorKind::Unknown
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new_boxed(kind, error)
}

#[cfg(test)]
mod tests {
    use object_store::http::HttpBuilder;
    use object_store::{ClientOptions, ObjectStoreExt};

    use super::BearerConnector;
    use crate::testing;

    #[tokio::test]
    async fn heals_a_revoked_token() {
        let server = testing::server().await;
        let store = HttpBuilder::new()
            .with_url(server.api_url())
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_http_connector(BearerConnector(testing::layer(&server)))
            .build()
            .unwrap();

        store.put(&"report".into(), "first".into()).await.unwrap();
        server.revoke_all();
        store.put(&"report".into(), "second".into()).await.unwrap();

        testing::assert_healed(&server);
        assert_eq!(server.api_log()[2].body(), Some(b"second".as_slice()));
    }
}
