//! The origins that a token may be sent to (rules E of `docs/behaviour.md`), through all
//! stacks. The unit tests in `src/policy/attach/tests.rs` cover the rules in detail.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bearer_auth::{BearerAuthLayer, MockTokenSource};
use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Layer, Service, ServiceExt};

use crate::support::api::{Api, ok};
use crate::support::stack::{Call, Kind, Stack};

#[tokio::test]
async fn another_origin_gets_the_request_untouched_and_no_token_is_fetched() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let (api, upload) = (Api::start(|_| ok()).await, Api::start(|_| ok()).await);
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin(api.origin())
            .unwrap();
        let stack = Stack::new(kind, &layer);
        let (name, value) = (HeaderName::from_static("x-own"), HeaderValue::from(1));
        let call = Call {
            headers: HeaderMap::from_iter([(name, value)]),
            ..Call::post(upload.url("/presigned?signature=x"), "batch")
        };
        stack.send(call).await.unwrap();
        assert_eq!(tokens.fetches(), 0, "{kind:?}");
        stack.get(api.url("/")).await.unwrap();
        stack
            .send(Call::post(upload.url("/presigned"), "batch"))
            .await
            .unwrap();
        assert_eq!(upload.tokens(), [None, None], "{kind:?}");
        assert_eq!(upload.requests()[0].body, "batch");
        assert_eq!(upload.requests()[0].headers["x-own"], "1");
        assert_eq!(api.tokens(), [Some("mock-token-1".to_owned())], "{kind:?}");
        assert_eq!(tokens.fetches(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn a_host_header_is_not_trusted() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let other = Api::start(|_| ok()).await;
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin("https://api.example.com")
            .unwrap();
        let host = HeaderValue::from_static("api.example.com");
        let call = Call {
            headers: HeaderMap::from_iter([(HOST, host)]),
            ..Call::get(other.url("/"))
        };
        Stack::new(kind, &layer).send(call).await.unwrap();
        assert_eq!(other.tokens(), [None], "{kind:?}");
        assert_eq!(tokens.fetches(), 0);
    }
}

#[tokio::test]
async fn loopback_gets_tokens_without_configuration() {
    for kind in Kind::ALL {
        let api = Api::accepting(|_| true).await;
        let stack = Stack::new(kind, &BearerAuthLayer::new(MockTokenSource::new()));
        assert_eq!(
            stack.get(api.url("/")).await.unwrap().status,
            200,
            "{kind:?}"
        );
    }
}

/// Records which requests carry a token, and sends nothing.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<(String, bool)>>>);

impl Service<Request<()>> for Recorder {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let has_token = request.headers().contains_key(AUTHORIZATION);
        self.0
            .lock()
            .unwrap()
            .push((request.uri().to_string(), has_token));
        ready(Ok(Response::new(())))
    }
}

async fn carries_token(layer: &BearerAuthLayer, uri: &str) -> bool {
    let recorder = Recorder::default();
    let request = Request::get(uri).body(()).unwrap();
    layer
        .layer(recorder.clone())
        .oneshot(request)
        .await
        .unwrap();
    recorder.0.lock().unwrap()[0].1
}

#[tokio::test]
async fn other_hosts_get_tokens_by_scheme_and_allowed_origin() {
    let open = || BearerAuthLayer::new(MockTokenSource::new());
    for (layer, uri, expected) in [
        (open(), "https://any.example/", true),
        (open(), "http://any.example/", false),
        (open().allow_http(), "http://any.example/", true),
        (open(), "/path-alone", true),
        (
            open().assume_origin("http://any.example").unwrap(),
            "/path-alone",
            false,
        ),
        (
            open().allow_origin("https://a.example").unwrap(),
            "https://A.EXAMPLE:443/",
            true,
        ),
        (
            open().allow_origin("https://a.example").unwrap(),
            "https://b.example/",
            false,
        ),
        (
            open().allow_origin("https://a.example").unwrap(),
            "https://a.example:444/",
            false,
        ),
        (
            open().allow_origin("https://a.example").unwrap(),
            "http://a.example/",
            false,
        ),
        (
            open().allow_origin("https://a.example").unwrap(),
            "http://127.0.0.1/",
            false,
        ),
        (
            open().allow_origin("https://a.example").unwrap(),
            "/path-alone",
            false,
        ),
        (
            open().allow_origin("http://a.example").unwrap(),
            "http://a.example/",
            true,
        ),
        (open(), "any.example:443", false),
    ] {
        assert_eq!(
            carries_token(&layer, uri).await,
            expected,
            "{uri} {layer:?}"
        );
    }
    let two = open()
        .allow_origin("https://a.example")
        .unwrap()
        .allow_origin("https://b.example");
    assert!(carries_token(&two.unwrap(), "https://b.example/").await);
}
