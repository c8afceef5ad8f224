//! How far apart the renewals are that refusals cause (BEHAVIOUR D, 21), by a clock that is moved by hand.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource, TokenCache};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use tokio::time::{advance, sleep};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

type Service = BoxCloneService<Request<()>, Response<()>, BoxError>;

/// An API that refuses the first so many tokens, and counts its calls.
struct Api {
    /// Refused are those up to this one.
    revoked: Arc<AtomicUsize>,
    tokens: MockTokenSource,
    cache: TokenCache,
    calls: Arc<AtomicUsize>,
    service: Service,
}

impl Api {
    fn refusing(first: usize, layer: impl FnOnce(BearerAuthLayer) -> BearerAuthLayer) -> Self {
        Self::with(MockTokenSource::new(), first, layer)
    }

    fn with(
        tokens: MockTokenSource,
        first: usize,
        layer: impl FnOnce(BearerAuthLayer) -> BearerAuthLayer,
    ) -> Self {
        let calls = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&calls);
        let revoked = Arc::new(AtomicUsize::new(first));
        let last = Arc::clone(&revoked);
        let inner = service_fn(move |request: Request<()>| {
            counter.fetch_add(1, Ordering::Relaxed);
            let token = request.headers()[AUTHORIZATION].to_str().unwrap();
            let number: usize = token.rsplit('-').next().unwrap().parse().unwrap();
            let mut answer = Response::new(());
            if number <= last.load(Ordering::Relaxed) {
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
                let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
                answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            async { Ok::<_, Infallible>(answer) }
        });
        let layer = layer(BearerAuthLayer::new(tokens.clone()));
        Self {
            revoked,
            tokens,
            cache: layer.cache().clone(),
            calls,
            service: BoxCloneService::new(layer.layer(inner)),
        }
    }

    async fn get(&self) -> StatusCode {
        let request = Request::get("https://api.example.com/").body(()).unwrap();
        let answer = self.service.clone().oneshot(request).await.unwrap();
        // What was begun in the background goes on.
        sleep(Duration::from_millis(1)).await;
        answer.status()
    }

    /// Refuses tokens up to this one.
    fn revoke(&self, last: usize) {
        self.revoked.store(last, Ordering::Relaxed);
    }

    /// Token requests and calls so far.
    fn counts(&self) -> (usize, usize) {
        (self.tokens.fetches(), self.calls.load(Ordering::Relaxed))
    }
}

async fn pass(millis: u64) {
    advance(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn each_refusal_of_the_new_token_doubles_the_spacing() {
    let api = Api::refusing(usize::MAX, |layer| layer);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 2), "one renewal, two calls");
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
async fn a_new_token_that_is_accepted_brings_the_spacing_back() {
    // The first three are refused, the others accepted until they are revoked.
    let api = Api::refusing(3, |layer| layer);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    pass(2_100).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED, "the third");
    assert_eq!(api.counts(), (3, 4));
    pass(4_100).await;
    assert_eq!(api.get().await, StatusCode::OK, "the fourth");
    assert_eq!(api.counts(), (4, 6));
    api.revoke(4);
    pass(1_100).await;
    assert_eq!(api.get().await, StatusCode::OK, "1 s again");
    assert_eq!(api.counts(), (5, 8));
}

#[tokio::test(start_paused = true)]
async fn without_replay_the_renewal_is_begun_at_once_and_the_next_answer_judges() {
    let api = Api::refusing(usize::MAX, BearerAuthLayer::without_replay);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 1), "renewed without another caller");
    pass(1_100).await;
    // The first answer to the new token: it is refused too, so the next renewal is 2 s after the first.
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 2));
    pass(1_000).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn without_replay_an_answer_that_accepts_the_new_token_leaves_the_spacing() {
    let api = Api::refusing(1, BearerAuthLayer::without_replay);
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.get().await, StatusCode::OK);
    assert_eq!(api.counts(), (2, 2));
    api.revoke(2);
    pass(1_100).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (3, 3), "1 s, as before");
}

/// Whoever is answered next judges in place of a caller who has gone.
#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_while_the_token_is_renewed_leaves_the_verdict_to_others() {
    let tokens = MockTokenSource::new();
    let api = Api::with(tokens.clone(), usize::MAX, |layer| layer);
    api.cache.token().await.unwrap();
    let hold = tokens.hold();
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    let call = tokio::spawn(api.service.clone().oneshot(request));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(api.counts(), (2, 1), "refused, and waiting for the second");
    call.abort();
    sleep(Duration::from_millis(1)).await;
    drop(hold);
    pass(1_100).await;
    // With the second token: refused, which widens the spacing to 2 s.
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts(), (2, 2));
    pass(1_000).await;
    assert_eq!(api.get().await, StatusCode::UNAUTHORIZED);
    assert_eq!(api.counts().0, 3);
}
