//! Redirects, in every stack (rules 17, 23 of `docs/behaviour.md`): the token doesn't follow to another origin, and what
//! is answered there rejects nothing.

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

use crate::support::api::{Api, Seen, ok, refused, status};
use crate::support::stack::{Kind, Stack};

const REFUSED: &str = "Bearer error=\"invalid_token\"";

type Service = BoxCloneSyncService<Request<Full<Bytes>>, StatusCode, BoxError>;

/// The stacks in which something follows redirects.
enum Following {
    /// reqwest's own, which is always inside.
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
            "inside",
            Following::TowerHttp(BoxCloneSyncService::new(inside.map_err(Into::into))),
        ),
        (
            "inside, 0.6",
            Following::TowerHttp(BoxCloneSyncService::new(inside_06.map_err(Into::into))),
        ),
        (
            "outside",
            Following::TowerHttp(BoxCloneSyncService::new(outside)),
        ),
    ]
}

fn redirect_to(code: u16, url: &str) -> crate::support::api::Reply {
    let mut reply = status(code);
    reply.headers_mut().insert(LOCATION, url.parse().unwrap());
    reply
}

#[tokio::test]
async fn the_token_does_not_follow_to_another_origin_and_a_401_from_there_rejects_nothing() {
    for code in [301, 302, 303, 307, 308] {
        let elsewhere = Arc::new(Api::start(|_| refused(REFUSED)).await);
        let url = elsewhere.url("/led-here");
        let api = Api::start(move |_| redirect_to(code, &url)).await;
        let tokens = MockTokenSource::new();
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin(api.origin())
            .unwrap();
        for (name, stack) in stacks(&layer) {
            let status = stack.get(api.url("/")).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}, {code}");
        }
        assert_eq!(elsewhere.tokens(), vec![None; 5], "{code}");
        assert_eq!(
            api.tokens(),
            vec![Some("mock-token-1".to_owned()); 5],
            "{code}"
        );
        assert_eq!(tokens.fetches(), 1, "{code}: nothing was rejected");
    }
}

#[tokio::test]
async fn on_the_same_origin_the_token_goes_along_and_a_401_counts() {
    let api = Api::start(|seen: &Seen| match (seen.uri.path(), seen.token()) {
        ("/old", _) => redirect_to(307, "/new"),
        (_, Some("mock-token-1") | None) => refused(REFUSED),
        _ => ok(),
    })
    .await;
    for index in 0..5 {
        let tokens = MockTokenSource::new();
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin(api.origin())
            .unwrap();
        let (name, stack) = stacks(&layer).swap_remove(index);
        assert_eq!(stack.get(api.url("/old")).await, StatusCode::OK, "{name}");
        assert_eq!(tokens.fetches(), 2, "{name}");
    }
}
