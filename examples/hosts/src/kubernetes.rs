//! kube: a [`Client`] that sends tokens of a cache.
//!
//! Use it where the API server, or a proxy in front of it, takes tokens of an OAuth 2.0 server.
//!
//! - kube's own stack cannot be cloned, which the layer needs to send a request again. A
//!   [`BufferLayer`] makes it cloneable; it needs a runtime when the client is built.
//! - kube's stack adds the cluster's address inside of the layer, so tell the layer the origin.
//! - Leave `auth_info` of the [`Config`] empty, or kube replaces the token by its own.

use bearer_auth::{BearerAuthLayer, BoxError};
use kube_client::client::{Body, ClientBuilder};
use kube_client::{Client, Config};
use tower::buffer::BufferLayer;

/// The number of requests that may wait for kube's stack.
const BUFFERED_REQUESTS: usize = 1024;

/// Returns a client of the cluster at `origin`, to which the layer's tokens go.
///
/// # Errors
///
/// Returns an error if the origin or the configuration cannot be used.
pub fn client(config: Config, auth: BearerAuthLayer, origin: &str) -> Result<Client, BoxError> {
    let auth = auth
        .assume_origin(origin)?
        .allow_origin(origin)?
        .replay_body_with::<Body>(Body::try_clone);
    let builder = ClientBuilder::try_from(config)?
        .with_layer(&BufferLayer::new(BUFFERED_REQUESTS))
        .with_layer(&auth);
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use bearer_auth::BearerAuthLayer;
    use http::Request;
    use kube_client::Config;

    use super::client;
    use crate::testing;

    #[tokio::test]
    async fn heals_a_revoked_token() {
        let server = testing::server().await;
        let auth = BearerAuthLayer::new(testing::credentials(&server));
        let config = Config::new(server.origin().parse().unwrap());
        let client = client(config, auth, server.origin()).unwrap();

        let pods = || {
            Request::post("/api/v1/namespaces/test/pods")
                .body(b"{}".to_vec())
                .unwrap()
        };
        client.request_text(pods()).await.unwrap();
        server.revoke_all();
        client.request_text(pods()).await.unwrap();

        testing::assert_healed(&server);
        assert_eq!(server.api_log()[2].body(), Some(b"{}".as_slice()));
    }
}
