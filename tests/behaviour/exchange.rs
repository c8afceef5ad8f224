//! What happens to a request whose token is refused (rules D of `docs/behaviour.md`), by one table of scenarios that
//! runs through reqwest-middleware, tower over `http`, and tower around a `reqwest::Client`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, MockTokenSource, RequestAuth, TokenCache, TokenError, TokenErrorKind,
};
use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::support::api::{Api, Seen, ok, refused, status};
use crate::support::stack::{Call, Kind, Stack, token_error};

const REFUSED: &str = "Bearer error=\"invalid_token\"";

/// A token that the API has no more, and good ones after it.
async fn revoking() -> Api {
    Api::accepting(|token| token != "mock-token-1").await
}

fn layer(tokens: &MockTokenSource, api: &Api) -> BearerAuthLayer {
    BearerAuthLayer::new(tokens.clone())
        .allow_origin(api.origin())
        .unwrap()
}

#[tokio::test]
async fn a_good_token_goes_along_and_is_fetched_once() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::accepting(|_| true).await);
        let stack = Stack::new(kind, &layer(&tokens, &api));
        for _ in 0..3 {
            let answer = stack.get(api.url("/x?y=z")).await.unwrap();
            assert_eq!(
                (answer.status, &answer.body[..]),
                (StatusCode::OK, &b"fine"[..])
            );
        }
        assert_eq!(tokens.fetches(), 1, "{kind:?}");
        assert_eq!(
            api.tokens(),
            vec![Some("mock-token-1".to_owned()); 3],
            "{kind:?}"
        );
        assert_eq!(api.seen()[0].uri, "/x?y=z");
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_and_the_request_sent_again_byte_for_byte() {
    for kind in Kind::ALL {
        for len in [0, 1, 64 * 1024, 5 * 1024 * 1024] {
            let (tokens, api) = (MockTokenSource::new(), revoking().await);
            let stack = Stack::new(kind, &layer(&tokens, &api));
            let body: Vec<u8> = (0..len).map(|it: usize| (it % 251) as u8).collect();
            let call = Call::post(api.url("/upload"), body.clone()).header("x-own", "1");
            let answer = stack.send(call).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{kind:?}");
            let seen = api.seen();
            assert_eq!(seen.len(), 2, "{kind:?}");
            assert_eq!(tokens.fetches(), 2, "{kind:?}");
            for seen in &seen {
                assert_eq!(seen.body, body, "{kind:?}, {len} bytes");
                assert_eq!(
                    (&seen.method, &seen.headers["x-own"]),
                    (&Method::POST, &"1".parse().unwrap())
                );
                assert_eq!(seen.uri, "/upload");
            }
            assert_eq!(seen[1].token(), Some("mock-token-2"), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn which_answers_reject() {
    for kind in Kind::ALL {
        for (reply, rejects) in [
            (refused(REFUSED), true),
            (
                refused("Basic realm=\"x, Bearer\", bEaReR realm=\"y\""),
                true,
            ),
            (status(401), true),
            (refused("Bearer error=\"insufficient_scope\""), false),
            (refused("Bearer error=\"invalid_request\""), false),
            (refused("Basic realm=\"x\""), false),
            (status(403), false),
            (status(500), false),
        ] {
            let shown = format!("{kind:?} {reply:?}");
            let tokens = MockTokenSource::new();
            let first = reply.clone();
            let api = Api::start(move |seen| match seen.token() {
                Some("mock-token-1") => first.clone(),
                _ => ok(),
            })
            .await;
            let answer = Stack::new(kind, &layer(&tokens, &api))
                .get(api.url("/"))
                .await
                .unwrap();
            let expected = if rejects {
                StatusCode::OK
            } else {
                reply.status()
            };
            assert_eq!(answer.status, expected, "{shown}");
            assert_eq!(tokens.fetches(), 1 + usize::from(rejects), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_users_policy_decides_instead() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let api = Api::start(|seen| match seen.token() {
            Some("mock-token-1") => status(403),
            _ => refused(REFUSED),
        })
        .await;
        let layer = layer(&tokens, &api)
            .reject_when(|status: StatusCode, _: &http::HeaderMap| status == StatusCode::FORBIDDEN);
        let answer = Stack::new(kind, &layer).get(api.url("/")).await.unwrap();
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "{kind:?}: a 401 is none of its"
        );
        assert_eq!((tokens.fetches(), api.seen().len()), (2, 2), "{kind:?}");
    }
}

#[tokio::test]
async fn a_second_refusal_is_the_callers_whole() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let api = Api::accepting(|_| false).await;
        let stack = Stack::new(kind, &layer(&tokens, &api));
        let answer = stack.get(api.url("/")).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(&answer.body[..], b"the reason, in words", "{kind:?}");
        assert_eq!(
            (tokens.fetches(), api.seen().len()),
            (2, 2),
            "{kind:?}: two calls, one renewal"
        );
        for _ in 0..20 {
            let answer = stack.get(api.url("/")).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(
            (tokens.fetches(), api.seen().len()),
            (2, 22),
            "{kind:?}: then one call each"
        );
    }
}

#[tokio::test]
async fn without_another_token_the_caller_gets_the_refusal_whole() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), revoking().await);
        let layer = layer(&tokens, &api);
        layer.cache().token().await.unwrap();
        tokens.fail_next(TokenError::permanent("no"));
        let stack = Stack::new(kind, &layer);
        let answer = stack.get(api.url("/")).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{kind:?}");
        assert_eq!(&answer.body[..], b"the reason, in words", "{kind:?}");
        assert_eq!(api.seen().len(), 1, "{kind:?}");
        // The rejected token is served no more, not even in the pause.
        let error = stack.get(api.url("/")).await.unwrap_err();
        let error = token_error(&error).unwrap();
        assert_eq!(error.kind(), TokenErrorKind::Source, "{kind:?}");
        assert!(
            error
                .retry_after()
                .is_some_and(|wait| wait > Duration::ZERO)
        );
        assert_eq!((tokens.fetches(), api.seen().len()), (2, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn the_same_token_again_is_not_sent_again() {
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
            let answer = stack.get(api.url("/")).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{kind:?}");
            assert_eq!(&answer.body[..], b"the reason, in words", "{kind:?}");
            assert_eq!(api.seen().len(), calls, "{kind:?}: sent once each");
            assert_eq!(fetches.load(Ordering::Relaxed), 2, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_is_sent_once_and_the_token_renewed_for_the_next() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), revoking().await);
        let layer = layer(&tokens, &api);
        let stack = Stack::new(kind, &layer);
        let call = Call::post(api.url("/"), vec![7; 10_000]).streamed();
        let answer = stack.send(call).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{kind:?}");
        assert_eq!(&answer.body[..], b"the reason, in words", "{kind:?}");
        assert_eq!(api.seen()[0].body, vec![7; 10_000], "{kind:?}");
        assert_eq!(
            layer.cache().token().await.unwrap().expose_secret(),
            "mock-token-2"
        );
        let answer = stack
            .send(Call::post(api.url("/"), "x").streamed())
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{kind:?}");
        assert_eq!((tokens.fetches(), api.seen().len()), (2, 2), "{kind:?}");
    }
}

#[tokio::test]
async fn replay_can_be_switched_off_for_a_layer_or_a_request() {
    for kind in Kind::ALL {
        for by_request in [false, true] {
            if by_request && !kind.has_extensions() {
                continue;
            }
            let (tokens, api) = (MockTokenSource::new(), revoking().await);
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
            let answer = stack.send(call).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{kind:?}");
            assert_eq!(api.seen().len(), 1, "{kind:?}");
            assert_eq!(
                stack.get(api.url("/")).await.unwrap().status,
                StatusCode::OK,
                "{kind:?}"
            );
            assert_eq!((tokens.fetches(), api.seen().len()), (2, 2), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn fifty_in_flight_with_a_revoked_token_cost_one_fetch() {
    for kind in Kind::ALL {
        // Half of the refusals come only when the other half has recovered.
        let (gate, opening) = watch::channel(false);
        let tokens = MockTokenSource::new();
        let answer = |seen: &Seen| match seen.token() {
            Some("mock-token-1") => refused(REFUSED),
            _ => ok(),
        };
        let api = Api::gated(answer, opening).await;
        let stack = Stack::new(kind, &layer(&tokens, &api));
        let start = |path: &str| {
            let (stack, url) = (stack.clone(), api.url(path));
            tokio::spawn(async move { stack.get(url).await.unwrap().status })
        };
        let late: Vec<_> = (0..25).map(|_| start("/late")).collect();
        while api.seen().len() < 25 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let prompt: Vec<_> = (0..25).map(|_| start("/prompt")).collect();
        for answer in join_all(prompt).await {
            assert_eq!(answer.unwrap(), StatusCode::OK, "{kind:?}");
        }
        gate.send_replace(true);
        for answer in join_all(late).await {
            assert_eq!(answer.unwrap(), StatusCode::OK, "{kind:?}");
        }
        assert_eq!(tokens.fetches(), 2, "{kind:?}");
        let second = api
            .tokens()
            .iter()
            .filter(|it| it.as_deref() == Some("mock-token-2"))
            .count();
        assert_eq!(second, 50, "{kind:?}: each recovers once");
    }
}

#[tokio::test]
async fn the_second_sending_fails_with_its_own_error() {
    for kind in Kind::ALL {
        // Refuses one request, and is gone.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let refusal =
                "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(refusal.as_bytes()).await.unwrap();
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

#[tokio::test]
async fn a_header_of_the_callers_own_stays() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::accepting(|_| false).await);
        let stack = Stack::new(kind, &layer(&tokens, &api));
        let call = Call::get(api.url("/")).header("authorization", "Bearer own");
        assert_eq!(
            stack.send(call).await.unwrap().status,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(api.tokens(), [Some("own".to_owned())], "{kind:?}");
        assert_eq!(tokens.fetches(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn a_request_says_which_token_or_none() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.has_extensions()) {
        let (tokens, api) = (MockTokenSource::new(), Api::start(|_| ok()).await);
        let layer = layer(&tokens, &api).require_request_auth();
        let stack = Stack::new(kind, &layer);
        for auth in [
            RequestAuth::scope("tenant/42"),
            RequestAuth::skip(),
            RequestAuth::scope("tenant/42").without_replay(),
            RequestAuth::scope("tenant/7"),
        ] {
            stack
                .send(Call::get(api.url("/")).auth(auth))
                .await
                .unwrap();
        }
        let expected = [
            Some("mock-token-1"),
            None,
            Some("mock-token-1"),
            Some("mock-token-2"),
        ];
        assert_eq!(
            api.tokens(),
            expected.map(|it| it.map(str::to_owned)),
            "{kind:?}"
        );
        let scopes: Vec<_> = tokens
            .requests()
            .iter()
            .map(|it| it.scopes().unwrap().to_owned())
            .collect();
        assert_eq!(scopes, ["tenant/42", "tenant/7"], "{kind:?}");

        let error = stack.get(api.url("/")).await.unwrap_err();
        assert_eq!(
            token_error(&error).unwrap().kind(),
            TokenErrorKind::RequestAuthMissing
        );
        assert_eq!((api.seen().len(), tokens.fetches()), (4, 2), "{kind:?}");
    }
}

#[tokio::test]
async fn a_failing_source_is_a_token_error_and_nothing_is_sent() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::start(|_| ok()).await);
        tokens.fail_next(TokenError::permanent("no"));
        let stack = Stack::new(kind, &layer(&tokens, &api));
        let error = stack.get(api.url("/")).await.unwrap_err();
        let error = token_error(&error).expect("the crate's own error");
        assert_eq!(error.kind(), TokenErrorKind::Source, "{kind:?}");
        assert!(!error.is_transient());
        assert_eq!(api.seen().len(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn layers_of_one_cache_share_its_tokens() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let api = Api::accepting(|_| true).await;
    let layer = BearerAuthLayer::from_cache(cache.clone())
        .allow_origin(api.origin())
        .unwrap();
    let stacks = Kind::ALL.map(|kind| Stack::new(kind, &layer.clone()));
    let calls = (0..100).flat_map(|_| stacks.iter().map(|stack| stack.get(api.url("/"))));
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    assert_eq!(tokens.fetches(), 1);
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
}
