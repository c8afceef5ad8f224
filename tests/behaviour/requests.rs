//! The token that a request carries, through reqwest-middleware, tower over `http`, and tower
//! around a `reqwest::Client`.

use bearer_auth::{
    BearerAuthLayer, MockTokenSource, RequestAuth, TokenCache, TokenError, TokenErrorKind,
};
use futures_util::future::join_all;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::support::api::{Api, ok};
use crate::support::stack::{Call, Kind, Stack, token_error};

fn layer(tokens: &MockTokenSource, api: &Api) -> BearerAuthLayer {
    BearerAuthLayer::new(tokens.clone())
        .allow_origin(api.origin())
        .unwrap()
}

#[tokio::test]
async fn requests_carry_a_token_that_is_fetched_once() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::accepting(|_| true).await);
        let stack = Stack::new(kind, &layer(&tokens, &api));
        for _ in 0..3 {
            let response = stack.get(api.url("/x?y=z")).await.unwrap();
            assert_eq!(
                (response.status, &response.body[..]),
                (StatusCode::OK, &b"fine"[..])
            );
        }
        assert_eq!(tokens.fetches(), 1, "{kind:?}");
        assert_eq!(
            api.tokens(),
            vec![Some("mock-token-1".to_owned()); 3],
            "{kind:?}"
        );
        assert_eq!(api.requests()[0].uri, "/x?y=z");
    }
}

#[tokio::test]
async fn an_authorization_header_of_the_caller_is_kept() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::accepting(|_| false).await);
        let stack = Stack::new(kind, &layer(&tokens, &api));
        let own = HeaderValue::from_static("Bearer own");
        let call = Call {
            headers: HeaderMap::from_iter([(AUTHORIZATION, own)]),
            ..Call::get(api.url("/"))
        };
        assert_eq!(
            stack.send(call).await.unwrap().status,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(api.tokens(), [Some("own".to_owned())], "{kind:?}");
        assert_eq!(tokens.fetches(), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn a_request_chooses_its_token_or_none() {
    for kind in Kind::WITH_EXTENSIONS {
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
        assert_eq!((api.requests().len(), tokens.fetches()), (4, 2), "{kind:?}");
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
        assert_eq!(api.requests().len(), 0, "{kind:?}");
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
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().status, StatusCode::OK);
    }
    assert_eq!(tokens.fetches(), 1);
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
}
