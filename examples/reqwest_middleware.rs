//! Tokens for an existing reqwest client, through reqwest-middleware.
//!
//! `cargo run --example reqwest_middleware` uses a mock server on loopback. With a real server,
//! only the URLs, the credentials and the lines with `loopback` are different.

use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer, RequestAuth};
use reqwest::StatusCode;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = MockAuthServer::start().await?;

    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .scope("tenant/4f1c2d3e")
        .reqwest_builder(loopback())
        .build()?;

    let client = reqwest_middleware::ClientBuilder::new(loopback().build()?)
        .with(BearerAuthLayer::new(source).allow_origin(server.origin())?)
        .build();

    // The first request fetches a token, and the others use it too.
    let url = format!("{}/transactions", server.api_url());
    for _ in 0..3 {
        let response = client.get(&url).send().await?.error_for_status()?;
        println!("{} {}", response.status(), response.text().await?);
    }
    assert_eq!(server.token_requests(), 1);

    // The API rejects the token: the layer fetches a new one and replays the request with its body.
    server.revoke_all();
    let response = client.post(&url).body("amount=7").send().await?;
    assert_eq!(response.status(), StatusCode::OK);
    println!("{} after the token was revoked", response.status());
    assert_eq!(server.token_requests(), 2);

    // One request with another scope, and so with another token, then one without a token.
    let other = RequestAuth::scope("tenant/42");
    let response = client.get(&url).with_extension(other).send().await?;
    println!("{} {}", response.status(), response.text().await?);

    let none = RequestAuth::skip();
    let response = client.get(&url).with_extension(none).send().await?;
    println!("{} without a token", response.status());
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.token_requests(), 3);
    Ok(())
}

/// Ignores proxy settings of the environment, since a proxy cannot reach this machine's loopback.
fn loopback() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}
