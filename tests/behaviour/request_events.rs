//! The events of requests: rejections, replays, and requests without a token.

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bearer_auth::{
    AccessToken, BearerAuthLayer, BoxError, MockTokenSource, RequestAuth, TokenCache, TokenError,
    TokenSource, source_fn,
};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;

use crate::support::api::{Api, ok};
use crate::support::events::Recorder;
use crate::support::stack::{Call, Kind, Stack};

const URL: &str = "https://api.example.com/path";

pub(crate) async fn observed(source: impl TokenSource) -> (BearerAuthLayer, Recorder) {
    let (layer, recorder) = cold(source);
    layer.cache().token().await.unwrap();
    recorder.take();
    (layer, recorder)
}

fn cold(source: impl TokenSource) -> (BearerAuthLayer, Recorder) {
    let recorder = Recorder::default();
    let cache = TokenCache::builder(source).observer(recorder.clone());
    let layer = BearerAuthLayer::from_cache(cache.build().unwrap());
    (layer, recorder)
}

pub(crate) fn get() -> Request<String> {
    Request::get(URL).body(String::new()).unwrap()
}

pub(crate) fn respond(code: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = code;
    response
}

/// Rejects the first token of the mock.
async fn reject_first<B>(request: Request<B>) -> Result<Response<()>, Infallible> {
    let rejected = request.headers().get(AUTHORIZATION)
        == Some(&HeaderValue::from_static("Bearer mock-token-1"));
    Ok(respond(match rejected {
        true => StatusCode::UNAUTHORIZED,
        false => StatusCode::OK,
    }))
}

pub(crate) async fn reject_all<B>(_: Request<B>) -> Result<Response<()>, Infallible> {
    Ok(respond(StatusCode::UNAUTHORIZED))
}

/// Returns the lines that are not of the fetch.
fn of_requests(events: &Recorder) -> Vec<String> {
    let mut lines = events.take();
    lines.retain(|line| {
        ["rejected: ", "replay: ", "no token: "]
            .iter()
            .any(|start| line.starts_with(start))
    });
    lines
}

#[tokio::test(start_paused = true)]
async fn a_rejection_that_a_replay_recovers_from() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let service = layer.layer(service_fn(reject_first));
    service.oneshot(get()).await.unwrap();
    let lines = events.take_main();
    assert_eq!(lines.first().unwrap(), "rejected: effective");
    assert_eq!(lines[1], "started: rejected 1");
    assert_eq!(lines.last().unwrap(), "replay: accepted");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_rejects_every_token() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let service = layer.layer(service_fn(reject_all));
    service.clone().oneshot(get()).await.unwrap();
    assert_eq!(
        of_requests(&events),
        ["rejected: effective", "replay: refused"]
    );
    service.oneshot(get()).await.unwrap();
    assert_eq!(of_requests(&events), ["rejected: spaced"]);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_a_token_that_was_replaced() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let service = layer.layer(service_fn(move |request: Request<String>| {
        let gate = Arc::clone(&opened);
        async move {
            gate.notified().await;
            reject_first(request).await
        }
    }));
    let first = tokio::spawn(service.clone().oneshot(get()));
    let second = tokio::spawn(service.oneshot(get()));
    tokio::task::yield_now().await;
    gate.notify_one();
    gate.notify_one();
    sleep(Duration::from_millis(1)).await;
    for _ in 0..4 {
        gate.notify_one();
        sleep(Duration::from_millis(1)).await;
    }
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    let mut lines = of_requests(&events);
    lines.sort();
    assert_eq!(
        lines,
        [
            "rejected: effective",
            "rejected: superseded",
            "replay: accepted",
            "replay: accepted",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_fails() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let service = layer.layer(service_fn(async |request: Request<String>| {
        let response = reject_first(request).await.unwrap();
        tokio::task::yield_now().await;
        match response.status() {
            StatusCode::OK => Err(BoxError::from("broken pipe")),
            _ => Ok(response),
        }
    }));
    service.oneshot(get()).await.unwrap_err();
    assert_eq!(
        of_requests(&events),
        ["rejected: effective", "replay: failed"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_its_caller_gives_up() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let service = layer.layer(service_fn(async |request: Request<String>| {
        let response = reject_first(request).await.unwrap();
        if response.status() == StatusCode::OK {
            pending::<()>().await;
        }
        Ok::<_, BoxError>(response)
    }));
    let call = timeout(Duration::from_secs(1), service.oneshot(get()));
    call.await.unwrap_err();
    assert_eq!(
        of_requests(&events),
        ["rejected: effective", "replay: cancelled"]
    );
}

#[tokio::test(start_paused = true)]
async fn replays_that_are_disabled() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let expected = ["rejected: effective", "replay: not_possible disabled"];
    let service = layer.clone().without_replay().layer(service_fn(reject_all));
    service.oneshot(get()).await.unwrap();
    assert_eq!(of_requests(&events), expected);

    sleep(Duration::from_secs(20)).await;
    let mut request = get();
    let auth = RequestAuth::default().without_replay();
    request.extensions_mut().insert(auth);
    let service = layer.layer(service_fn(reject_all));
    service.oneshot(request).await.unwrap();
    assert_eq!(of_requests(&events), expected);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_sent_twice() {
    struct Streamed;
    let (layer, events) = observed(MockTokenSource::new()).await;
    let service = layer.layer(service_fn(reject_first));
    let request = Request::post(URL).body(Streamed).unwrap();
    service.oneshot(request).await.unwrap();
    assert_eq!(
        of_requests(&events),
        ["rejected: effective", "replay: not_possible body"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_redirected_request_with_an_unsafe_method() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let inner = service_fn(async |request: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(match request.uri().path() {
            "/new" => respond(StatusCode::UNAUTHORIZED),
            _ => {
                let mut response = respond(StatusCode::SEE_OTHER);
                let new = HeaderValue::from_static("/new");
                response.headers_mut().insert(LOCATION, new);
                response
            }
        })
    });
    let service = layer.layer(FollowRedirectLayer::new().layer(inner));
    let request = Request::post(URL).body(Full::from("body")).unwrap();
    service.oneshot(request).await.unwrap();
    assert_eq!(
        of_requests(&events),
        ["rejected: effective", "replay: not_possible redirected"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_or_returns_the_same_token() {
    let tokens = MockTokenSource::new();
    let (layer, events) = observed(tokens.clone()).await;
    tokens.fail_next(TokenError::permanent("no"));
    let service = layer.layer(service_fn(reject_first));
    service.oneshot(get()).await.unwrap();
    assert_eq!(
        of_requests(&events),
        ["rejected: effective", "replay: not_possible no_token"]
    );

    let same = source_fn(async |_| Ok(AccessToken::new("mock-token-1")?));
    let (layer, events) = observed(same).await;
    let service = layer.layer(service_fn(reject_first));
    service.oneshot(get()).await.unwrap();
    assert_eq!(
        of_requests(&events),
        ["rejected: effective", "replay: not_possible same_token"]
    );
}

/// Is ready for one call only. Rejects every token.
#[derive(Clone)]
struct Once(Arc<AtomicUsize>);

impl Service<Request<String>> for Once {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.0.load(Ordering::Relaxed) {
            0 => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(respond(StatusCode::UNAUTHORIZED)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_or_sheds_load() {
    let expected = ["rejected: effective", "replay: not_possible not_ready"];
    let (layer, events) = observed(MockTokenSource::new()).await;
    let service = layer.layer(Once(Arc::default()));
    service.oneshot(get()).await.unwrap();
    assert_eq!(of_requests(&events), expected);

    let (layer, events) = observed(MockTokenSource::new()).await;
    let service = layer.layer(service_fn(
        async |request: Request<String>| match reject_first(request).await.unwrap() {
            response if response.status() == StatusCode::OK => Err(BoxError::from("overloaded")),
            response => Ok(response),
        },
    ));
    service.oneshot(get()).await.unwrap();
    assert_eq!(of_requests(&events), expected);
}

#[tokio::test]
async fn a_request_without_a_token_says_why_in_all_stacks() {
    let api = Api::start(|_| ok()).await;
    for kind in Kind::ALL {
        let (layer, events) = cold(MockTokenSource::new());
        let layer = layer.allow_origin("https://api.example.com").unwrap();
        let url = api.url("/path?query");
        let origin = url.split("/path").next().unwrap();
        let stack = Stack::new(kind, &layer);
        stack.get(&url).await.unwrap();
        assert_eq!(
            events.take(),
            [format!("no token: origin_not_allowed {origin} false")],
            "{kind:?}"
        );
        // A request that wants no token, such as a pre-signed upload, is no mistake.
        if Kind::WITH_EXTENSIONS.contains(&kind) {
            let call = Call::get(&url).auth(RequestAuth::skip());
            stack.send(call).await.unwrap();
            assert_eq!(
                events.take(),
                [format!("no token: skipped {origin} false")],
                "{kind:?}"
            );
        }

        let layer = layer.allow_origin(origin).unwrap();
        let stack = Stack::new(kind, &layer);
        let mut call = Call::get(&url);
        let basic = HeaderValue::from_static("Basic eDp5");
        call.headers.insert(AUTHORIZATION, basic);
        stack.send(call).await.unwrap();
        assert_eq!(
            events.take(),
            [format!("no token: header_is_set {origin} true")],
            "{kind:?}"
        );
        if Kind::WITH_EXTENSIONS.contains(&kind) {
            let call = Call::get(&url).auth(RequestAuth::skip());
            stack.send(call).await.unwrap();
            assert_eq!(
                events.take(),
                [format!("no token: skipped {origin} true")],
                "{kind:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_request_to_an_allowed_origin_is_told() {
    let (layer, events) = cold(MockTokenSource::new());
    let layer = layer.allow_origin("https://api.example.com").unwrap();
    let service = layer.layer(service_fn(async |_: Request<String>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let elsewhere = || {
        let request = Request::get("https://storage.example.com:8443/signed?s3cret");
        request.body(String::new()).unwrap()
    };
    let line = "no token: origin_not_allowed https://storage.example.com:8443";
    service.clone().oneshot(elsewhere()).await.unwrap();
    assert_eq!(of_requests(&events), [format!("{line} false")]);
    service.clone().oneshot(get()).await.unwrap();
    events.take();
    service.oneshot(elsewhere()).await.unwrap();
    assert_eq!(of_requests(&events), [format!("{line} true")]);
    assert!(!events.debug().contains("s3cret"));
}

#[tokio::test(start_paused = true)]
async fn a_request_with_too_many_headers() {
    let fill = |request: &mut Request<String>| {
        for number in 0.. {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            let value = HeaderValue::from_static("x");
            if request.headers_mut().try_append(name, value).is_err() {
                return;
            }
        }
    };
    let (layer, events) = cold(MockTokenSource::new());
    let service = layer.layer(service_fn(reject_first));
    for _ in ["the token is fetched", "the token is fresh"] {
        let mut request = get();
        fill(&mut request);
        service.clone().oneshot(request).await.unwrap();
        assert_eq!(
            of_requests(&events),
            ["no token: too_many_headers https://api.example.com true"]
        );
    }
}
