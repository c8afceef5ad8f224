//! A 401 says why its own refresh failed: the `TokenError` is in its extensions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bearer_auth::{AccessToken, BearerAuthLayer, MockTokenSource, TokenError, TokenErrorKind};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::api::Api;

/// The status and the extensions of the responses in all stacks.
async fn responses(
    layer: impl Fn() -> BearerAuthLayer,
    api: &Api,
) -> Vec<(StatusCode, Extensions)> {
    let mut responses = Vec::new();
    latest::responses(&layer, api, &mut responses).await;
    earlier::responses(&layer, api, &mut responses).await;

    let inner =
        service_fn(async |request: Request<()>| Ok::<_, Infallible>(respond(request.headers())));
    let request = Request::get(api.url("/")).body(()).unwrap();
    let response = warm(layer()).await.layer(inner).oneshot(request);
    let (parts, ()) = response.await.unwrap().into_parts();
    responses.push((parts.status, parts.extensions));
    responses
}

for_both_reqwests! {
    pub(super) async fn responses(
        layer: impl Fn() -> BearerAuthLayer,
        api: &Api,
        responses: &mut Vec<(StatusCode, Extensions)>,
    ) {
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(warm(layer()).await)
            .build();
        let mut response = client.get(api.url("/")).send().await.unwrap();
        let extensions = std::mem::take(response.extensions_mut());
        responses.push((response.status(), extensions));

        let service = warm(layer()).await.layer(reqwest::Client::new());
        let request = reqwest::Request::new(Method::GET, api.url("/").parse().unwrap());
        let mut response = service.oneshot(request).await.unwrap();
        let extensions = std::mem::take(response.extensions_mut());
        responses.push((response.status(), extensions));
    }
}

async fn warm(layer: BearerAuthLayer) -> BearerAuthLayer {
    layer.cache().token().await.unwrap();
    layer
}

/// Rejects the first token.
fn respond(headers: &HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    if headers[AUTHORIZATION] == "Bearer mock-token-1" {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    response
}

#[tokio::test]
async fn the_error_of_a_failed_refresh_is_in_the_extensions() {
    let api = Api::accepting(|token| token != "mock-token-1").await;
    let layer = || {
        let tokens = MockTokenSource::new();
        let source = tokens.clone();
        BearerAuthLayer::new(bearer_auth::source_fn(move |request| {
            let (tokens, request) = (source.clone(), request.clone());
            async move {
                if tokens.fetches() == 1 {
                    tokens.fail_next(TokenError::permanent("no"));
                }
                bearer_auth::TokenSource::fetch(&tokens, &request).await
            }
        }))
    };
    for (status, extensions) in responses(layer, &api).await {
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let error = extensions.get::<TokenError>().expect("the error");
        assert_eq!(error.kind(), TokenErrorKind::Source);
        assert!(error.retry_after().is_some());
    }
}

#[tokio::test]
async fn no_error_is_added_if_the_source_returns_the_same_token() {
    let api = Api::accepting(|_| false).await;
    let layer = || {
        BearerAuthLayer::new(bearer_auth::source_fn(|_| async {
            Ok(AccessToken::new("mock-token-1")?)
        }))
    };
    for (status, extensions) in responses(layer, &api).await {
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(extensions.get::<TokenError>().is_none());
    }
}

#[tokio::test]
async fn no_error_is_added_to_the_response_to_a_replay() {
    let api = Api::accepting(|token| token != "mock-token-1").await;
    for (status, extensions) in
        responses(|| BearerAuthLayer::new(MockTokenSource::new()), &api).await
    {
        assert_eq!(status, StatusCode::OK);
        assert!(extensions.get::<TokenError>().is_none());
    }
}

/// The second of two requests with the same token gets its 401 when the refresh has failed already.
#[tokio::test(start_paused = true)]
async fn the_error_of_a_paused_refresh_is_in_the_extensions() {
    let tokens = MockTokenSource::new();
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let api = service_fn(move |request: Request<()>| {
        let gate = Arc::clone(&opened);
        async move {
            if request.uri().path() == "/late" {
                gate.notified().await;
            }
            Ok::<_, Infallible>(respond(request.headers()))
        }
    });
    let layer = warm(BearerAuthLayer::new(tokens.clone())).await;
    let service = layer.layer(api);
    let request = |path: &str| {
        let url = format!("https://api.example.com{path}");
        Request::get(url).body(()).unwrap()
    };
    let late = tokio::spawn(service.clone().oneshot(request("/late")));
    tokio::task::yield_now().await;
    tokens.fail_next(TokenError::permanent("no").with_retry_after(Duration::from_secs(10)));
    let early = service.oneshot(request("/early")).await.unwrap();
    let error = early.extensions().get::<TokenError>().unwrap();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(10)));

    tokio::time::advance(Duration::from_secs(4)).await;
    gate.notify_one();
    let late = late.await.unwrap().unwrap();
    assert_eq!(late.status(), StatusCode::UNAUTHORIZED);
    let error = late.extensions().get::<TokenError>().unwrap();
    assert!(error.retry_after() <= Some(Duration::from_secs(6)));
    assert_eq!(tokens.fetches(), 2, "the source is not called in the pause");
}
