//! Bodies that are kept while they are sent (`replay_buffered`), for every point at which the API
//! rejects the token.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource, TokenError};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio_test::task::spawn;
use tower::{Layer, ServiceExt, service_fn};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// A body of these frames. `None` is a pending poll.
struct Frames {
    steps: VecDeque<Option<Bytes>>,
    trailers: Option<HeaderMap>,
    size_hint: SizeHint,
}

/// The API's way to reject a request.
#[derive(Clone, Copy, Debug)]
enum Rejects {
    /// Drops the body with the response.
    DroppingTheBody,
    /// Keeps the body, and reads on when the replay has arrived.
    ReadingAfterwards,
    /// Reads the body in a task.
    ReadingMeanwhile,
}

#[derive(Clone, Debug, PartialEq)]
struct Content {
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
}

#[derive(Default)]
struct Seen {
    unread: Option<Body>,
    reader: Option<JoinHandle<Result<Content, BoxError>>>,
    rest_of_first: Option<Result<Content, BoxError>>,
    replay: Option<Result<Content, BoxError>>,
    replay_hint: Option<SizeHint>,
    rejected: usize,
}

impl Frames {
    fn new(steps: &[Option<Bytes>], trailers: bool) -> Self {
        let size = steps.iter().flatten().map(Bytes::len).sum::<usize>();
        Self {
            steps: steps.iter().cloned().collect(),
            trailers: trailers
                .then(|| HeaderMap::from_iter([("x-sum".parse().unwrap(), 7.into())])),
            size_hint: SizeHint::with_exact(size as u64),
        }
    }

    fn content(&self) -> Content {
        Content {
            bytes: self.steps.iter().flatten().flatten().copied().collect(),
            trailers: self.trailers.clone(),
        }
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.steps.pop_front() {
            Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(self.trailers.take().map(Frame::trailers).map(Ok)),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.trailers.is_none()
    }
}

async fn collect(body: Body) -> Result<Content, BoxError> {
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes().to_vec();
    Ok(Content { bytes, trailers })
}

fn buffered(limit: usize) -> (BearerAuthLayer, MockTokenSource) {
    let tokens = MockTokenSource::new();
    let layer = BearerAuthLayer::new(tokens.clone())
        .replay_buffered::<Body>(limit, |body| body.boxed_unsync());
    (layer, tokens)
}

/// Sends a body to an API that rejects the first token when it has read `reads` frames.
async fn exchange(limit: usize, body: Body, rejects: Rejects, reads: usize) -> (StatusCode, Seen) {
    let (layer, tokens) = buffered(limit);
    let is_empty = body.is_end_stream();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let observed = Arc::clone(&seen);
    let api = service_fn(move |request: Request<Body>| {
        let seen = Arc::clone(&observed);
        async move {
            let mut response = Response::new(());
            let is_rejected = request.headers()[AUTHORIZATION] == "Bearer mock-token-1";
            let mut body = request.into_body();
            if is_rejected {
                seen.lock().unwrap().rejected += 1;
                for _ in 0..reads {
                    if body.frame().await.transpose().unwrap().is_none() {
                        break;
                    }
                }
                let mut seen = seen.lock().unwrap();
                match rejects {
                    Rejects::DroppingTheBody => drop(body),
                    Rejects::ReadingAfterwards => seen.unread = Some(body),
                    Rejects::ReadingMeanwhile => seen.reader = Some(tokio::spawn(collect(body))),
                }
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                return Ok::<_, Infallible>(response);
            }
            seen.lock().unwrap().replay_hint = Some(body.size_hint());
            let unread = seen.lock().unwrap().unread.take();
            if let Some(unread) = unread {
                assert_eq!(unread.is_end_stream(), is_empty, "never as if complete");
                seen.lock().unwrap().rest_of_first = Some(collect(unread).await);
            }
            seen.lock().unwrap().replay = Some(collect(body).await);
            Ok(response)
        }
    });
    let request = Request::post("https://api.example.com/").body(body);
    let response = layer.layer(api).oneshot(request.unwrap()).await.unwrap();
    // A refresh in the background has not begun yet.
    tokio::task::yield_now().await;
    assert_eq!(tokens.fetches(), 2, "refreshed in any case");
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.rejected, 1);
    if let Some(reader) = seen.reader.take() {
        seen.rest_of_first = Some(reader.await.unwrap());
    }
    (response.status(), seen)
}

fn steps() -> impl Strategy<Value = Vec<Option<Bytes>>> {
    let data = prop_oneof![
        1 => Just(0),
        4 => 1..100_usize,
        2 => 100..2_000_usize,
    ];
    let data = (data, any::<u8>()).prop_map(|(len, byte)| Some(Bytes::from(vec![byte; len])));
    vec(prop_oneof![1 => Just(None), 3 => data], 0..12)
}

fn rejects() -> impl Strategy<Value = Rejects> {
    prop_oneof![
        Just(Rejects::DroppingTheBody),
        Just(Rejects::ReadingAfterwards),
        Just(Rejects::ReadingMeanwhile),
    ]
}

/// Returns the size of the first `reads` frames, as the limit counts it.
fn cost(steps: &[Option<Bytes>], trailers: bool, reads: usize) -> usize {
    let sizes = steps.iter().flatten().map(Bytes::len);
    let sizes = sizes.chain(trailers.then_some(6));
    sizes.take(reads).map(|size| size.max(64)).sum()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_replay_sends_the_same_bytes_and_trailers_or_there_is_none(
        steps in steps(),
        trailers: bool,
        rejects in rejects(),
        reads in 0..14_usize,
        limit in prop_oneof![0..200_usize, 0..20_000_usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let body = Frames::new(&steps, trailers);
        let (content, size_hint) = (body.content(), body.size_hint);
        let is_empty = body.is_end_stream();
        let sent = exchange(limit, body.boxed_unsync(), rejects, reads);
        let (status, seen) = runtime.block_on(sent);
        if status == StatusCode::OK {
            prop_assert_eq!(seen.replay.unwrap().unwrap(), content.clone());
            let hint = seen.replay_hint.unwrap();
            prop_assert_eq!(hint.exact(), size_hint.exact());
        } else {
            prop_assert_eq!(status, StatusCode::UNAUTHORIZED);
            prop_assert!(seen.replay.is_none(), "nothing was sent again");
        }
        let frames = steps.iter().flatten().count() + usize::from(trailers);
        if cost(&steps, trailers, reads) > limit && !is_empty {
            prop_assert_eq!(status, StatusCode::UNAUTHORIZED);
        }
        let most = match rejects {
            Rejects::ReadingMeanwhile => frames,
            _ => reads,
        };
        if cost(&steps, trailers, most) <= limit {
            prop_assert_eq!(status, StatusCode::OK, "all that was sent fits");
        }
        if let (Some(Ok(rest)), StatusCode::OK) = (seen.rest_of_first, status) {
            // Read to its end before the replay began, or already at its end.
            let is_meanwhile = matches!(rejects, Rejects::ReadingMeanwhile);
            prop_assert!(is_meanwhile || is_empty);
            prop_assert!(content.bytes.ends_with(&rest.bytes));
        }
    }
}

#[tokio::test]
async fn an_empty_body_is_replayed_whatever_the_limit() {
    let body = Empty::new()
        .map_err(|error: Infallible| match error {})
        .boxed_unsync();
    let (status, seen) = exchange(0, body, Rejects::DroppingTheBody, 1).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(seen.replay_hint.unwrap().exact(), Some(0));
    assert_eq!(seen.replay.unwrap().unwrap().bytes, b"");
}

#[tokio::test]
async fn a_body_larger_than_the_limit_is_sent_once_and_in_full() {
    let frames = vec![Some(Bytes::from(vec![1; 1000])); 3];
    for (limit, status) in [(2999, 401), (3000, 200)] {
        let body = Frames::new(&frames, false).boxed_unsync();
        let (got, seen) = exchange(limit, body, Rejects::DroppingTheBody, 9).await;
        assert_eq!(got.as_u16(), status, "{limit}");
        assert_eq!(seen.replay.is_some(), status == 200);
    }
}

#[tokio::test]
async fn the_first_body_ends_with_an_error_when_the_replay_has_taken_the_rest() {
    let frames = vec![Some(Bytes::from(vec![1; 1000])); 3];
    let body = Frames::new(&frames, true).boxed_unsync();
    let (status, seen) = exchange(8000, body, Rejects::ReadingAfterwards, 1).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(seen.replay.unwrap().unwrap().bytes.len(), 3000);
    let error = seen.rest_of_first.unwrap().unwrap_err().to_string();
    assert!(error.contains("replay"), "{error}");
}

#[tokio::test]
async fn a_body_over_the_limit_does_not_wait_for_another_token() {
    let (layer, tokens) = buffered(1500);
    layer.cache().token().await.unwrap();
    let _hold = tokens.hold();
    let api = service_fn(async |request: Request<Body>| {
        let read = collect(request.into_body()).await.unwrap();
        assert_eq!(read.bytes.len(), 2000);
        Ok::<_, Infallible>(Response::builder().status(401).body("first").unwrap())
    });
    let frames = vec![Some(Bytes::from(vec![1; 1000])); 2];
    let body = Frames::new(&frames, false).boxed_unsync();
    let request = Request::post("https://api.example.com/").body(body);
    let mut call = spawn(layer.layer(api).oneshot(request.unwrap()));
    let Poll::Ready(Ok(response)) = call.poll() else {
        panic!("there is nothing to wait for");
    };
    assert_eq!(response.into_body(), "first");
}

/// While the request waits for another token, the first body is still being sent.
#[tokio::test]
async fn a_body_that_grows_too_large_before_the_replay_gets_the_first_response() {
    let (layer, tokens) = buffered(1500);
    layer.cache().token().await.unwrap();
    let hold = tokens.hold();
    let (sent, first_body) = mpsc::channel();
    let api = service_fn(move |request: Request<Body>| {
        sent.send(request.into_body()).unwrap();
        async { Ok::<_, Infallible>(Response::builder().status(401).body("first").unwrap()) }
    });
    let frames = vec![Some(Bytes::from(vec![1; 1000])); 2];
    let body = Frames::new(&frames, false).boxed_unsync();
    let request = Request::post("https://api.example.com/").body(body);
    let mut call = spawn(layer.layer(api).oneshot(request.unwrap()));
    assert!(call.poll().is_pending(), "waits for another token");
    let first = collect(first_body.recv().unwrap()).await.unwrap();
    assert_eq!(first.bytes.len(), 2000);
    drop(hold);
    assert_eq!(call.await.unwrap().into_body(), "first");
    assert_eq!(tokens.fetches(), 2);
    assert!(first_body.recv().is_err(), "sent once");
}

#[tokio::test]
async fn without_another_token_the_first_body_is_sent_to_its_end() {
    let (layer, tokens) = buffered(8000);
    layer.cache().token().await.unwrap();
    tokens.fail_times(9, TokenError::permanent("no"));
    let (sent, first_body) = mpsc::channel();
    let api = service_fn(move |request: Request<Body>| {
        sent.send(request.into_body()).unwrap();
        async { Ok::<_, Infallible>(Response::builder().status(401).body(()).unwrap()) }
    });
    let frames = vec![Some(Bytes::from(vec![1; 1000])); 2];
    let body = Frames::new(&frames, true);
    let content = body.content();
    let request = Request::post("https://api.example.com/").body(body.boxed_unsync());
    let response = layer.layer(api).oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(collect(first_body.recv().unwrap()).await.unwrap(), content);
}

#[tokio::test]
async fn nothing_is_kept_after_the_response() {
    let (layer, _tokens) = buffered(usize::MAX);
    let (sent, first_body) = mpsc::channel();
    let api = service_fn(move |request: Request<Body>| {
        sent.send(request.into_body()).unwrap();
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let data = Bytes::from(vec![1; 1000]);
    let body = Frames::new(&[Some(data.clone())], false).boxed_unsync();
    let request = Request::post("https://api.example.com/").body(body);
    layer.layer(api).oneshot(request.unwrap()).await.unwrap();
    let mut body = first_body.recv().unwrap();
    drop(body.frame().await.unwrap().unwrap());
    assert!(data.is_unique(), "the frame is freed when it was sent");
}
