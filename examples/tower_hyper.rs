//! A tower stack around hyper-util's client, with other layers outside and inside of this one.
//!
//! `cargo run --example tower_hyper` uses a mock server on loopback.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = MockAuthServer::start().await?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();

    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .transport(client.clone()) // token requests use the same client, without the layer
        .build()?;
    let auth = BearerAuthLayer::new(source).allow_origin(server.origin())?;

    let mut service = ServiceBuilder::new()
        // Outside of the layer: once per call. This timeout includes the wait for a token and the
        // replay. When it ends, the fetch continues, and the next caller gets its token.
        .timeout(Duration::from_secs(30))
        // One permit for the request and its replay. Inside, the replay would need a second permit,
        // and the caller would get the 401 if none was available within one second.
        .concurrency_limit(100)
        // Each redirect is a new request, and the layer checks its origin. Retries belong here too:
        // each one gets the token that is current at the time.
        .layer(FollowRedirectLayer::new())
        .layer(auth)
        // Inside: once per sending, with the `Authorization` header set.
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
