//! Many tenants through one client: `cargo run --example tenants`
//!
//! The service reads the tenant from the path of its request, `/reports/<tenant>`, and calls an API
//! with that tenant's token. A middleware sets the tenant for the whole task, so that no call
//! within it can omit the tenant. Token requests are limited to ten per second, because token
//! endpoints throttle.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use bearer_auth::{
    BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer, RequestAuth, TokenCache,
    TokenRequest, task_local,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower::ServiceBuilder;

#[derive(Clone)]
struct Api {
    client: ClientWithMiddleware,
    url: String,
}

/// Handles a request for `/reports/<tenant>` in a task that uses this tenant's token.
async fn with_tenant(Path(tenant): Path<u32>, request: Request, next: Next) -> Response {
    let auth = RequestAuth::scope(format!("tenant/{tenant}"));
    task_local::with_request_auth(auth, next.run(request)).await
}

async fn report(State(api): State<Api>) -> Result<String, StatusCode> {
    let response = api
        .client
        .get(api.url)
        .send()
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    response.text().await.map_err(|_| StatusCode::BAD_GATEWAY)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = MockAuthServer::start().await?;
    let transport = ServiceBuilder::new()
        .buffer(1_000) // makes the stack `Clone`, which a rate limit is not
        .rate_limit(10, Duration::from_secs(1))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .transport(transport)
        .build()?;
    // A call without a tenant is an error and does not use a default token.
    let cache = TokenCache::new(source);
    let auth = BearerAuthLayer::from_cache(cache.clone())
        .allow_origin(server.origin())?
        .require_request_auth();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let api = Api {
        client: ClientBuilder::new(http.clone()).with(auth).build(),
        url: server.api_url().to_owned(),
    };
    let app = Router::new()
        .route("/reports/{tenant}", get(report))
        .route_layer(middleware::from_fn(with_tenant))
        .with_state(api.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    for tenant in [1, 2, 3, 1, 2, 3] {
        let report = http
            .get(format!("http://{address}/reports/{tenant}"))
            .send()
            .await?;
        let report = report.error_for_status()?.text().await?;
        println!("tenant {tenant}: {report}");
        if !report.contains(&format!("tenant/{tenant}\"")) {
            return Err("the API received another tenant's token".into());
        }
    }
    println!("token requests: {}", server.token_requests());
    if server.token_requests() != 3 {
        return Err("expected one token request for each of the three tenants".into());
    }
    // A readiness probe asks for a tenant: the default token is used by no request.
    let is_ready = cache.status_of(&TokenRequest::scope("tenant/1")).is_ready();
    println!("ready: {is_ready}");
    if !is_ready || cache.status().is_ready() {
        return Err("expected a token for the tenant, and none without a tenant".into());
    }
    match api.client.get(server.api_url()).send().await {
        Err(error) => println!("without a tenant: {error}"),
        Ok(_) => return Err("expected an error without a tenant".into()),
    }
    Ok(())
}
