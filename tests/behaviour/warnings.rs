//! Faults that are a warning once: an API that rejects each new token, and a full queue.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, MockTokenSource, TokenCache, TokenRequest};
use futures_util::future::join_all;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tracing::Level;

use crate::support::api::INVALID_TOKEN;
use crate::support::events::Recorder;
use crate::support::logs::Capture;

/// Sends a request every half second for a minute, to an API that rejects all tokens or none.
async fn call_for_a_minute(layer: &BearerAuthLayer, rejects: &Arc<AtomicBool>) {
    let rejects = Arc::clone(rejects);
    let service = layer.layer(service_fn(move |_: Request<String>| {
        let mut response = Response::new(());
        if rejects.load(Ordering::Relaxed) {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge = HeaderValue::from_static(INVALID_TOKEN);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        std::future::ready(Ok::<_, Infallible>(response))
    }));
    for _ in 0..120 {
        let request = Request::get("https://api.example.com:8443/a?b");
        let request = request.body(String::new()).unwrap();
        service.clone().oneshot(request).await.unwrap();
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_that_rejects_each_new_token_is_a_warning_and_its_recovery_an_information() {
    for has_replay in [true, false] {
        let (capture, _guard) = Capture::start();
        let events = Recorder::default();
        let cache = TokenCache::builder(MockTokenSource::new()).observer(events.clone());
        let layer = BearerAuthLayer::from_cache(cache.build().unwrap());
        let layer = match has_replay {
            true => layer,
            false => layer.without_replay(),
        };
        let rejects = Arc::new(AtomicBool::new(true));
        call_for_a_minute(&layer, &rejects).await;
        rejects.store(false, Ordering::Relaxed);
        call_for_a_minute(&layer, &rejects).await;

        let lines = capture.take_notable();
        let levels: Vec<_> = lines.iter().map(|line| line.level).collect();
        assert_eq!(levels, [Level::WARN, Level::INFO], "{lines:#?}");
        let warning = &lines[0].fields;
        assert!(warning["message"].starts_with("an API rejects each new token"));
        assert_eq!(warning["status"], "401");
        assert_eq!(warning["origin"], "https://api.example.com:8443");
        assert_eq!(warning["challenge_error"], "invalid_token");
        assert_eq!(lines[1].fields["message"], "a new token is accepted again");
        let mut events = events.take();
        events.retain(|event| event.starts_with("new tokens"));
        assert_eq!(events, ["new tokens: rejected 401", "new tokens: accepted"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_request_that_fails_because_of_a_full_queue_is_a_warning() {
    let (capture, _guard) = Capture::start();
    let tokens = MockTokenSource::new().with_latency(Duration::from_millis(900));
    let cache = TokenCache::builder(tokens)
        .max_concurrent_fetches(1)
        .wait_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let requests: Vec<_> = (0..10)
        .map(|tenant| TokenRequest::scope(format!("tenant/{tenant}")))
        .collect();
    let mut failed = 0;
    for _ in 0..2 {
        let calls = requests.iter().map(|request| cache.token_for(request));
        let results = join_all(calls).await;
        failed += results.iter().filter(|result| result.is_err()).count();
        let lines = capture.take_notable();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_eq!(lines[0].level, Level::WARN);
        let fields = &lines[0].fields;
        assert_eq!(fields["message"], "a caller waited for a token in vain");
        assert!(fields["error"].contains("queued"), "{}", fields["error"]);
        // The queue ends, and the next one is another incident.
        sleep(Duration::from_secs(60)).await;
        for request in &requests {
            cache.forget(request);
        }
    }
    assert!(failed > 2, "{failed}");
}
