//! The inner service's readiness: no permit is held while a request waits for a token, and an inner
//! layer that sheds the replay costs the caller nothing.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, BoxError, ClientCredentials, MockTokenSource, RequestAuth, TokenError,
    TokenErrorKind,
};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, TryFutureExt, join_all, ready};
use http::header::AUTHORIZATION;
use http::{Extensions, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_test::task;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

type Sent = Request<&'static str>;
type Tokens = Arc<Mutex<Vec<String>>>;

fn request() -> Sent {
    Request::post("https://api.example.com/")
        .body("body")
        .unwrap()
}

fn with_status<B: Default>(status: StatusCode) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = status;
    response
}

fn token<B>(request: &Request<B>) -> String {
    request.headers()[AUTHORIZATION]
        .to_str()
        .unwrap()
        .to_owned()
}

/// An API that rejects the first token, behind a limit.
fn limited_api(
    permits: &Arc<Semaphore>,
) -> (
    Tokens,
    impl Service<Sent, Response = Response<()>, Error = Infallible, Future: Send> + Clone + Send + use<>,
) {
    let tokens = Tokens::default();
    let received = Arc::clone(&tokens);
    let api = service_fn(move |request: Sent| {
        received.lock().unwrap().push(token(&request));
        let status = match &*token(&request) {
            "Bearer mock-token-1" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::OK,
        };
        async move { Ok::<_, Infallible>(with_status(status)) }
    });
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(permits));
    (tokens, limit.layer(api))
}

/// The first request waits for its token, a rejected one for the next token, and both need the
/// permit for it.
#[tokio::test(start_paused = true)]
async fn one_permit_for_the_token_transport_and_the_inner_service_suffices() {
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::new(Semaphore::new(1)));
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetches);
    let endpoint = service_fn(move |_: Request<Full<Bytes>>| {
        let fetch = count.fetch_add(1, Ordering::Relaxed) + 1;
        let body = format!(
            r#"{{"access_token": "mock-token-{fetch}", "token_type": "Bearer", "expires_in": 3600}}"#
        );
        async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(body))) }
    });
    let source = ClientCredentials::builder("https://auth.example.com/token")
        .client_id("id")
        .client_secret("secret")
        .transport(limit.layer(endpoint))
        .build()
        .unwrap();
    let api = service_fn(async |request: Sent| {
        let status = match &*token(&request) {
            "Bearer mock-token-1" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::OK,
        };
        Ok::<_, Infallible>(with_status::<()>(status))
    });
    let service = BearerAuthLayer::new(source).layer(limit.layer(api));
    let start = Instant::now();
    let calls = (0..10).map(|_| service.clone().oneshot(request()));
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(fetches.load(Ordering::Relaxed), 2);
    assert!(start.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn no_permit_is_held_while_a_request_waits_for_a_token() {
    let permits = Arc::new(Semaphore::new(1));
    let tokens = MockTokenSource::new();
    let hold = tokens.hold();
    let (received, api) = limited_api(&permits);
    let mut service = BearerAuthLayer::new(tokens.clone()).layer(api);
    service.ready().await.unwrap();
    assert_eq!(permits.available_permits(), 0, "ready");
    let mut call = task::spawn(service.call(request()));
    assert!(call.poll().is_pending());
    assert_eq!(permits.available_permits(), 1, "waiting");
    drop(hold);
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    let received = received.lock().unwrap();
    assert_eq!(*received, ["Bearer mock-token-1", "Bearer mock-token-2"]);
    assert_eq!(permits.available_permits(), 1, "afterwards");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_without_being_sent_gives_its_permit_back() {
    let permits = Arc::new(Semaphore::new(1));
    let (_, api) = limited_api(&permits);
    let layer = BearerAuthLayer::new(MockTokenSource::new()).require_request_auth();
    let mut service = layer.layer(api);
    service.ready().await.unwrap();
    let error = service.call(request()).await.unwrap_err();
    let error = error.downcast_ref::<TokenError>().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::RequestAuthMissing);
    assert_eq!(permits.available_permits(), 1);

    let mut chosen = request();
    chosen.extensions_mut().insert(RequestAuth::scope("x"));
    let response = service.ready().await.unwrap().call(chosen).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_fails_after_the_wait_for_a_token_is_the_callers_error() {
    let tokens = MockTokenSource::new();
    let hold = tokens.hold();
    let layer = BearerAuthLayer::new(tokens.clone());
    let (mut service, mut handle) = mock::spawn_layer::<Sent, Response<()>, _>(layer);
    assert!(service.poll_ready().is_ready());
    let mut call = task::spawn(service.call(request()));
    assert!(call.poll().is_pending());
    handle.send_error("broken");
    drop(hold);
    let result = timeout(Duration::from_secs(1), call).await;
    let error = result.expect("an end").unwrap_err();
    assert!(error.downcast_ref::<TokenError>().is_none());
    assert_eq!(error.to_string(), "broken");
}

/// The request waits for a permit longer than its token lives.
#[tokio::test(start_paused = true)]
async fn a_token_that_expires_while_the_request_waits_for_the_service_is_replaced() {
    let permits = Arc::new(Semaphore::new(1));
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(60));
    let hold = tokens.hold();
    let (received, api) = limited_api(&permits);
    let mut service = BearerAuthLayer::new(tokens.clone()).layer(api);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert!(call.poll().is_pending());
    let permit = permits.try_acquire().unwrap();
    drop(hold);
    // The test's clock does not run before all tasks are idle, so the token is there afterwards.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(call.is_woken());
    assert!(call.poll().is_pending(), "waits for the permit");
    tokio::time::advance(Duration::from_secs(61)).await;
    drop(permit);
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
    assert_eq!(*received.lock().unwrap(), ["Bearer mock-token-2"]);
    assert_eq!(tokens.fetches(), 2);
}

/// Sheds load, as `tower::load_shed::LoadShed` does: always ready, and a call fails if the inner
/// service was not ready.
#[derive(Clone)]
struct LoadShed<S> {
    inner: S,
    is_ready: bool,
}

impl<S> Service<Sent> for LoadShed<S>
where
    S: Service<Sent, Response: Send + 'static, Error = Infallible, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.is_ready = self.inner.poll_ready(cx).is_ready();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Sent) -> Self::Future {
        if std::mem::take(&mut self.is_ready) {
            let response = self.inner.call(request);
            response.map_err(|error| match error {}).boxed()
        } else {
            ready(Err("overloaded".into())).boxed()
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_rejection_is_the_response_if_an_inner_layer_sheds_the_replay() {
    let permits = Arc::new(Semaphore::new(1));
    let tokens = MockTokenSource::new();
    let (received, api) = limited_api(&permits);
    let layer = BearerAuthLayer::new(tokens.clone());
    layer.cache().token().await.unwrap();
    let hold = tokens.hold();
    let inner = LoadShed {
        inner: api,
        is_ready: false,
    };
    let service = layer.layer(inner);
    let mut call = task::spawn(service.oneshot(request()));
    assert!(call.poll().is_pending(), "waits for another token");
    let _permit = permits.try_acquire().unwrap();
    drop(hold);
    let response = call.await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.extensions().get::<TokenError>().is_none());
    assert_eq!(tokens.fetches(), 2);
    assert_eq!(*received.lock().unwrap(), ["Bearer mock-token-1"]);
}

for_both_reqwests! {
    /// Answers 401 to the first request. To others it returns an error, after a turn if `is_late`.
    struct FailingReplay {
        is_late: bool,
        calls: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl reqwest_middleware::Middleware for FailingReplay {
        async fn handle(
            &self,
            request: reqwest::Request,
            _: &mut Extensions,
            _: reqwest_middleware::Next<'_>,
        ) -> reqwest_middleware::Result<reqwest::Response> {
            if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
                use reqwest::ResponseBuilderExt;

                let response = Response::builder()
                    .status(StatusCode::UNAUTHORIZED)
                    .url(request.url().clone());
                return Ok(response.body("the reason").unwrap().into());
            }
            if self.is_late {
                tokio::task::yield_now().await;
            }
            Err(reqwest_middleware::Error::middleware(
                std::io::Error::other("overloaded"),
            ))
        }
    }

    #[tokio::test]
    async fn reqwest_middleware_returns_the_rejection_if_the_replay_fails_at_once() {
        for is_late in [false, true] {
            let tokens = MockTokenSource::new();
            let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
                .with(BearerAuthLayer::new(tokens.clone()))
                .with(FailingReplay {
                    is_late,
                    calls: AtomicUsize::new(0),
                })
                .build();
            let result = client.get("https://api.example.com/").send().await;
            assert_eq!(tokens.fetches(), 2);
            match result {
                Ok(response) => {
                    assert!(!is_late);
                    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
                    assert_eq!(response.text().await.unwrap(), "the reason");
                }
                Err(error) => {
                    assert!(is_late);
                    assert!(format!("{error:?}").contains("overloaded"));
                }
            }
        }
    }
}

/// The inner service may wait until the connection of the rejection is free.
#[tokio::test(start_paused = true)]
async fn the_rejection_is_held_through_the_first_poll_of_the_replay_only() {
    let rejection: Arc<Mutex<Weak<()>>> = Arc::default();
    let last = Arc::clone(&rejection);
    let api = service_fn(move |request: Sent| {
        let last = Arc::clone(&last);
        async move {
            if token(&request) == "Bearer mock-token-1" {
                let mut response = with_status::<Arc<()>>(StatusCode::UNAUTHORIZED);
                *response.body_mut() = Arc::new(());
                *last.lock().unwrap() = Arc::downgrade(response.body());
                return Ok(response);
            }
            let is_held = || last.lock().unwrap().strong_count() > 0;
            assert!(is_held(), "at the first poll");
            tokio::task::yield_now().await;
            assert!(!is_held(), "at the second poll");
            Err("failed later")
        }
    });
    let service = BearerAuthLayer::new(MockTokenSource::new()).layer(api);
    let error = service.oneshot(request()).await.unwrap_err();
    assert_eq!(error.to_string(), "failed later");
    assert_eq!(rejection.lock().unwrap().strong_count(), 0);
}
