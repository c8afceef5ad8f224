//! The cost of an API that answers 401 to everything (rule 21 of `docs/behaviour.md`), whatever its
//! challenge says, on tokio's paused clock.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bearer_auth::{AccessToken, BearerAuthLayer, MockTokenSource, TokenCache, source_fn};
use futures_util::future::join_all;
use http::header::WWW_AUTHENTICATE;
use http::{Request, Response, StatusCode};
use tokio::task::yield_now;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceExt, service_fn};

const SPAN: Duration = Duration::from_secs(120);
const REQUESTS: u32 = 1_200;
/// The first token; refreshes after 0, 2, 6 and 14 s; then one every 10 s.
const MOST_FETCHES: u32 = 1 + 4 + 10;

const CHALLENGES: [&[&str]; 10] = [
    &[],
    &["Bearer"],
    &["Bearer realm=\"api\""],
    &["Bearer error=\"invalid_token\""],
    &["Bearer error=\"expired_token\""],
    &["OAuth realm=\"api\", error=\"token expired\""],
    &["Basic realm=\"api\""],
    &["Negotiate", "Basic realm=\"api\"", "Bearer realm=\"api\""],
    &[
        "Basic realm=\"api\"",
        "Bearer error=\"insufficient_scope\"",
        "Bearer error=\"invalid_token\"",
    ],
    &["Bearer error=\"\", error=\"invalid_token\""],
];

/// Sends ten requests per second for two minutes, so many of them at once. Returns the number of
/// calls of the API.
async fn calls(layer: BearerAuthLayer, challenge: &'static [&'static str], at_once: u32) -> u32 {
    let calls = Arc::<AtomicU32>::default();
    let counter = Arc::clone(&calls);
    let api = service_fn(move |_: Request<()>| {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::builder().status(StatusCode::UNAUTHORIZED);
        for line in challenge {
            response = response.header(WWW_AUTHENTICATE, *line);
        }
        async {
            // Requests that are sent at once are answered when all of them have arrived.
            yield_now().await;
            Ok::<_, Infallible>(response.body(()).unwrap())
        }
    });
    let service = layer.layer(api);
    let begin = Instant::now();
    for _ in 0..REQUESTS / at_once {
        let request = || Request::get("https://api.example.com/").body(()).unwrap();
        let burst = (0..at_once).map(|_| service.clone().oneshot(request()));
        for response in join_all(burst).await {
            assert_eq!(response.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
        advance(SPAN * at_once / REQUESTS).await;
    }
    assert_eq!(begin.elapsed(), SPAN, "no request waited");
    calls.load(Ordering::Relaxed)
}

/// Returns the layer over a source that returns a new token each time, and its counter.
fn new_tokens() -> (BearerAuthLayer, impl Fn() -> u32) {
    let tokens = MockTokenSource::new();
    let layer = BearerAuthLayer::new(tokens.clone());
    (layer, move || u32::try_from(tokens.fetches()).unwrap())
}

/// Returns the layer over a source that repeats its token, and its counter.
fn repeated_token() -> (BearerAuthLayer, impl Fn() -> u32) {
    let fetches = Arc::<AtomicU32>::default();
    let counter = Arc::clone(&fetches);
    let source = source_fn(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Ok(AccessToken::new("same")?.with_lifetime(Duration::from_secs(3_600))) }
    });
    let layer = BearerAuthLayer::from_cache(TokenCache::new(source));
    (layer, move || fetches.load(Ordering::Relaxed))
}

/// Checks the number of fetches in two minutes.
fn check(fetches: u32, challenge: &[&str]) {
    assert!(fetches <= MOST_FETCHES, "{fetches} fetches: {challenge:?}");
    assert!(
        fetches >= MOST_FETCHES - 2,
        "a token that helps would not be found: {challenge:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_that_rejects_every_new_token_costs_a_fetch_in_ten_seconds() {
    for challenge in CHALLENGES {
        let (layer, fetches) = new_tokens();
        let calls = calls(layer, challenge, 1).await;
        check(fetches(), challenge);
        assert_eq!(calls, REQUESTS + fetches() - 1, "one replay per refresh");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_rejects_a_repeated_token_costs_a_fetch_in_ten_seconds() {
    for challenge in CHALLENGES {
        let (layer, fetches) = repeated_token();
        let calls = calls(layer, challenge, 1).await;
        check(fetches(), challenge);
        assert_eq!(calls, REQUESTS, "no replay: {challenge:?}");
    }
}

/// The first response to a new token decides, as there is no replay to do so.
#[tokio::test(start_paused = true)]
async fn without_replay_an_api_that_rejects_everything_costs_no_more() {
    for challenge in CHALLENGES {
        let (layer, fetches) = new_tokens();
        let calls = calls(layer.without_replay(), challenge, 1).await;
        check(fetches(), challenge);
        assert_eq!(calls, REQUESTS);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_requests_at_once_to_an_api_that_rejects_everything_cost_no_more() {
    for challenge in CHALLENGES {
        let (layer, fetches) = new_tokens();
        let calls = calls(layer, challenge, 10).await;
        check(fetches(), challenge);
        let replays = 10 * (fetches() - 1);
        assert_eq!(calls, REQUESTS + replays, "one replay each");
    }
}

#[tokio::test(start_paused = true)]
async fn a_401_that_another_token_would_not_help_with_costs_nothing() {
    for challenge in [
        &["Bearer error=\"insufficient_scope\", scope=\"admin\""][..],
        &["Basic realm=\"api\"", "Bearer error=\"invalid_request\""],
    ] {
        let (layer, fetches) = new_tokens();
        let calls = calls(layer, challenge, 10).await;
        assert_eq!((fetches(), calls), (1, REQUESTS), "{challenge:?}");
    }
}
