//! opentelemetry-http: an [`HttpClient`] for exporters, whose requests carry tokens.
//!
//! Exporters call it from threads of their own, which have no runtime, so the request runs on a
//! runtime that you name. A multi-threaded one, or the exporter's flush at shutdown may wait for
//! the thread that it blocks.

use async_trait::async_trait;
use bearer_auth::{BearerAuth, BearerAuthLayer};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use tower::{Layer, ServiceExt};

/// The longest response of a collector in bytes, as in the clients of opentelemetry-http.
const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// Sends an exporter's requests through a layer.
#[derive(Debug)]
pub struct BearerClient {
    service: BearerAuth<Client<HttpConnector, Full<Bytes>>>,
    runtime: Handle,
}

impl BearerClient {
    /// Returns a client whose requests run on this runtime.
    pub fn new(auth: &BearerAuthLayer, runtime: Handle) -> Self {
        let service = auth.layer(Client::builder(TokioExecutor::new()).build_http());
        Self { service, runtime }
    }
}

#[async_trait]
impl HttpClient for BearerClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.service.clone().oneshot(request.map(Full::new));
        let collected = self.runtime.spawn(async move {
            let (parts, body) = response.await?.into_parts();
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        });
        collected.await?
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::executor::block_on;
    use http::Request;
    use opentelemetry_http::HttpClient;
    use tokio::runtime::Handle;

    use super::BearerClient;
    use crate::testing;

    #[tokio::test]
    async fn heals_a_revoked_token_on_a_thread_without_a_runtime() {
        let server = testing::server().await;
        let client = BearerClient::new(&testing::layer(&server), Handle::current());
        let url = server.api_url().to_owned();
        let export = move || {
            let request = Request::post(&url)
                .body(Bytes::from_static(b"spans"))
                .unwrap();
            block_on(client.send_bytes(request)).unwrap().status()
        };
        let (sender, mut statuses) = tokio::sync::mpsc::channel(1);
        let (start, started) = std::sync::mpsc::channel();
        let exporter = std::thread::spawn(move || {
            for () in started {
                sender.blocking_send(export()).unwrap();
            }
        });

        start.send(()).unwrap();
        assert_eq!(statuses.recv().await, Some(http::StatusCode::OK));
        server.revoke_all();
        start.send(()).unwrap();
        assert_eq!(statuses.recv().await, Some(http::StatusCode::OK));

        drop(start);
        exporter.join().unwrap();
        testing::assert_healed(&server);
        assert_eq!(server.api_log()[2].body(), Some(b"spans".as_slice()));
    }
}
