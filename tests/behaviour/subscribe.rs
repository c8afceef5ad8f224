//! A stream of tokens, for connections that outlive a token.

use std::time::Duration;

use bearer_auth::{
    AccessToken, BearerAuthLayer, MockTokenSource, TokenCache, TokenError, TokenRequest,
    TokenSubscription,
};
use futures_util::{FutureExt, StreamExt};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, ServiceExt, service_fn};

const LIFE: Duration = Duration::from_secs(900);

fn tokens() -> MockTokenSource {
    MockTokenSource::new().with_lifetime(LIFE)
}

fn subscribe(cache: &TokenCache) -> TokenSubscription {
    cache.subscribe(&TokenRequest::default())
}

/// Returns the next token and the seconds that it took.
async fn next(stream: &mut TokenSubscription) -> (String, u64) {
    let started = Instant::now();
    let token = stream.next().await.expect("the cache is not closed");
    (
        token.expose_secret().to_owned(),
        started.elapsed().as_secs(),
    )
}

fn is_pending(stream: &mut TokenSubscription) -> bool {
    stream.next().now_or_never().is_none()
}

#[tokio::test(start_paused = true)]
async fn the_current_token_comes_first_then_each_new_one_ahead_of_expiry() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let mut stream = subscribe(&cache);
    assert_eq!(tokens.fetches(), 0, "nothing happens before the first poll");
    assert_eq!(next(&mut stream).await, ("mock-token-1".to_owned(), 0));
    for number in 2..5 {
        let (token, after) = next(&mut stream).await;
        assert_eq!(token, format!("mock-token-{number}"));
        assert!((800..=846).contains(&after), "{after} s");
    }
    assert_eq!(tokens.fetches(), 4, "as often as needed");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_others_fetch_are_returned() {
    let cache = TokenCache::new(tokens());
    let mut stream = subscribe(&cache);
    next(&mut stream).await;
    assert!(is_pending(&mut stream));
    advance(Duration::from_secs(850)).await;
    cache.token().await.unwrap();
    assert_eq!(next(&mut stream).await, ("mock-token-2".to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_replaced_meanwhile_is_left_out() {
    let cache = TokenCache::new(tokens());
    let mut stream = subscribe(&cache);
    next(&mut stream).await;
    for _ in 0..2 {
        cache.invalidate(&cache.token().await.unwrap());
        cache.token().await.unwrap();
    }
    assert_eq!(next(&mut stream).await, ("mock-token-3".to_owned(), 0));
    assert!(is_pending(&mut stream));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_invalidated_is_replaced_at_once() {
    let cache = TokenCache::new(tokens());
    let mut stream = subscribe(&cache);
    let token = stream.next().await.unwrap();
    let invalidate = async {
        sleep(Duration::from_secs(5)).await;
        cache.invalidate(&token);
    };
    let (replaced, ()) = tokio::join!(next(&mut stream), invalidate);
    assert_eq!(replaced, ("mock-token-2".to_owned(), 5));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_an_api_rejects_is_replaced() {
    let layer = BearerAuthLayer::new(tokens());
    let mut stream = subscribe(layer.cache());
    next(&mut stream).await;
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        if request.headers()[AUTHORIZATION] == "Bearer mock-token-1" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, std::convert::Infallible>(response)
    }));
    let request = Request::get("https://api.example.com").body(()).unwrap();
    let (replaced, response) = tokio::join!(next(&mut stream), service.oneshot(request));
    assert_eq!(replaced, ("mock-token-2".to_owned(), 0));
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_it_tries_again_when_the_pause_ends() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let pause = |secs| TokenError::permanent("no").with_retry_after(Duration::from_secs(secs));
    tokens.fail_next(pause(10));
    tokens.fail_next(pause(300));
    let mut stream = subscribe(&cache);
    assert_eq!(next(&mut stream).await, ("mock-token-1".to_owned(), 310));
    assert_eq!(tokens.fetches(), 3);

    tokens.fail_next(pause(20));
    let (token, after) = next(&mut stream).await;
    assert_eq!(token, "mock-token-2");
    assert!((820..=866).contains(&after), "{after} s");
}

/// An outage that lasts beyond the life of the token.
#[tokio::test(start_paused = true)]
async fn it_outlives_the_token() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let mut stream = subscribe(&cache);
    next(&mut stream).await;
    tokens.fail_times(100, TokenError::permanent("no"));
    let end = async {
        sleep(Duration::from_secs(1_000)).await;
        assert!(cache.status().last_error().is_some());
        tokens.clear_failures();
    };
    let (token, ()) = tokio::join!(next(&mut stream), end);
    assert_eq!(token.0, "mock-token-2");
    assert!((1_000..=1_080).contains(&token.1), "{} s", token.1);
    assert!(tokens.fetches() < 30, "{}", tokens.fetches());
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_not_new() {
    let cache = TokenCache::new(bearer_auth::source_fn(async |_| {
        Ok(AccessToken::new("same")?.with_lifetime(LIFE))
    }));
    let mut stream = subscribe(&cache);
    stream.next().await.unwrap();
    let more = tokio::time::timeout(LIFE * 5, stream.next());
    more.await.unwrap_err();
    assert!(cache.status().is_ready(), "it was refreshed all the same");
}

#[tokio::test(start_paused = true)]
async fn only_closing_ends_it() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let mut stream = subscribe(&cache);
    let mut waiting = cache.subscribe(&TokenRequest::scope("a"));
    let hold = tokens.hold();
    let close = async {
        sleep(Duration::from_secs(1)).await;
        cache.close().await;
    };
    let started = Instant::now();
    let (token, ()) = tokio::join!(waiting.next(), close);
    assert!(token.is_none(), "it waited for its first token");
    assert_eq!(started.elapsed(), Duration::from_secs(1), "at once");
    assert!(stream.next().await.is_none(), "it was not polled before");
    assert!(stream.next().await.is_none());
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_it_also_with_a_usable_token() {
    let cache = TokenCache::new(tokens());
    let mut stream = subscribe(&cache);
    next(&mut stream).await;
    let close = async {
        sleep(Duration::from_secs(1)).await;
        cache.close().await;
    };
    let started = Instant::now();
    let (token, ()) = tokio::join!(stream.next(), close);
    assert!(token.is_none());
    assert_eq!(started.elapsed(), Duration::from_secs(1), "at once");
}

#[tokio::test(start_paused = true)]
async fn it_is_a_handle_of_the_cache() {
    let cache = TokenCache::new(tokens());
    let mut stream = subscribe(&cache);
    drop(cache);
    assert_eq!(next(&mut stream).await.0, "mock-token-1");
    assert_eq!(next(&mut stream).await.0, "mock-token-2");
}

#[tokio::test(start_paused = true)]
async fn its_entry_is_not_evicted() {
    let cache = TokenCache::builder(tokens())
        .max_entries(1)
        .build()
        .unwrap();
    let request = TokenRequest::scope("kept");
    let mut stream = cache.subscribe(&request);
    next(&mut stream).await;
    for number in 0..20 {
        let other = TokenRequest::scope(format!("tenant/{number}"));
        cache.token_for(&other).await.unwrap();
        advance(Duration::from_secs(2)).await;
    }
    assert!(cache.status_of(&request).is_ready());
    drop(stream);
    for number in 20..24 {
        let other = TokenRequest::scope(format!("tenant/{number}"));
        cache.token_for(&other).await.unwrap();
        advance(Duration::from_secs(2)).await;
    }
    assert!(!cache.status_of(&request).is_ready());
}

/// Without a runtime a subscription neither panics nor loops.
#[test]
fn without_a_runtime_it_waits_for_others() {
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let mut stream = subscribe(&cache);
    assert!(is_pending(&mut stream));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(cache.token()).unwrap();
    let token = futures_util::FutureExt::now_or_never(stream.next());
    assert_eq!(token.flatten().unwrap().expose_secret(), "mock-token-1");
    assert!(is_pending(&mut stream));
}
