//! A test of code that sends requests with tokens, without a server and without waiting.
//!
//! `cargo run --example testing`. In a test, use `#[tokio::test(start_paused = true)]` in place of
//! `#[tokio::main(…)]`, and enable the feature `mock` in the dev-dependencies.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource, RequestAuth};
use bearer_auth::{TokenError, TokenRequest};
use http::{Request, Response, header::AUTHORIZATION};
use tokio::time::advance;
use tower::{Layer, ServiceExt, service_fn};

/// The code under test.
async fn balance(auth: &BearerAuthLayer, tenant: &str) -> Result<String, BoxError> {
    let mut request = Request::get("https://api.example.com/balance").body(())?;
    request.extensions_mut().insert(RequestAuth::scope(tenant));
    let response = auth.layer(service_fn(api)).oneshot(request).await?;
    Ok(response.into_body())
}

/// A stand-in for the API, which responds with the `Authorization` header that it received.
async fn api(request: Request<()>) -> Result<Response<String>, BoxError> {
    let credentials = request.headers()[AUTHORIZATION].to_str()?;
    Ok(Response::new(credentials.to_owned()))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(900));
    let auth = BearerAuthLayer::new(tokens.clone()).allow_origin("https://api.example.com")?;

    // Two callers of one tenant wait for the same fetch.
    let hold = tokens.hold();
    let (first, second, ()) = tokio::join!(balance(&auth, "t/1"), balance(&auth, "t/1"), async {
        advance(Duration::from_secs(5)).await;
        drop(hold);
    });
    assert_eq!(first?, "Bearer mock-token-1");
    assert_eq!(second?, "Bearer mock-token-1");
    assert_eq!(tokens.requests(), [TokenRequest::scope("t/1")]);

    // After 15 minutes the token has expired, and the fetch of the next one fails.
    advance(Duration::from_secs(900)).await;
    tokens.fail_next(TokenError::permanent("the client is locked"));
    let Err(error) = balance(&auth, "t/1").await else {
        return Err("the request was sent with an expired token".into());
    };
    let error = error.downcast::<TokenError>()?;

    // After the pause, the next fetch succeeds.
    advance(error.retry_after().unwrap_or_default()).await;
    assert_eq!(balance(&auth, "t/1").await?, "Bearer mock-token-2");
    println!(
        "15 minutes passed without waiting, {} fetches",
        tokens.fetches()
    );
    Ok(())
}
