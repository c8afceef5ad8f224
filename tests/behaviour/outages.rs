//! Outages of the token endpoint (rules C of `docs/behaviour.md`), against `MockAuthServer` in real
//! time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bearer_auth::TokenErrorKind::{InvalidClient, Throttled};
use bearer_auth::{ClientCredentials, MockAuthServer, TokenCache, TokenRequest, TokenSource};
use http::{Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

const SECOND: Duration = Duration::from_secs(1);
/// 200 callers a second.
const EVERY: Duration = Duration::from_millis(5);

fn source(server: &MockAuthServer, secret: &str) -> ClientCredentials {
    let source = ClientCredentials::builder(server.token_url()).client_id(server.client_id());
    source.client_secret(secret).build().unwrap()
}

async fn start() -> (MockAuthServer, TokenCache) {
    let server = MockAuthServer::start().await.unwrap();
    let cache = TokenCache::new(source(&server, server.client_secret()));
    (server, cache)
}

/// Calls at a steady rate, and returns how many calls got a token and how many an error. None may
/// wait a second.
async fn steady_calls(name: &str, cache: &TokenCache, time: Duration) -> (usize, usize) {
    let mut calls = JoinSet::new();
    let (mut tick, start) = (interval(EVERY), Instant::now());
    while start.elapsed() < time {
        tick.tick().await;
        let (cache, called) = (cache.clone(), Instant::now());
        calls.spawn(async move { (cache.token().await.is_ok(), called.elapsed()) });
    }
    let results = calls.join_all().await;
    let tokens = results.iter().filter(|result| result.0).count();
    let errors = results.len() - tokens;
    let slowest = results.iter().map(|result| result.1).max().unwrap();
    eprintln!("{name}: {tokens} tokens, {errors} errors, slowest {slowest:.2?}");
    assert!(slowest < SECOND);
    (tokens, errors)
}

/// Calls until there is a token, and returns the time that took.
async fn recovery(name: &str, cache: &TokenCache) -> Duration {
    let start = Instant::now();
    while cache.token().await.is_err() {
        sleep(EVERY).await;
    }
    eprintln!("{name}: a token after {:.2?}", start.elapsed());
    start.elapsed()
}

#[tokio::test]
async fn a_failing_endpoint_receives_a_handful_of_requests() {
    let (server, cache) = start().await;
    server.set_outage(true);
    let (tokens, errors) = steady_calls("503", &cache, SECOND * 5).await;
    let requests = server.token_requests();
    server.set_outage(false);
    assert!(tokens == 0 && errors >= 900);
    assert!(requests <= 10, "{requests} requests");
    eprintln!("503: {requests} token requests");
    // At most the third pause, 4 s plus 25 % of jitter, and a request.
    assert!(recovery("503", &cache).await < SECOND.mul_f64(5.1));
}

#[tokio::test]
async fn a_retry_after_in_seconds_allows_one_request() {
    let (server, cache) = start().await;
    server.fail_token_requests_with_retry_after(9, StatusCode::SERVICE_UNAVAILABLE, SECOND * 60);
    let (tokens, errors) = steady_calls("Retry-After: 60", &cache, SECOND * 5).await;
    assert!(tokens == 0 && errors >= 900);
    assert_eq!(server.token_requests(), 1);
    let remains = cache.token().await.unwrap_err().retry_after().unwrap();
    assert!(SECOND * 53 < remains && remains < SECOND * 56);
}

#[tokio::test]
async fn a_retry_after_as_a_date_sets_the_pause() {
    let (server, cache) = start().await;
    let date = httpdate::fmt_http_date(SystemTime::now() + SECOND * 4);
    let response = Response::builder().status(429).header("retry-after", date);
    server.answer_token_requests(1, response.body("").unwrap());
    assert_eq!(cache.token().await.unwrap_err().kind(), Throttled);
    let recovery = recovery("Retry-After: a date in 4 s", &cache).await;
    assert!((SECOND * 2..SECOND * 6).contains(&recovery));
    assert_eq!(server.token_requests(), 2);
}

#[tokio::test]
async fn a_valid_token_is_served_through_the_outage() {
    // A token of 10 s is due between 8 s and 8.5 s, and expired at 9 s.
    let (server, cache) = start().await;
    server.set_lifetime(SECOND * 10);
    cache.token().await.unwrap();
    server.set_outage(true);
    let (tokens, errors) = steady_calls("a valid token", &cache, SECOND.mul_f64(8.7)).await;
    assert!(errors == 0 && tokens >= 1_500);
    assert!(server.token_requests() > 1, "no refresh was tried");
}

#[tokio::test]
async fn a_corrected_secret_needs_no_restart() {
    let server = MockAuthServer::start().await.unwrap();
    let current = Arc::new(Mutex::new(source(&server, "mistyped")));
    let configured = Arc::clone(&current);
    let cache = TokenCache::new(bearer_auth::source_fn(move |request: TokenRequest| {
        let source = configured.lock().unwrap().clone();
        async move { source.fetch(&request).await }
    }));
    steady_calls("a wrong secret", &cache, SECOND / 2).await;
    assert_eq!(cache.token().await.unwrap_err().kind(), InvalidClient);
    assert_eq!(server.token_requests(), 1);
    *current.lock().unwrap() = source(&server, server.client_secret());
    assert!(recovery("a wrong secret", &cache).await < SECOND.mul_f64(1.5));
    assert_eq!(server.token_requests(), 2);
}
