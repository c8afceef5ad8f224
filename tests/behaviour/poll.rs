//! The tower service at the level of polls: readiness, the order of events, what is kept.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, MockTokenSource, TokenCache, TokenError};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio_test::task;
use tower_test::mock::{self, Handle, Spawn};

type Sent = Request<&'static str>;
type Got = Response<&'static str>;
type Mocked = Spawn<bearer_auth::BearerAuth<mock::Mock<Sent, Got>>>;

/// A service whose cache is warm, if `warm`.
async fn service(tokens: &MockTokenSource, warm: bool) -> (Mocked, Handle<Sent, Got>) {
    let cache = TokenCache::new(tokens.clone());
    if warm {
        cache.token().await.unwrap();
    }
    mock::spawn_layer(BearerAuthLayer::from_cache(cache))
}

fn request() -> Sent {
    Request::get("https://api.example.com/")
        .body("body")
        .unwrap()
}

fn refusal() -> Got {
    let mut response = Response::new("refused");
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

fn token(request: &Sent) -> &str {
    request.headers()[AUTHORIZATION].to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services() {
    let (mut service, mut handle) = service(&MockTokenSource::new(), true).await;
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    handle.send_error("broken");
    assert!(matches!(
        service.poll_ready(),
        std::task::Poll::Ready(Err(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_costs_no_turn() {
    let (mut service, mut handle) = service(&MockTokenSource::new(), true).await;
    assert!(service.poll_ready().is_ready());
    // The inner service is called within `call`: nothing has been polled.
    let mut answer = task::spawn(service.call(request()));
    let (sent, reply) = handle.next_request().await.unwrap();
    assert_eq!(token(&sent), "Bearer mock-token-1");
    assert!(sent.headers()[AUTHORIZATION].is_sensitive());
    reply.send_response(Response::new("fine"));
    let std::task::Poll::Ready(Ok(answer)) = answer.poll() else {
        panic!("must be ready")
    };
    assert_eq!(*answer.body(), "fine");
}

#[tokio::test(start_paused = true)]
async fn a_cold_request_waits_and_nothing_is_sent_meanwhile() {
    let tokens = MockTokenSource::new();
    let hold = tokens.hold();
    let (mut service, mut handle) = service(&tokens, false).await;
    assert!(service.poll_ready().is_ready());
    let mut answer = task::spawn(service.call(request()));
    assert!(answer.poll().is_pending());
    tokio::task::yield_now().await;
    assert!(handle.poll_request().is_pending());
    drop(hold);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(answer.is_woken());
    assert!(answer.poll().is_pending());
    expect_token(&mut handle, "Bearer mock-token-1").await;
}

async fn expect_token(handle: &mut Handle<Sent, Got>, expected: &str) {
    let (sent, reply) = handle.next_request().await.unwrap();
    assert_eq!(token(&sent), expected);
    assert_eq!(*sent.body(), "body");
    reply.send_response(Response::new("fine"));
}

#[tokio::test(start_paused = true)]
async fn the_service_is_made_ready_again_for_the_second_sending() {
    let tokens = MockTokenSource::new();
    let (mut service, mut handle) = service(&tokens, true).await;
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(request()));
    let (_, reply) = handle.next_request().await.unwrap();
    reply.send_response(refusal());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(tokens.fetches(), 2);
    assert!(
        handle.poll_request().is_pending(),
        "not sent while the inner service is not ready"
    );
    handle.allow(1);
    expect_token(&mut handle, "Bearer mock-token-2").await;
    assert_eq!(*answer.await.unwrap().unwrap().body(), "fine");
}

#[tokio::test(start_paused = true)]
async fn not_ready_for_the_second_sending_the_refusal_is_the_answer() {
    for broken in [false, true] {
        let (mut service, mut handle) = service(&MockTokenSource::new(), true).await;
        handle.allow(1);
        assert!(service.poll_ready().is_ready());
        let answer = tokio::spawn(service.call(request()));
        let (_, reply) = handle.next_request().await.unwrap();
        if broken {
            handle.send_error("broken");
        }
        reply.send_response(refusal());
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(
            (answer.status(), *answer.body()),
            (StatusCode::UNAUTHORIZED, "refused")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_both_sides_can_be_told_apart() {
    let tokens = MockTokenSource::new();
    tokens.fail_next(TokenError::permanent("no"));
    let (mut service, mut handle) = service(&tokens, false).await;
    assert!(service.poll_ready().is_ready());
    let error = service.call(request()).await.unwrap_err();
    assert!(error.downcast_ref::<TokenError>().is_some());

    let tokens = MockTokenSource::new();
    let (mut service, mut other) = self::service(&tokens, true).await;
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(request()));
    let (_, reply) = other.next_request().await.unwrap();
    reply.send_error("inner");
    let error = answer.await.unwrap().unwrap_err();
    assert!(error.downcast_ref::<TokenError>().is_none());
    assert_eq!(error.to_string(), "inner");
    assert!(handle.poll_request().is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_for_a_token_is_passed_on_as_it_is() {
    let tokens = MockTokenSource::new();
    let _hold = tokens.hold();
    let (mut service, mut handle) = service(&tokens, false).await;
    assert!(service.poll_ready().is_ready());
    let mut plain = request();
    *plain.uri_mut() = "http://api.example.com/".parse().unwrap();
    let _answer = service.call(plain);
    let (sent, _) = handle.next_request().await.unwrap();
    assert!(sent.headers().is_empty());
    assert_eq!(tokens.fetches(), 0);
}

/// What was kept for a second sending goes with the answer, not with the future.
#[tokio::test(start_paused = true)]
async fn a_future_that_has_ended_holds_nothing() {
    let body = std::sync::Arc::new(());
    let layer = BearerAuthLayer::new(MockTokenSource::new()).replay_body::<std::sync::Arc<()>>();
    layer.cache().token().await.unwrap();
    let inner = tower::service_fn(async |_: Request<std::sync::Arc<()>>| {
        Ok::<_, TokenError>(Response::new(()))
    });
    let request = Request::get("https://api.example.com/").body(body.clone());
    let mut service = tower::Layer::layer(&layer, inner);
    let call = tower::Service::call(&mut service, request.unwrap());
    let mut call = std::pin::pin!(call);
    assert_eq!(std::sync::Arc::strong_count(&body), 3, "sent, and kept");
    call.as_mut().await.unwrap();
    assert_eq!(std::sync::Arc::strong_count(&body), 1);
}
