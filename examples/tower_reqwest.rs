//! A tower stack around a `reqwest::Client`, which is a tower service.
//!
//! `cargo run --example tower_reqwest` uses a mock server on loopback.

use bearer_auth::{BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer, TokenError};
use reqwest::{Method, Request, StatusCode};
use tower::{Service, ServiceBuilder, ServiceExt};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = MockAuthServer::start().await?;

    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .reqwest_builder(loopback())
        .build()?;
    let auth = BearerAuthLayer::new(source).allow_origin(server.origin())?;
    let cache = auth.cache().clone();

    let mut service = ServiceBuilder::new()
        .layer(auth)
        .service(loopback().build()?);

    let request = Request::new(Method::GET, server.api_url().parse()?);
    let response = service.ready().await?.call(request).await?;
    let response = response.error_for_status()?;
    println!("{} {}", response.status(), response.text().await?);

    // Each task uses a clone of the service. All clones share the token.
    let request = Request::new(Method::GET, server.api_url().parse()?);
    let task = tokio::spawn(service.clone().oneshot(request));
    let response = task.await??.error_for_status()?;
    println!("{} in another task", response.status());
    assert_eq!(server.token_requests(), 1);

    // The token endpoint rejects the client, and the caller gets a `TokenError`.
    cache.invalidate(&cache.token().await?);
    server.fail_token_requests(1, StatusCode::UNAUTHORIZED);
    let request = Request::new(Method::GET, server.api_url().parse()?);
    match service.ready().await?.call(request).await {
        Ok(response) => Err(format!("expected an error, got {}", response.status()).into()),
        Err(error) => match error.downcast_ref::<TokenError>() {
            Some(error) => {
                println!("no token: {error}");
                assert_eq!(error.oauth_error(), Some("invalid_client"));
                Ok(())
            }
            None => Err(error),
        },
    }
}

/// Ignores proxy settings of the environment, since a proxy cannot reach this machine's loopback.
fn loopback() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}
