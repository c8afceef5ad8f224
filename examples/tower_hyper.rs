//! A tower stack over `http` requests, with hyper-util's client at its end, and what belongs on
//! which side of the layer.
//!
//! `cargo run --example tower_hyper` runs it against a mock server on loopback.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = MockAuthServer::start().await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();

    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .transport(client.clone()) // token requests go by the same client, without the layer
        .build()?;
    let auth = BearerAuthLayer::new(source).allow_origin(server.origin())?;

    let mut service = ServiceBuilder::new()
        // Outside of the layer: what counts once per caller. This limit spans the wait for a token
        // and both sendings. A caller that gives up here stops no fetch: the next finds its token.
        .timeout(Duration::from_secs(30))
        // One place from the first sending to the last. Inside, the second sending would queue for
        // a place of its own, and if none was free within a second the caller would get the 401.
        .concurrency_limit(100)
        // Retries of your own belong here: each try is given the token that is good by then.
        .layer(auth)
        // Inside: what counts for each sending, and sees the `Authorization` header.
        .timeout(Duration::from_secs(10))
        .service(client);

    for _ in 0..3 {
        let request = Request::post(server.api_url()).body(Full::from("amount=7"))?;
        let response = service.ready().await?.call(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("{status} {}", String::from_utf8_lossy(&body));
        assert_eq!(status, StatusCode::OK);
    }
    assert_eq!(server.token_requests(), 1);

    server.revoke_all();
    let request = Request::get(server.api_url()).body(Full::default())?;
    let response = service.ready().await?.call(request).await?;
    println!("{} after the token was revoked", response.status());
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(server.token_requests(), 2);
    Ok(())
}
