//! The stream that a request and its copy share.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::error::BoxError;

/// The least that a frame counts for, so that many small ones need little memory, too.
const MIN_FRAME: usize = 64;

pub(super) type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The stream of a request and its copy. It is locked for moments only, and not while the stream is
/// polled.
pub(super) struct Shared<B>(Mutex<State<B>>);

struct State<B> {
    phase: Phase,
    stream: Stream<B>,
    /// The data that the replay sends before it reads the stream.
    kept: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    error: Option<BoxError>,
    /// The number of bytes that may still be kept.
    room: usize,
    first_waker: Option<Waker>,
    replay_waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first body reads the stream, and its frames are kept.
    Keeping,
    /// The replay has begun, and the stream belongs to it.
    Replaying,
    /// There is no replay: the body is too large, or the copy was dropped.
    Sending,
}

enum Stream<B> {
    Idle(B),
    /// Taken out while it is polled.
    PolledBy(Role),
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    First,
    Replay,
}

impl<B> Shared<B> {
    pub(super) fn new(limit: usize) -> Self {
        Self(Mutex::new(State {
            phase: Phase::Keeping,
            // The stream is put in when the request's body has been replaced.
            stream: Stream::PolledBy(Role::First),
            kept: VecDeque::new(),
            trailers: None,
            error: None,
            room: limit,
            first_waker: None,
            replay_waker: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, stream: B) {
        self.lock().stream = Stream::Idle(stream);
    }

    /// Returns true if the replay could begin now.
    pub(super) fn is_keeping(&self) -> bool {
        self.lock().phase == Phase::Keeping
    }

    /// Makes the stream the replay's, unless something that was sent is not kept.
    pub(super) fn hand_over(&self) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Keeping {
            return false;
        }
        state.phase = Phase::Replaying;
        // The first body has to notice that the stream is no longer its own.
        wake(state.first_waker.take(), state);
        true
    }

    pub(super) fn drop_first(&self) {
        let mut state = self.lock();
        if !matches!(state.stream, Stream::PolledBy(Role::First)) {
            return;
        }
        // Polling the stream has panicked.
        state.stream = Stream::Ended;
        state.error = Some(BodyError::Lost.into());
        if state.phase == Phase::Keeping {
            state.phase = Phase::Sending;
        }
        wake(state.replay_waker.take(), state);
    }

    pub(super) fn drop_replay(&self) {
        let mut state = self.lock();
        let kept = mem::take(&mut state.kept);
        state.trailers = None;
        let mut stream = None;
        match state.phase {
            Phase::Keeping => state.phase = Phase::Sending,
            Phase::Replaying => stream = Some(mem::replace(&mut state.stream, Stream::Ended)),
            Phase::Sending => {}
        }
        // Bodies and buffers may have owners with code of their own.
        drop(state);
        drop((kept, stream));
    }
}

impl<B> Shared<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    pub(super) fn is_at_end(&self, role: Role) -> bool {
        let state = self.lock();
        let has_ended = match &state.stream {
            Stream::Idle(stream) => stream.is_end_stream(),
            Stream::PolledBy(_) => false,
            Stream::Ended => true,
        };
        match role {
            // Without its stream, a body never seems complete.
            Role::First => has_ended && state.phase != Phase::Replaying,
            Role::Replay => {
                has_ended && state.phase == Phase::Replaying && !state.has_kept_frames()
            }
        }
    }

    pub(super) fn poll_first(&self, cx: &mut Context<'_>) -> Polled {
        let mut state = self.lock();
        if state.phase == Phase::Replaying {
            return Poll::Ready(Some(Err(BodyError::Replayed.into())));
        }
        let Some(mut stream) = state.stream.take(Role::First) else {
            return Poll::Ready(None);
        };
        drop(state);
        let polled = Pin::new(&mut stream).poll_frame(cx).map_err(Into::into);

        let mut state = self.lock();
        state.stream.put_back(stream, &polled);
        match state.phase {
            Phase::Replaying => {
                // The replay began during this poll, so it gets the frame.
                state.keep_for_replay(polled);
                wake(state.replay_waker.take(), state);
                return Poll::Ready(Some(Err(BodyError::Replayed.into())));
            }
            Phase::Keeping => state.keep(&polled),
            Phase::Sending => {}
        }
        if polled.is_pending() {
            state.first_waker = Some(cx.waker().clone());
        }
        polled
    }

    pub(super) fn poll_replay(&self, cx: &mut Context<'_>) -> Polled {
        let mut state = self.lock();
        if state.phase != Phase::Replaying {
            return Poll::Ready(Some(Err(BodyError::NotKept.into())));
        }
        if let Some(data) = state.kept.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = state.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Some(error) = state.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Stream::PolledBy(Role::First) = state.stream {
            state.replay_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some(mut stream) = state.stream.take(Role::Replay) else {
            return Poll::Ready(None);
        };
        drop(state);
        let polled = Pin::new(&mut stream).poll_frame(cx).map_err(Into::into);
        self.lock().stream.put_back(stream, &polled);
        polled
    }
}

impl<B> State<B> {
    fn has_kept_frames(&self) -> bool {
        !self.kept.is_empty() || self.trailers.is_some() || self.error.is_some()
    }

    /// Keeps what the first body sends, if there is room.
    fn keep(&mut self, polled: &Polled) {
        let kept = match polled {
            Poll::Ready(Some(Ok(frame))) => self.keep_frame(frame),
            // A stream that has failed cannot be read to its end.
            Poll::Ready(Some(Err(_))) => None,
            Poll::Ready(None) | Poll::Pending => Some(()),
        };
        if kept.is_none() {
            self.phase = Phase::Sending;
            self.kept = VecDeque::new();
            self.trailers = None;
        }
    }

    fn keep_frame(&mut self, frame: &Frame<Bytes>) -> Option<()> {
        if self.trailers.is_some() {
            // Nothing belongs after the trailers.
            return None;
        }
        if let Some(data) = frame.data_ref() {
            self.room = self.room.checked_sub(data.len().max(MIN_FRAME))?;
            self.kept.push_back(data.clone());
        } else {
            let trailers = frame.trailers_ref()?;
            let sizes = trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len());
            self.room = self.room.checked_sub(sizes.sum::<usize>().max(MIN_FRAME))?;
            self.trailers = Some(trailers.clone());
        }
        Some(())
    }

    /// Gives the replay what the first body's last poll returned.
    fn keep_for_replay(&mut self, polled: Polled) {
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                // The limit held when the replay began, and one frame more needs little memory.
                self.room = usize::MAX;
                if self.keep_frame(&frame).is_none() {
                    self.error = Some(BodyError::NotKept.into());
                }
            }
            Poll::Ready(Some(Err(error))) => self.error = Some(error),
            Poll::Ready(None) | Poll::Pending => {}
        }
    }
}

impl<B> Stream<B> {
    /// Takes the stream out to poll it. Returns `None` if it has ended.
    fn take(&mut self, role: Role) -> Option<B> {
        match mem::replace(self, Self::PolledBy(role)) {
            Self::Idle(stream) => Some(stream),
            other => {
                *self = other;
                None
            }
        }
    }

    fn put_back<T, E>(&mut self, stream: B, polled: &Poll<Option<Result<T, E>>>) {
        *self = match polled {
            Poll::Ready(None | Some(Err(_))) => Self::Ended,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => Self::Idle(stream),
        };
    }
}

/// Wakes a task after unlocking, because wakers run code of their own.
fn wake<B>(waker: Option<Waker>, state: MutexGuard<'_, State<B>>) {
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The reasons for which a body ends early.
#[derive(Clone, Copy, Debug)]
enum BodyError {
    Replayed,
    NotKept,
    Lost,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replayed => "the request is replayed: the rest of this body goes to the replay",
            Self::NotKept => "the request cannot be replayed: its body was not kept",
            Self::Lost => "the stream of the request body panicked",
        })
    }
}

impl Error for BodyError {}
