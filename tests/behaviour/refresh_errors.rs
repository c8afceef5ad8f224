//! A 401 says why its own refresh failed: the `TokenError` is in its extensions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bearer_auth::{
    AccessToken, BearerAuthLayer, MockTokenSource, TokenCache, TokenError, TokenErrorKind,
    TokenRequest,
};
use futures_util::stream;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::api::{Api, INVALID_TOKEN, rejected};
use crate::support::clock::ManualClock;
use crate::support::stack::Kind;

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

/// A body that cannot be sent twice.
struct Streamed;

/// A cache with a token, and an API that rejects every token in one of two ways.
struct Refused {
    tokens: MockTokenSource,
    clock: ManualClock,
    layer: BearerAuthLayer,
    api: Api,
    challenge: &'static str,
}

/// A body that cannot be copied.
macro_rules! streamed {
    ($reqwest:ident) => {
        $reqwest::Body::wrap_stream(stream::iter([Ok::<_, Infallible>("part")]))
    };
}

/// Sends a request through the middleware of a version of reqwest-middleware.
macro_rules! by_middleware {
    ($reqwest:ident, $middleware:ident, $url:expr, $layer:expr) => {{
        let client = $middleware::ClientBuilder::new($reqwest::Client::new());
        let client = client.with($layer.clone()).build();
        let request = client.post($url).body(streamed!($reqwest));
        let mut response = request.send().await.unwrap();
        let extensions = std::mem::take(response.extensions_mut());
        (response.status(), extensions)
    }};
}

/// Sends a request through the tower service of a version of reqwest.
macro_rules! by_tower {
    ($reqwest:ident, $url:expr, $layer:expr) => {{
        let service = $layer.layer($reqwest::Client::new());
        let mut request = $reqwest::Request::new(Method::POST, $url.parse().unwrap());
        *request.body_mut() = Some(streamed!($reqwest));
        let mut response = service.oneshot(request).await.unwrap();
        let extensions = std::mem::take(response.extensions_mut());
        (response.status(), extensions)
    }};
}

impl Refused {
    /// The clock moves by this many seconds between a request and its 401.
    async fn by(challenge: &'static str, latency: f64) -> Self {
        let (tokens, clock) = (MockTokenSource::new(), ManualClock::new());
        let cache = TokenCache::builder(tokens.clone()).clock(clock.clone());
        let layer = warm(BearerAuthLayer::from_cache(cache.build().unwrap())).await;
        let api = {
            let clock = clock.clone();
            Api::start(move |_| {
                clock.advance(latency, latency);
                rejected(challenge)
            })
            .await
        };
        Self {
            tokens,
            clock,
            layer,
            api,
            challenge,
        }
    }

    /// Sends a request that cannot be replayed. Returns the error in its 401.
    async fn post(&self, kind: Kind) -> Option<TokenError> {
        let (url, layer) = (self.api.url("/"), &self.layer);
        let (status, extensions) = match kind {
            Kind::Middleware => by_middleware!(reqwest, reqwest_middleware, url, layer),
            Kind::Middleware04 => {
                by_middleware!(reqwest_0_12, reqwest_middleware_0_4, url, layer)
            }
            Kind::TowerReqwest => by_tower!(reqwest, url, layer),
            Kind::TowerReqwest012 => by_tower!(reqwest_0_12, url, layer),
            Kind::TowerHttp => {
                let challenge = HeaderValue::from_static(self.challenge);
                let inner = service_fn(move |_: Request<Streamed>| {
                    let response = Response::builder()
                        .status(StatusCode::UNAUTHORIZED)
                        .header(WWW_AUTHENTICATE, challenge.clone());
                    async { Ok::<_, Infallible>(response.body(()).unwrap()) }
                });
                let request = Request::post(url).body(Streamed).unwrap();
                let response = layer.layer(inner).oneshot(request).await.unwrap();
                let (parts, ()) = response.into_parts();
                (parts.status, parts.extensions)
            }
        };
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        extensions.get().cloned()
    }

    /// Waits until the source has been called so often. Its fetches end as soon as they start.
    async fn fetches(&self, count: usize) {
        let counted = async {
            while self.tokens.fetches() < count {
                yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), counted)
            .await
            .expect("no refresh started");
    }
}

const OTHER_SCHEME: &str = "Basic realm=\"another way in\"";

#[tokio::test]
async fn a_401_that_cannot_be_replayed_says_that_the_source_is_paused() {
    for kind in Kind::ALL {
        for challenge in [INVALID_TOKEN, OTHER_SCHEME] {
            let refused = Refused::by(challenge, 0.0).await;
            refused
                .tokens
                .fail_next(TokenError::permanent("no").with_retry_after(Duration::from_secs(60)));
            // The token is due, and its refresh in the background fails.
            refused.clock.advance(3_500.0, 3_500.0);
            refused.layer.cache().token().await.unwrap();
            refused.fetches(2).await;
            refused.clock.advance(20.0, 20.0);
            let error = refused.post(kind).await.expect("the error");
            assert!(error.is_paused(), "{kind:?}");
            assert_eq!(error.kind(), TokenErrorKind::Source, "{kind:?}");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(40)));
            assert_eq!(error.token_request(), Some(&TokenRequest::default()));
            assert_eq!(refused.tokens.fetches(), 2, "{kind:?}: not called");
        }
    }
}

/// The first of two rejections starts a refresh, which has failed by the time of the second.
#[tokio::test]
async fn a_401_that_cannot_be_replayed_says_that_the_refresh_of_another_failed() {
    for kind in Kind::ALL {
        let refused = Refused::by(OTHER_SCHEME, 0.0).await;
        refused.tokens.fail_next(TokenError::permanent("no"));
        let error = refused.post(kind).await;
        assert!(error.is_none(), "{kind:?}: the refresh has only started");
        refused.fetches(2).await;
        let error = refused.post(kind).await.expect("the error");
        assert!(error.is_paused(), "{kind:?}");
        assert_eq!(refused.tokens.fetches(), 2, "{kind:?}: not called");
    }
}

#[tokio::test]
async fn a_401_that_cannot_be_replayed_says_that_the_cache_is_closed() {
    for kind in Kind::ALL {
        let refused = Refused::by(INVALID_TOKEN, 0.0).await;
        refused.layer.cache().close().await;
        let error = refused.post(kind).await.expect("the error");
        assert_eq!(error.kind(), TokenErrorKind::Closed, "{kind:?}");
        assert_eq!(refused.tokens.fetches(), 1, "{kind:?}");
    }
}

/// No other caller is needed for the refresh of a token that was about to expire anyway.
#[tokio::test]
async fn a_401_to_a_late_token_starts_the_refresh_without_a_replay() {
    for kind in [Kind::Middleware, Kind::TowerReqwest] {
        let refused = Refused::by(INVALID_TOKEN, 3_595.0).await;
        assert!(refused.post(kind).await.is_none(), "{kind:?}");
        refused.fetches(2).await;
    }
}
