//! Requests whose token the API rejects (rules D of `docs/behaviour.md`), through
//! reqwest-middleware, tower over `http`, and tower around a `reqwest::Client`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, GrpcUnauthenticated, MockTokenSource, RequestAuth, TokenError, TokenErrorKind,
};
use futures_util::future::join_all;
use http::header::{HeaderName, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::support::api::{Api, INVALID_TOKEN, REJECTION_BODY, Received, ok, rejected, status};
use crate::support::stack::{ApiResponse, Call, Kind, Stack, token_error};

/// Starts an API that rejects the first token.
async fn rejecting_the_first() -> Api {
    Api::accepting(|token| token != "mock-token-1").await
}

/// Checks that this is the API's own 401, with its headers and its body.
fn assert_whole_rejection(response: &ApiResponse, kind: Kind) {
    assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{kind:?}");
    assert_eq!(
        response.headers[WWW_AUTHENTICATE], INVALID_TOKEN,
        "{kind:?}"
    );
    assert_eq!(&response.body[..], REJECTION_BODY, "{kind:?}");
}

fn layer(tokens: &MockTokenSource, api: &Api) -> BearerAuthLayer {
    BearerAuthLayer::new(tokens.clone())
        .allow_origin(api.origin())
        .unwrap()
}

#[tokio::test]
async fn a_rejected_token_is_refreshed_and_the_request_replayed_byte_for_byte() {
    for kind in Kind::ALL {
        for len in [0, 1, 64 * 1024, 5 * 1024 * 1024] {
            let (tokens, api) = (MockTokenSource::new(), rejecting_the_first().await);
            let stack = Stack::new(kind, &layer(&tokens, &api));
            let body: Vec<u8> = (0..len).map(|it: usize| (it % 251) as u8).collect();
            let (name, value) = (HeaderName::from_static("x-own"), HeaderValue::from(1));
            let call = Call {
                headers: HeaderMap::from_iter([(name, value)]),
                ..Call::post(api.url("/upload"), body.clone())
            };
            let response = stack.send(call).await.unwrap();
            assert_eq!(response.status, StatusCode::OK, "{kind:?}");
            let requests = api.requests();
            assert_eq!(requests.len(), 2, "{kind:?}");
            assert_eq!(tokens.fetches(), 2, "{kind:?}");
            for request in &requests {
                assert_eq!(request.body, body, "{kind:?}, {len} bytes");
                assert_eq!(request.method, Method::POST);
                assert_eq!(request.headers["x-own"], "1");
                assert_eq!(request.uri, "/upload");
            }
            assert_eq!(requests[1].token(), Some("mock-token-2"), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_401_rejects_the_token_unless_another_would_not_help() {
    for kind in Kind::ALL {
        for (first, rejects) in [
            (rejected(INVALID_TOKEN), true),
            (
                rejected("Basic realm=\"x, Bearer\", bEaReR realm=\"y\""),
                true,
            ),
            (status(401), true),
            (rejected("Bearer error=\"insufficient_scope\""), false),
            (rejected("Bearer error=\"invalid_request\""), false),
            (rejected("Basic realm=\"x\""), true),
            (
                rejected("Basic realm=\"x\", Bearer error=\"insufficient_scope\""),
                false,
            ),
            (
                rejected("OAuth2 realm=\"x\", error=\"invalid token\""),
                true,
            ),
            (
                rejected("null Bearer realm=\"x\", error=\"invalid_token\""),
                true,
            ),
            (rejected("Bearer error=\"expired_token\""), true),
            (rejected("Bearer error=\"Session_Invalid\""), true),
            (status(403), false),
            (status(500), false),
        ] {
            let case = format!("{kind:?} {first:?}");
            let tokens = MockTokenSource::new();
            let expected = if rejects {
                StatusCode::OK
            } else {
                first.status()
            };
            let api = Api::start(move |request| match request.token() {
                Some("mock-token-1") => first.clone(),
                _ => ok(),
            })
            .await;
            let stack = Stack::new(kind, &layer(&tokens, &api));
            let response = stack.get(api.url("/")).await.unwrap();
            assert_eq!(response.status, expected, "{case}");
            assert_eq!(tokens.fetches(), 1 + usize::from(rejects), "{case}");
        }
    }
}

/// One route asks for another scheme while the token endpoint is down: the others keep the token.
#[tokio::test]
async fn a_route_for_another_scheme_takes_the_token_from_nobody() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let api = Api::start(|request| match request.uri.path() {
            "/basic" => rejected("Basic realm=\"x\""),
            _ => ok(),
        })
        .await;
        let stack = Stack::new(kind, &layer(&tokens, &api));
        assert_eq!(stack.get(api.url("/")).await.unwrap().status, 200);
        tokens.fail_times(1_000, TokenError::permanent("down"));
        for _ in 0..5 {
            let basic = stack.get(api.url("/basic")).await.unwrap();
            assert_eq!(basic.status, 401, "{kind:?}");
            let other = stack.get(api.url("/")).await.unwrap();
            assert_eq!(other.status, 200, "{kind:?}");
        }
        assert_eq!(tokens.fetches(), 2, "{kind:?}: one refresh, then a pause");
    }
}

#[tokio::test]
async fn a_closure_without_type_annotations_replaces_the_default_policy() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let api = Api::start(|request| match request.token() {
            Some("mock-token-1") => status(403),
            _ => rejected(INVALID_TOKEN),
        })
        .await;
        let layer = layer(&tokens, &api).reject_when(|status, headers| {
            status == StatusCode::FORBIDDEN && !headers.contains_key(WWW_AUTHENTICATE)
        });
        let response = Stack::new(kind, &layer).get(api.url("/")).await.unwrap();
        assert_eq!(
            response.status,
            StatusCode::UNAUTHORIZED,
            "{kind:?}: a 401 does not reject"
        );
        assert_eq!((tokens.fetches(), api.requests().len()), (2, 2), "{kind:?}");
    }
}

/// A trailers-only gRPC response is a 200 with its `grpc-status` in the headers.
#[tokio::test]
async fn a_call_that_grpc_status_16_rejects_is_replayed_with_a_new_token() {
    const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

    for kind in Kind::ALL {
        for (grpc_status, rejects) in [("16", true), ("7", false), ("0", false)] {
            let case = format!("{kind:?}, grpc-status {grpc_status}");
            let tokens = MockTokenSource::new();
            let api = Api::start(move |request| {
                let is_first = request.token() == Some("mock-token-1");
                let grpc_status = if is_first { grpc_status } else { "0" };
                let mut response = ok();
                let grpc_status = HeaderValue::from_static(grpc_status);
                response.headers_mut().insert(GRPC_STATUS, grpc_status);
                response
            })
            .await;
            let layer = layer(&tokens, &api).reject_with(GrpcUnauthenticated);
            let call = Call::post(api.url("/helloworld.Greeter/SayHello"), "a message");
            let response = Stack::new(kind, &layer).send(call).await.unwrap();
            assert_eq!(response.status, StatusCode::OK, "{case}");
            let expected = if rejects { "0" } else { grpc_status };
            assert_eq!(response.headers[GRPC_STATUS], expected, "{case}");

            let requests = api.requests();
            let calls = 1 + usize::from(rejects);
            assert_eq!((tokens.fetches(), requests.len()), (calls, calls), "{case}");
            assert!(requests.iter().all(|it| it.body == "a message"), "{case}");
        }
    }
}

#[tokio::test]
async fn the_caller_gets_a_second_rejection_whole() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let api = Api::accepting(|_| false).await;
        let stack = Stack::new(kind, &layer(&tokens, &api));
        assert_whole_rejection(&stack.get(api.url("/")).await.unwrap(), kind);
        assert_eq!(
            (tokens.fetches(), api.requests().len()),
            (2, 2),
            "{kind:?}: two calls, one refresh"
        );
        for _ in 0..20 {
            assert_whole_rejection(&stack.get(api.url("/")).await.unwrap(), kind);
        }
        assert_eq!(
            (tokens.fetches(), api.requests().len()),
            (2, 22),
            "{kind:?}: then one call each"
        );
    }
}

#[tokio::test]
async fn if_the_refresh_fails_the_caller_gets_the_rejection_whole() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), rejecting_the_first().await);
        let layer = layer(&tokens, &api);
        layer.cache().token().await.unwrap();
        tokens.fail_next(TokenError::permanent("no"));
        let stack = Stack::new(kind, &layer);
        assert_whole_rejection(&stack.get(api.url("/")).await.unwrap(), kind);
        assert_eq!(api.requests().len(), 1, "{kind:?}");
        // The rejected token is not used again, not even during the pause.
        let error = stack.get(api.url("/")).await.unwrap_err();
        let error = token_error(&error).unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Source, "{kind:?}");
        assert!(
            error
                .retry_after()
                .is_some_and(|wait| wait > Duration::ZERO)
        );
        assert_eq!((tokens.fetches(), api.requests().len()), (2, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn a_refresh_that_yields_the_rejected_token_causes_no_replay() {
    for kind in Kind::ALL {
        let fetches = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&fetches);
        let source = bearer_auth::source_fn(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            async { Ok(bearer_auth::AccessToken::new("always-the-same")?) }
        });
        let api = Api::accepting(|_| false).await;
        let layer = BearerAuthLayer::new(source)
            .allow_origin(api.origin())
            .unwrap();
        let stack = Stack::new(kind, &layer);
        for calls in 1..=3 {
            assert_whole_rejection(&stack.get(api.url("/")).await.unwrap(), kind);
            assert_eq!(
                api.requests().len(),
                calls,
                "{kind:?}: one request per call"
            );
            assert_eq!(fetches.load(Ordering::Relaxed), 2, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_streamed_request_is_not_replayed_and_the_next_one_has_a_new_token() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), rejecting_the_first().await);
        let layer = layer(&tokens, &api);
        let stack = Stack::new(kind, &layer);
        let streamed = |body: Vec<u8>| Call {
            is_streamed: true,
            ..Call::post(api.url("/"), body)
        };
        let response = stack.send(streamed(vec![7; 10_000])).await.unwrap();
        assert_whole_rejection(&response, kind);
        assert_eq!(api.requests()[0].body, vec![7; 10_000], "{kind:?}");
        assert_eq!(
            layer.cache().token().await.unwrap().expose_secret(),
            "mock-token-2"
        );
        let response = stack.send(streamed(vec![b'x'])).await.unwrap();
        assert_eq!(response.status, StatusCode::OK, "{kind:?}");
        assert_eq!((tokens.fetches(), api.requests().len()), (2, 2), "{kind:?}");
    }
}

#[tokio::test]
async fn replay_can_be_disabled_for_a_layer_or_a_request() {
    for kind in Kind::ALL {
        for by_request in [false, true] {
            if by_request && !Kind::WITH_EXTENSIONS.contains(&kind) {
                continue;
            }
            let (tokens, api) = (MockTokenSource::new(), rejecting_the_first().await);
            let layer = layer(&tokens, &api);
            let layer = if by_request {
                layer
            } else {
                layer.without_replay()
            };
            let mut call = Call::post(api.url("/"), "body");
            if by_request {
                call = call.auth(RequestAuth::default().without_replay());
            }
            let stack = Stack::new(kind, &layer);
            assert_whole_rejection(&stack.send(call).await.unwrap(), kind);
            assert_eq!(api.requests().len(), 1, "{kind:?}");
            assert_eq!(
                stack.get(api.url("/")).await.unwrap().status,
                StatusCode::OK,
                "{kind:?}"
            );
            assert_eq!((tokens.fetches(), api.requests().len()), (2, 2), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn fifty_requests_with_a_rejected_token_cost_one_refresh() {
    for kind in Kind::ALL {
        // Half of the rejections arrive only after the other half has recovered.
        let (gate, opening) = watch::channel(false);
        let tokens = MockTokenSource::new();
        let script = |request: &Received| match request.token() {
            Some("mock-token-1") => rejected(INVALID_TOKEN),
            _ => ok(),
        };
        let api = Api::gated(script, opening).await;
        let stack = Stack::new(kind, &layer(&tokens, &api));
        let start = |path: &str| {
            let (stack, url) = (stack.clone(), api.url(path));
            tokio::spawn(async move { stack.get(url).await.unwrap().status })
        };
        let late: Vec<_> = (0..25).map(|_| start("/late")).collect();
        while api.requests().len() < 25 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let prompt: Vec<_> = (0..25).map(|_| start("/prompt")).collect();
        for status in join_all(prompt).await {
            assert_eq!(status.unwrap(), StatusCode::OK, "{kind:?}");
        }
        gate.send_replace(true);
        for status in join_all(late).await {
            assert_eq!(status.unwrap(), StatusCode::OK, "{kind:?}");
        }
        assert_eq!(tokens.fetches(), 2, "{kind:?}");
        let second = api
            .tokens()
            .iter()
            .filter(|it| it.as_deref() == Some("mock-token-2"))
            .count();
        assert_eq!(second, 50, "{kind:?}: one replay each");
    }
}

#[tokio::test]
async fn a_replay_that_fails_returns_its_own_error() {
    for kind in Kind::ALL {
        // Rejects one request, and stops listening.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let rejection =
                "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(rejection.as_bytes()).await.unwrap();
        });
        let tokens = MockTokenSource::new();
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin(&origin)
            .unwrap();
        let error = Stack::new(kind, &layer).get(&origin).await.unwrap_err();
        server.await.unwrap();
        assert!(token_error(&error).is_none(), "{kind:?}: {error}");
        assert_eq!(tokens.fetches(), 2, "{kind:?}");
    }
}
