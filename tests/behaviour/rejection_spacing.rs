//! The minimum time between refreshes after rejections (rule 21 of `docs/behaviour.md`), on tokio's
//! paused clock.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource, TokenCache};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::{advance, sleep};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::api::INVALID_TOKEN;

type Service = BoxCloneService<Request<()>, Response<()>, BoxError>;

/// An API that rejects the first few tokens and counts its calls.
struct Api {
    /// The number of the last rejected token.
    last_rejected: Arc<AtomicUsize>,
    tokens: MockTokenSource,
    cache: TokenCache,
    calls: Arc<AtomicUsize>,
    service: Service,
}

impl Api {
    fn rejecting(last: usize, layer: impl FnOnce(BearerAuthLayer) -> BearerAuthLayer) -> Self {
        Self::with(MockTokenSource::new(), last, layer)
    }

    fn with(
        tokens: MockTokenSource,
        last_rejected: usize,
        layer: impl FnOnce(BearerAuthLayer) -> BearerAuthLayer,
    ) -> Self {
        let calls = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&calls);
        let last_rejected = Arc::new(AtomicUsize::new(last_rejected));
        let last = Arc::clone(&last_rejected);
        let inner = service_fn(move |request: Request<()>| {
            counter.fetch_add(1, Ordering::Relaxed);
            let token = request.headers()[AUTHORIZATION].to_str().unwrap();
            let number: usize = token.rsplit('-').next().unwrap().parse().unwrap();
            let mut response = Response::new(());
            if number <= last.load(Ordering::Relaxed) {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                let challenge = HeaderValue::from_static(INVALID_TOKEN);
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            async { Ok::<_, Infallible>(response) }
        });
        let layer = layer(BearerAuthLayer::new(tokens.clone()));
        Self {
            last_rejected,
            tokens,
            cache: layer.cache().clone(),
            calls,
            service: BoxCloneService::new(layer.layer(inner)),
        }
    }

    async fn get(&self) -> StatusCode {
        let request = Request::get("https://api.example.com/").body(()).unwrap();
        let response = self.service.clone().oneshot(request).await.unwrap();
        // Lets a fetch in the background run.
        sleep(Duration::from_millis(1)).await;
        response.status()
    }

    /// Rejects tokens up to this one from now on.
    fn revoke(&self, last: usize) {
        self.last_rejected.store(last, Ordering::Relaxed);
    }

    /// Returns the numbers of token requests and of calls so far.
    fn counts(&self) -> (usize, usize) {
        (self.tokens.fetches(), self.calls.load(Ordering::Relaxed))
    }
}

async fn pass(millis: u64) {
    advance(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn each_rejection_of_the_new_token_doubles_the_spacing() {
    let api = Api::rejecting(usize::MAX, |layer| layer);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 2), "one refresh, two calls");
    for (wait, counts) in [
        (1_500, (2, 3)),
        // 2 s after the first.
        (600, (3, 5)),
        (3_800, (3, 6)),
        // 4 s after the second, then 8 s, then 10 s.
        (300, (4, 8)),
        (7_800, (4, 9)),
        (300, (5, 11)),
        (9_800, (5, 12)),
        (300, (6, 14)),
        (9_800, (6, 15)),
        (300, (7, 17)),
    ] {
        pass(wait).await;
        assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
        assert_eq!(api.counts(), counts);
    }
}

#[tokio::test(start_paused = true)]
async fn an_accepted_replay_resets_the_spacing() {
    // The first three tokens are rejected.
    let api = Api::rejecting(3, |layer| layer);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    pass(2_100).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED, "the third");
    assert_eq!(api.counts(), (3, 4));
    pass(4_100).await;
    assert_eq!(api.get().await, StatusCode::OK, "the fourth");
    assert_eq!(api.counts(), (4, 6));
    api.revoke(4);
    pass(1_100).await;
    assert_eq!(api.get().await, StatusCode::OK, "the spacing is 1 s again");
    assert_eq!(api.counts(), (5, 8));
}

#[tokio::test(start_paused = true)]
async fn without_replay_the_refresh_starts_at_once_and_the_next_response_sets_the_spacing() {
    let api = Api::rejecting(usize::MAX, BearerAuthLayer::without_replay);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 1), "refreshed without another caller");
    pass(1_100).await;
    // The first response to the new token rejects it too, so the next refresh may start 2 s after
    // the first.
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 2));
    pass(1_000).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn without_replay_an_accepted_token_keeps_the_spacing() {
    let api = Api::rejecting(1, BearerAuthLayer::without_replay);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.get().await, StatusCode::OK);
    assert_eq!(api.counts(), (2, 2));
    api.revoke(2);
    pass(1_100).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (3, 3), "the spacing is still 1 s");
}

/// The next response to the new token counts in place of the cancelled replay.
#[tokio::test(start_paused = true)]
async fn if_the_replaying_caller_is_cancelled_the_next_response_sets_the_spacing() {
    let tokens = MockTokenSource::new();
    let api = Api::with(tokens.clone(), usize::MAX, |layer| layer);
    api.cache.token().await.unwrap();
    let hold = tokens.hold();
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    let call = tokio::spawn(api.service.clone().oneshot(request));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(
        api.counts(),
        (2, 1),
        "rejected, and waiting for the second token"
    );
    call.abort();
    sleep(Duration::from_millis(1)).await;
    drop(hold);
    pass(1_100).await;
    // The second token is rejected too, which doubles the spacing to 2 s.
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 2));
    pass(1_000).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts().0, 3);
}

/// The replay that a rejection caused is given up, after others were accepted with the new token.
#[tokio::test(start_paused = true)]
async fn an_acceptance_by_any_request_keeps_the_spacing() {
    let tokens = MockTokenSource::new();
    let valid = Arc::new(AtomicUsize::new(1));
    let api = {
        let valid = Arc::clone(&valid);
        service_fn(move |request: Request<()>| {
            let expected = format!("Bearer mock-token-{}", valid.load(Ordering::Relaxed));
            let is_accepted = request.headers()[AUTHORIZATION] == expected;
            async move {
                if is_accepted && request.uri().path() == "/hangs" {
                    std::future::pending::<()>().await;
                }
                let mut response = Response::new(());
                if !is_accepted {
                    let challenge = HeaderValue::from_static(INVALID_TOKEN);
                    let headers = response.headers_mut();
                    headers.insert(WWW_AUTHENTICATE, challenge);
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let service = BearerAuthLayer::new(tokens.clone()).layer(api);
    let get = |path: &str| {
        let request = Request::get(format!("https://api.example.com{path}"));
        service.clone().oneshot(request.body(()).unwrap())
    };
    assert_eq!(get("/").await.unwrap().status(), StatusCode::OK);
    valid.store(2, Ordering::Relaxed);
    let given_up = tokio::spawn(get("/hangs"));
    sleep(Duration::from_millis(10)).await;
    for _ in 0..3 {
        assert_eq!(get("/").await.unwrap().status(), StatusCode::OK);
    }
    given_up.abort();
    sleep(Duration::from_millis(990)).await;
    valid.store(3, Ordering::Relaxed);
    assert_eq!(
        get("/").await.unwrap().status(),
        StatusCode::OK,
        "1 s later"
    );
    assert_eq!(tokens.fetches(), 3);
}
