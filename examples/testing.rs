//! How to test your own code that sends requests with tokens: no server, no waiting.
//!
//! `cargo run --example testing`. In a test, `#[tokio::test(start_paused = true)]` takes the
//! place of `#[tokio::main(…)]`, and the feature `mock` goes into the dev-dependencies.

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

/// In place of the API: answers with what it was sent.
async fn api(request: Request<()>) -> Result<Response<String>, BoxError> {
    let credentials = request.headers()[AUTHORIZATION].to_str()?;
    Ok(Response::new(credentials.to_owned()))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(900));
    let auth = BearerAuthLayer::new(tokens.clone()).allow_origin("https://api.example.com")?;

    // Two callers, while the token takes its time: one fetch, for their tenant.
    let hold = tokens.hold();
    let (first, second, ()) = tokio::join!(balance(&auth, "t/1"), balance(&auth, "t/1"), async {
        advance(Duration::from_secs(5)).await;
        drop(hold);
    });
    assert_eq!(first?, "Bearer mock-token-1");
    assert_eq!(second?, "Bearer mock-token-1");
    assert_eq!(tokens.requests(), [TokenRequest::scope("t/1")]);

    // A quarter of an hour later the token has expired, and no other is to be had.
    advance(Duration::from_secs(900)).await;
    tokens.fail_next(TokenError::permanent("the client is locked"));
    let Err(error) = balance(&auth, "t/1").await else {
        return Err("sent with a token that has expired".into());
    };
    let error = error.downcast::<TokenError>()?;

    // After the pause that the error names, it is.
    advance(error.retry_after().unwrap_or_default()).await;
    assert_eq!(balance(&auth, "t/1").await?, "Bearer mock-token-2");
    println!("15 minutes, {} fetches, no waiting", tokens.fetches());
    Ok(())
}
