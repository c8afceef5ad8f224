//! Redirects, in every stack (rules 17 and 23 of `docs/behaviour.md`): the token does not follow to
//! another origin, and a response from there rejects nothing.

use std::sync::Arc;

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource};
use bytes::Bytes;
use http::header::LOCATION;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_http_06::follow_redirect::FollowRedirectLayer as FollowRedirectLayer06;

use crate::support::api::{Api, INVALID_TOKEN, Received, Scripted, ok, rejected, status};
use crate::support::stack::{Kind, Stack};

type Service = BoxCloneSyncService<Request<Full<Bytes>>, StatusCode, BoxError>;

/// A stack that follows redirects.
enum Following {
    /// By reqwest itself, always inside of the layer.
    Reqwest(Stack),
    TowerHttp(Service),
}

impl Following {
    async fn get(&self, url: String) -> StatusCode {
        match self {
            Self::Reqwest(stack) => stack.get(url).await.unwrap().status,
            Self::TowerHttp(service) => {
                let request = Request::get(url).body(Full::default()).unwrap();
                service.clone().oneshot(request).await.unwrap()
            }
        }
    }
}

fn stacks(layer: &BearerAuthLayer) -> Vec<(&'static str, Following)> {
    let client = || Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    fn status<B>(response: Response<B>) -> StatusCode {
        response.status()
    }
    let inside = ServiceBuilder::new()
        .map_response(status)
        .layer(layer.clone())
        .layer(FollowRedirectLayer::new())
        .service(client());
    let inside_06 = ServiceBuilder::new()
        .map_response(status)
        .layer(layer.clone())
        .layer(FollowRedirectLayer06::new())
        .service(client());
    let outside = ServiceBuilder::new()
        .map_response(status)
        .layer(FollowRedirectLayer::new())
        .layer(layer.clone())
        .service(client());
    vec![
        (
            "reqwest-middleware",
            Following::Reqwest(Stack::new(Kind::Middleware, layer)),
        ),
        (
            "tower around reqwest",
            Following::Reqwest(Stack::new(Kind::TowerReqwest, layer)),
        ),
        (
            "reqwest-middleware 0.4",
            Following::Reqwest(Stack::new(Kind::Middleware04, layer)),
        ),
        (
            "tower around reqwest 0.12",
            Following::Reqwest(Stack::new(Kind::TowerReqwest012, layer)),
        ),
        (
            "tower-http inside",
            Following::TowerHttp(BoxCloneSyncService::new(inside.map_err(Into::into))),
        ),
        (
            "tower-http 0.6 inside",
            Following::TowerHttp(BoxCloneSyncService::new(inside_06.map_err(Into::into))),
        ),
        (
            "tower-http outside",
            Following::TowerHttp(BoxCloneSyncService::new(outside)),
        ),
    ]
}

fn redirect_to(code: u16, url: &str) -> Scripted {
    let mut response = status(code);
    let location = url.parse().unwrap();
    response.headers_mut().insert(LOCATION, location);
    response
}

#[tokio::test]
async fn the_token_does_not_follow_to_another_origin_and_a_401_from_there_rejects_nothing() {
    for code in [301, 302, 303, 307, 308] {
        let elsewhere = Arc::new(Api::start(|_| rejected(INVALID_TOKEN)).await);
        let url = elsewhere.url("/target");
        let api = Api::start(move |_| redirect_to(code, &url)).await;
        let tokens = MockTokenSource::new();
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin(api.origin())
            .unwrap();
        for (name, stack) in stacks(&layer) {
            let status = stack.get(api.url("/")).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}, {code}");
        }
        assert_eq!(elsewhere.tokens(), vec![None; 7], "{code}");
        assert_eq!(
            api.tokens(),
            vec![Some("mock-token-1".to_owned()); 7],
            "{code}"
        );
        assert_eq!(tokens.fetches(), 1, "{code}: nothing was rejected");
    }
}

#[tokio::test]
async fn the_token_follows_on_the_same_origin_and_a_401_from_there_rejects_it() {
    let script = |request: &Received| match (request.uri.path(), request.token()) {
        ("/old", _) => redirect_to(307, "/new"),
        (_, Some("mock-token-1") | None) => rejected(INVALID_TOKEN),
        _ => ok(),
    };
    let api = Api::start(script).await;
    for index in 0..7 {
        let tokens = MockTokenSource::new();
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin(api.origin())
            .unwrap();
        let (name, stack) = stacks(&layer).swap_remove(index);
        assert_eq!(stack.get(api.url("/old")).await, StatusCode::OK, "{name}");
        assert_eq!(tokens.fetches(), 2, "{name}");
    }
}
