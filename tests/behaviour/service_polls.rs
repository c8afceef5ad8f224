//! The tower service at the level of polls: readiness, the order of events, and what it holds.

use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bearer_auth::{BearerAuth, BearerAuthLayer, BoxError, MockTokenSource, TokenCache, TokenError};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio_test::task;
use tower::{Layer, Service, service_fn};
use tower_test::mock::{self, Handle, Spawn};

type Sent = Request<&'static str>;
type Got = Response<&'static str>;
type Mocked = Spawn<BearerAuth<mock::Mock<Sent, Got>>>;

/// Returns a service with a token in its cache.
async fn warm_service(tokens: &MockTokenSource) -> (Mocked, Handle<Sent, Got>) {
    let cache = TokenCache::new(tokens.clone());
    cache.token().await.unwrap();
    mock::spawn_layer(BearerAuthLayer::from_cache(cache))
}

/// Returns a service with an empty cache.
fn cold_service(tokens: &MockTokenSource) -> (Mocked, Handle<Sent, Got>) {
    mock::spawn_layer(BearerAuthLayer::new(tokens.clone()))
}

fn request() -> Sent {
    Request::get("https://api.example.com/")
        .body("body")
        .unwrap()
}

fn rejection() -> Got {
    let mut response = Response::new("rejected");
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

fn token(request: &Sent) -> &str {
    request.headers()[AUTHORIZATION].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_service_is_ready_when_the_inner_service_is() {
    let (mut service, mut handle) = warm_service(&MockTokenSource::new()).await;
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    handle.send_error("broken");
    assert!(matches!(service.poll_ready(), Poll::Ready(Err(_))));
}

#[tokio::test(start_paused = true)]
async fn with_a_fresh_token_the_request_is_sent_before_the_first_poll() {
    let (mut service, mut handle) = warm_service(&MockTokenSource::new()).await;
    assert!(service.poll_ready().is_ready());
    let mut call = task::spawn(service.call(request()));
    let (sent, reply) = handle.next_request().await.unwrap();
    assert_eq!(token(&sent), "Bearer mock-token-1");
    assert!(sent.headers()[AUTHORIZATION].is_sensitive());
    reply.send_response(Response::new("fine"));
    let Poll::Ready(Ok(response)) = call.poll() else {
        panic!("must be ready")
    };
    assert_eq!(*response.body(), "fine");
}

#[tokio::test(start_paused = true)]
async fn without_a_token_nothing_is_sent_until_it_is_fetched() {
    let tokens = MockTokenSource::new();
    let hold = tokens.hold();
    let (mut service, mut handle) = cold_service(&tokens);
    assert!(service.poll_ready().is_ready());
    let mut call = task::spawn(service.call(request()));
    assert!(call.poll().is_pending());
    tokio::task::yield_now().await;
    assert!(handle.poll_request().is_pending());
    drop(hold);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(call.is_woken());
    assert!(call.poll().is_pending());
    expect_token(&mut handle, "Bearer mock-token-1").await;
}

async fn expect_token(handle: &mut Handle<Sent, Got>, expected: &str) {
    let (sent, reply) = handle.next_request().await.unwrap();
    assert_eq!(token(&sent), expected);
    assert_eq!(*sent.body(), "body");
    reply.send_response(Response::new("fine"));
}

#[tokio::test(start_paused = true)]
async fn a_replay_waits_until_the_inner_service_is_ready() {
    let tokens = MockTokenSource::new();
    let (mut service, mut handle) = warm_service(&tokens).await;
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let call = tokio::spawn(service.call(request()));
    let (_, reply) = handle.next_request().await.unwrap();
    reply.send_response(rejection());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(tokens.fetches(), 2);
    assert!(
        handle.poll_request().is_pending(),
        "replayed before the inner service was ready"
    );
    handle.allow(1);
    expect_token(&mut handle, "Bearer mock-token-2").await;
    assert_eq!(*call.await.unwrap().unwrap().body(), "fine");
}

#[tokio::test(start_paused = true)]
async fn if_the_inner_service_does_not_get_ready_the_caller_gets_the_rejection() {
    for broken in [false, true] {
        let (mut service, mut handle) = warm_service(&MockTokenSource::new()).await;
        handle.allow(1);
        assert!(service.poll_ready().is_ready());
        let call = tokio::spawn(service.call(request()));
        let (_, reply) = handle.next_request().await.unwrap();
        if broken {
            handle.send_error("broken");
        }
        reply.send_response(rejection());
        let response = call.await.unwrap().unwrap();
        assert_eq!(
            (response.status(), *response.body()),
            (StatusCode::UNAUTHORIZED, "rejected")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn token_errors_and_errors_of_the_inner_service_differ_in_type() {
    let tokens = MockTokenSource::new();
    tokens.fail_next(TokenError::permanent("no"));
    let (mut service, mut handle) = cold_service(&tokens);
    assert!(service.poll_ready().is_ready());
    let error = service.call(request()).await.unwrap_err();
    assert!(error.downcast_ref::<TokenError>().is_some());

    let tokens = MockTokenSource::new();
    let (mut service, mut other) = warm_service(&tokens).await;
    assert!(service.poll_ready().is_ready());
    let call = tokio::spawn(service.call(request()));
    let (_, reply) = other.next_request().await.unwrap();
    reply.send_error("inner");
    let error = call.await.unwrap().unwrap_err();
    assert!(error.downcast_ref::<TokenError>().is_none());
    assert_eq!(error.to_string(), "inner");
    assert!(handle.poll_request().is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_request_to_another_origin_is_forwarded_unchanged() {
    let tokens = MockTokenSource::new();
    let _hold = tokens.hold();
    let (mut service, mut handle) = cold_service(&tokens);
    assert!(service.poll_ready().is_ready());
    let mut plain = request();
    *plain.uri_mut() = "http://api.example.com/".parse().unwrap();
    let _call = service.call(plain);
    let (sent, _) = handle.next_request().await.unwrap();
    assert!(sent.headers().is_empty());
    assert_eq!(tokens.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_completed_future_has_dropped_the_copy_for_the_replay() {
    let body = Arc::new(());
    let layer = BearerAuthLayer::new(MockTokenSource::new()).replay_body::<Arc<()>>();
    layer.cache().token().await.unwrap();
    let inner = service_fn(async |_: Request<Arc<()>>| Ok::<_, TokenError>(Response::new(())));
    let request = Request::get("https://api.example.com/").body(body.clone());
    let mut call = pin!(layer.layer(inner).call(request.unwrap()));
    assert_eq!(
        Arc::strong_count(&body),
        3,
        "the original, the one sent, and the copy"
    );
    call.as_mut().await.unwrap();
    assert_eq!(Arc::strong_count(&body), 1);
}

/// Awaits a call, polls it once more, and returns the message of the panic.
async fn panic_after_completion<F>(call: F, is_expected: fn(&F::Output) -> bool) -> String
where
    F: Future<Output = Result<Got, BoxError>>,
{
    let mut call = Box::pin(call);
    let result = call.as_mut().await;
    assert!(is_expected(&result), "{result:?}");
    let poll = AssertUnwindSafe(|| {
        let mut context = Context::from_waker(Waker::noop());
        call.as_mut().poll(&mut context).is_ready()
    });
    match catch_unwind(poll) {
        Ok(is_ready) => format!("no panic, ready: {is_ready}"),
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_future_polled_after_completion_panics_and_says_so() {
    let inner = service_fn(|_: Request<()>| ready(Ok::<_, BoxError>(Response::new("fine"))));
    let layer = || BearerAuthLayer::new(MockTokenSource::new());
    let call = |layer: BearerAuthLayer, url: &str| {
        let request = Request::get(url).body(()).unwrap();
        layer.layer(inner).call(request)
    };
    let warm = layer();
    warm.cache().token().await.unwrap();

    let url = "https://api.example.com/";
    let with_token = call(warm, url);
    let after_a_fetch = call(layer(), url);
    let without_token = call(layer(), "http://api.example.com/");
    let without_choice = call(layer().require_request_auth(), url);
    for (name, message) in [
        (
            "with a token",
            panic_after_completion(with_token, Result::is_ok).await,
        ),
        (
            "after a fetch",
            panic_after_completion(after_a_fetch, Result::is_ok).await,
        ),
        (
            "without a token",
            panic_after_completion(without_token, Result::is_ok).await,
        ),
        (
            "failed",
            panic_after_completion(without_choice, Result::is_err).await,
        ),
    ] {
        assert!(
            message.contains("polled after completion"),
            "{name}: {message}"
        );
    }
}
