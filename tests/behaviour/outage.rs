//! A token endpoint that is out (BEHAVIOUR C), against `MockAuthServer` in real time.

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

/// How many of the callers in this time get a token, and how many don't. None waits long.
async fn crowd(name: &str, cache: &TokenCache, time: Duration) -> (usize, usize) {
    let mut callers = JoinSet::new();
    let (mut tick, start) = (interval(EVERY), Instant::now());
    while start.elapsed() < time {
        tick.tick().await;
        let (cache, called) = (cache.clone(), Instant::now());
        callers.spawn(async move { (cache.token().await.is_ok(), called.elapsed()) });
    }
    let answers = callers.join_all().await;
    let tokens = answers.iter().filter(|answer| answer.0).count();
    let errors = answers.len() - tokens;
    let slowest = answers.iter().map(|answer| answer.1).max().unwrap();
    eprintln!("{name}: {tokens} tokens, {errors} errors, slowest {slowest:.2?}");
    assert!(slowest < SECOND);
    (tokens, errors)
}

/// How long it takes until a caller gets a token.
async fn recovery(name: &str, cache: &TokenCache) -> Duration {
    let start = Instant::now();
    while cache.token().await.is_err() {
        sleep(EVERY).await;
    }
    eprintln!("{name}: a token after {:.2?}", start.elapsed());
    start.elapsed()
}

#[tokio::test]
async fn a_dead_endpoint_sees_a_handful_of_requests() {
    let (server, cache) = start().await;
    server.set_outage(true);
    let (tokens, errors) = crowd("503", &cache, SECOND * 5).await;
    let requests = server.token_requests();
    server.set_outage(false);
    assert!(tokens == 0 && errors >= 900);
    assert!(requests <= 10, "{requests} requests");
    eprintln!("503: {requests} token requests");
    // At worst the third pause: 4 s, lengthened by 25 %, and a request.
    assert!(recovery("503", &cache).await < SECOND.mul_f64(5.1));
}

#[tokio::test]
async fn a_retry_after_in_seconds_is_one_request() {
    let (server, cache) = start().await;
    server.fail_token_requests_with_retry_after(9, StatusCode::SERVICE_UNAVAILABLE, SECOND * 60);
    let (tokens, errors) = crowd("Retry-After: 60", &cache, SECOND * 5).await;
    assert!(tokens == 0 && errors >= 900);
    assert_eq!(server.token_requests(), 1);
    let remains = cache.token().await.unwrap_err().retry_after().unwrap();
    assert!(SECOND * 53 < remains && remains < SECOND * 56);
}

#[tokio::test]
async fn a_retry_after_as_a_date_is_kept_to() {
    let (server, cache) = start().await;
    let date = httpdate::fmt_http_date(SystemTime::now() + SECOND * 4);
    let reply = Response::builder().status(429).header("retry-after", date);
    server.answer_token_requests(1, reply.body("").unwrap());
    assert_eq!(cache.token().await.unwrap_err().kind(), Throttled);
    let recovery = recovery("Retry-After: a date in 4 s", &cache).await;
    assert!((SECOND * 2..SECOND * 6).contains(&recovery));
    assert_eq!(server.token_requests(), 2);
}

#[tokio::test]
async fn a_valid_token_is_served_through_it() {
    // Of 10 s: due from 8 s or up to 0.5 s later, expired at 9 s.
    let (server, cache) = start().await;
    server.set_lifetime(SECOND * 10);
    cache.token().await.unwrap();
    server.set_outage(true);
    let (tokens, errors) = crowd("a valid token", &cache, SECOND.mul_f64(8.7)).await;
    assert!(errors == 0 && tokens >= 1_500);
    assert!(server.token_requests() > 1, "its renewal has failed");
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
    crowd("a wrong secret", &cache, SECOND / 2).await;
    assert_eq!(cache.token().await.unwrap_err().kind(), InvalidClient);
    assert_eq!(server.token_requests(), 1);
    *current.lock().unwrap() = source(&server, server.client_secret());
    assert!(recovery("a wrong secret", &cache).await < SECOND.mul_f64(1.5));
    assert_eq!(server.token_requests(), 2);
}
