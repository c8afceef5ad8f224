//! The bodies that are replayed: built-in types, and those that a function copies.

use std::convert::Infallible;

use bearer_auth::{BearerAuthLayer, MockTokenSource};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt, service_fn};

type Boxed = BoxBody<Bytes, Infallible>;
type UnsyncBoxed = UnsyncBoxBody<Bytes, Infallible>;

/// Sends a request whose token is rejected. Returns the body of the replay, or `None` if there is
/// none.
async fn replayed<B: Send + 'static>(
    set: impl FnOnce(BearerAuthLayer) -> BearerAuthLayer,
    body: B,
) -> Option<B> {
    let tokens = MockTokenSource::new();
    let layer = set(BearerAuthLayer::new(tokens.clone()));
    let api = service_fn(async |request: Request<B>| {
        let own = request.headers().get_all("x-own").iter();
        assert!(own.eq(["1", "2"]), "{:?}", request.headers());
        let is_rejected = request.headers()[AUTHORIZATION] == "Bearer mock-token-1";
        let mut response = Response::new(request.into_body());
        if is_rejected {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, Infallible>(response)
    });
    let request = Request::post("https://api.example.com/").header("x-own", "1");
    let request = request.header("x-own", "2").body(body).unwrap();
    let response = layer.layer(api).oneshot(request).await.unwrap();
    // A refresh in the background has not begun yet.
    tokio::task::yield_now().await;
    assert_eq!(tokens.fetches(), 2, "refreshed in any case");
    (response.status() == StatusCode::OK).then(|| response.into_body())
}

async fn bytes<B>(body: Option<B>) -> Option<Bytes>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    match body {
        Some(body) => Some(body.collect().await.unwrap().to_bytes()),
        None => None,
    }
}

#[tokio::test]
async fn an_optional_body_in_memory_is_replayed_without_configuration() {
    for body in [None, Some(Full::default()), Some(Full::from("x"))] {
        let replayed = replayed::<Option<Full<Bytes>>>(|layer| layer, body.clone()).await;
        let replayed = replayed.expect("a replay");
        assert_eq!(bytes(replayed).await, bytes(body).await);
    }
}

#[tokio::test]
async fn boxed_bodies_are_replayed_if_they_are_empty() {
    use axum::body::Body;

    let set = |layer: BearerAuthLayer| {
        layer
            .replay_body_with::<Body>(|body| body.is_end_stream().then(Body::empty))
            .replay_body_with::<Boxed>(|body| body.is_end_stream().then(|| Empty::new().boxed()))
            .replay_body_with::<UnsyncBoxed>(|body| {
                body.is_end_stream().then(|| Empty::new().boxed_unsync())
            })
    };
    let empty = Some(Bytes::new());
    assert_eq!(bytes(replayed(set, Body::empty()).await).await, empty);
    assert_eq!(bytes(replayed(set, Body::from("")).await).await, empty);
    assert_eq!(
        bytes(replayed(set, Empty::new().boxed()).await).await,
        empty
    );
    let unsync = Empty::new().boxed_unsync();
    assert_eq!(bytes(replayed(set, unsync).await).await, empty);

    assert!(replayed(set, Body::from("x")).await.is_none());
    assert!(
        replayed(set, Full::new(Bytes::from("x")).boxed())
            .await
            .is_none()
    );
    assert!(
        replayed(set, Full::new(Bytes::from("x")).boxed_unsync())
            .await
            .is_none()
    );
    // Without the function, boxed bodies are sent once.
    assert!(replayed(|layer| layer, Body::empty()).await.is_none());
}

#[tokio::test]
async fn a_body_with_a_try_clone_is_replayed_if_that_returns_one() {
    #[derive(Debug, PartialEq)]
    enum Own {
        InMemory(u8),
        Stream,
    }
    impl Own {
        fn try_clone(&self) -> Option<Self> {
            match self {
                Self::InMemory(byte) => Some(Self::InMemory(*byte)),
                Self::Stream => None,
            }
        }
    }
    let set = |layer: BearerAuthLayer| layer.replay_body_with(Own::try_clone);
    let in_memory = || Own::InMemory(7);
    assert_eq!(replayed(set, in_memory()).await, Some(in_memory()));
    assert_eq!(replayed(set, Own::Stream).await, None);
    let without = |layer: BearerAuthLayer| set(layer).without_replay();
    assert_eq!(replayed(without, in_memory()).await, None);
}
