//! The hand-over of the stream, at the points that a request seldom meets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio_test::task::spawn;

use super::*;

/// A stream whose polls run closures.
#[derive(Clone, Default)]
struct Script(Rc<RefCell<VecDeque<Step>>>);

type Step = Box<dyn FnOnce() -> Polled>;

impl Script {
    fn then(self, poll: impl FnOnce() -> Polled + 'static) -> Self {
        self.0.borrow_mut().push_back(Box::new(poll));
        self
    }

    fn then_data(self, data: &'static str) -> Self {
        self.then(move || data_frame(data))
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled {
        let poll = self.0.borrow_mut().pop_front();
        poll.map_or(Poll::Ready(None), |poll| poll())
    }
}

fn data_frame(data: &'static str) -> Polled {
    Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))])
}

fn trailers_frame() -> Polled {
    Poll::Ready(Some(Ok(Frame::trailers(trailers()))))
}

/// The two bodies over one stream, and what the handle to the replay is made of.
fn pair<B>(stream: B) -> (ReplayBody<B>, ReplayBody<B>, Arc<Shared<B>>) {
    let shared = Arc::new(Shared::new(1000));
    shared.put(stream);
    let body = |role| ReplayBody {
        shared: Some(Arc::clone(&shared)),
        role,
        size_hint: SizeHint::default(),
    };
    (body(Role::First), body(Role::Replay), shared)
}

/// Returns a script that begins the replay in the middle of its first poll.
fn begins_during(
    poll: impl FnOnce() -> Polled + 'static,
) -> (ReplayBody<Script>, ReplayBody<Script>) {
    let script = Script::default();
    let (first, replay, shared) = pair(script.clone());
    let _ = script.then(move || {
        assert!(shared.hand_over());
        poll()
    });
    (first, replay)
}

fn error<T: fmt::Debug>(polled: Option<Result<T, BoxError>>) -> String {
    polled.unwrap().unwrap_err().to_string()
}

#[tokio::test]
async fn a_frame_that_arrives_while_the_replay_begins_is_the_replays() {
    let (mut first, replay) = begins_during(|| data_frame("a"));
    assert!(error(first.frame().await).contains("is replayed"));
    assert!(
        error(first.frame().await).contains("is replayed"),
        "and stays so"
    );
    assert!(!first.is_end_stream());
    assert!(!replay.is_end_stream());
    assert_eq!(replay.collect().await.unwrap().to_bytes(), "a");
}

#[tokio::test]
async fn trailers_that_arrive_while_the_replay_begins_are_the_replays() {
    let (mut first, replay) = begins_during(trailers_frame);
    assert!(error(first.frame().await).contains("is replayed"));
    assert!(!replay.is_end_stream());
    assert_eq!(
        replay.collect().await.unwrap().trailers(),
        Some(&trailers())
    );
}

#[tokio::test]
async fn an_error_that_arrives_while_the_replay_begins_is_the_replays() {
    let (mut first, mut replay) = begins_during(|| Poll::Ready(Some(Err("broken".into()))));
    assert!(error(first.frame().await).contains("is replayed"));
    assert!(!replay.is_end_stream());
    assert_eq!(error(replay.frame().await), "broken");
    assert!(replay.frame().await.is_none());
}

#[tokio::test]
async fn a_first_body_whose_end_arrives_while_the_replay_begins_ends_with_an_error() {
    let (mut first, replay) = begins_during(|| Poll::Ready(None));
    assert!(error(first.frame().await).contains("is replayed"));
    assert!(replay.is_end_stream());
}

#[tokio::test]
async fn a_replay_waits_while_the_stream_is_polled_for_the_first_body() {
    let script = Script::default();
    let (mut first, replay, shared) = pair(script.clone());
    let replay = Rc::new(RefCell::new(spawn(replay.collect())));
    let waits = Rc::clone(&replay);
    let _ = script
        .then(move || {
            assert!(shared.hand_over());
            assert!(waits.borrow_mut().poll().is_pending());
            data_frame("a")
        })
        .then_data("b");
    assert!(first.frame().await.unwrap().is_err());
    assert!(replay.borrow().is_woken());
    let Poll::Ready(collected) = replay.borrow_mut().poll() else {
        panic!("the stream is back");
    };
    assert_eq!(collected.unwrap().to_bytes(), "ab");
}

#[tokio::test]
async fn the_first_body_is_woken_when_the_replay_begins() {
    let script = Script::default().then(|| Poll::Pending).then_data("a");
    let (mut first, replay, shared) = pair(script);
    let mut frame = spawn(first.frame());
    assert!(frame.poll().is_pending());
    assert!(!frame.is_woken());
    assert!(shared.hand_over());
    assert!(frame.is_woken());
    assert!(error(frame.await).contains("is replayed"));
    assert_eq!(replay.collect().await.unwrap().to_bytes(), "a");
}

#[tokio::test]
async fn a_stream_that_panics_ends_the_replay_with_an_error() {
    let script = Script::default();
    let (mut first, replay, shared) = pair(script.clone());
    let replay = Rc::new(RefCell::new(spawn(replay.collect())));
    let waits = Rc::clone(&replay);
    let _ = script.then(move || {
        assert!(shared.hand_over());
        assert!(waits.borrow_mut().poll().is_pending());
        panic!("a fault of the stream")
    });
    let poll = std::panic::AssertUnwindSafe(move || {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut first).poll_frame(&mut cx);
    });
    assert!(std::panic::catch_unwind(poll).is_err());
    assert!(replay.borrow().is_woken());
    let Poll::Ready(Err(error)) = replay.borrow_mut().poll() else {
        panic!("the stream is lost");
    };
    assert!(error.to_string().contains("panicked"));
}

#[tokio::test]
async fn a_stream_that_fails_or_goes_on_after_its_trailers_is_not_replayed() {
    let fails = Script::default().then(|| Poll::Ready(Some(Err("broken".into()))));
    let (mut first, _replay, shared) = pair(fails);
    assert_eq!(error(first.frame().await), "broken");
    assert!(!shared.hand_over());

    let goes_on = Script::default().then(trailers_frame).then_data("a");
    let (mut first, mut replay, shared) = pair(goes_on);
    assert!(first.frame().await.unwrap().unwrap().is_trailers());
    assert!(first.frame().await.unwrap().unwrap().is_data());
    assert!(!shared.hand_over());
    assert!(error(replay.frame().await).contains("not kept"));
    assert!(!replay.is_end_stream());
}

#[tokio::test]
async fn the_stream_is_dropped_with_the_replay_that_it_belongs_to() {
    let owner = Rc::new(RefCell::new(VecDeque::new()));
    let (_first, replay, shared) = pair(Script(Rc::clone(&owner)));
    assert!(shared.hand_over());
    drop(replay);
    assert_eq!(Rc::strong_count(&owner), 1);
}

#[tokio::test]
async fn the_size_hint_is_that_of_what_is_left() {
    let exact = |body: &ReplayBody<Full<Bytes>>| body.size_hint().exact();
    let mut body = Full::from("abc");
    let bodies = RefCell::new(Vec::new());
    // Keeps the bodies, in place of a type that can hold them.
    let wrap = |body| {
        bodies.borrow_mut().push(body);
        Full::default()
    };
    let copy = copy_buffered(&mut body, 1000, wrap);
    let mut bodies = bodies.into_inner();
    let (mut replay, mut first) = (bodies.remove(1), bodies.remove(0));
    assert_eq!((exact(&first), exact(&replay)), (Some(3), Some(3)));
    first.frame().await.unwrap().unwrap();
    assert_eq!((exact(&first), exact(&replay)), (Some(0), Some(3)));
    assert!(first.is_end_stream());
    let handle = copy.buffered.unwrap();
    assert!(handle.can_begin() && handle.begin());
    replay.frame().await.unwrap().unwrap();
    assert_eq!(exact(&replay), Some(0));
    assert!(replay.is_end_stream());
    assert!(!handle.can_begin() && !handle.begin(), "once");

    let mut hint = SizeHint::new();
    hint.set_lower(2);
    hint.set_upper(9);
    let rest = rest(&hint, 5);
    assert_eq!((rest.lower(), rest.upper()), (0, Some(4)));
    assert_eq!(super::rest(&SizeHint::new(), 5).upper(), None);
}

#[test]
fn debug_shows_no_content() {
    let (first, _replay, _shared) = pair(Script::default().then_data("secret"));
    let text = format!("{first:?}");
    assert!(
        text.starts_with("ReplayBody") && !text.contains("secret"),
        "{text}"
    );
}
