//! Bodies that can only be read once: what was sent is kept, and the replay sends it again.
//!
//! A request and its copy share one stream. The request's body reads it and keeps its frames. When
//! the replay begins, the copy sends the kept frames and then reads the rest of the stream itself.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;
use crate::policy::replay::{Kept, copy_with_body};

/// The least that a frame counts for, so that many small ones need little memory, too.
const MIN_FRAME: usize = 64;

/// A request body that is kept while it is sent, so that it can be sent again.
///
/// [`BearerAuthLayer::replay_buffered`](crate::BearerAuthLayer::replay_buffered) creates it around
/// a body `B`, once for the request and once for its replay. Both send the same frames and
/// trailers. The frames are shared, not copied.
///
/// When the replay begins, the rest of the stream belongs to it. If the first body was still being
/// sent, it then ends with an error, so that no server takes it for complete.
///
/// # Cancel safety
///
/// It may be dropped at any point. When the copy is dropped, which happens at the latest with the
/// response, the first body keeps nothing more and frees what it kept.
pub struct ReplayBody<B> {
    /// `None` for an empty body.
    shared: Option<Arc<Shared<B>>>,
    role: Role,
    /// The size of what this body has yet to send.
    size_hint: SizeHint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    First,
    Replay,
}

/// The stream of a request and its copy. It is locked for moments only, and not while the stream is
/// polled.
struct Shared<B>(Mutex<State<B>>);

struct State<B> {
    phase: Phase,
    stream: Stream<B>,
    /// What the replay sends before it reads the stream.
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

/// The copy's handle to its body, in the extensions of the copy.
#[derive(Clone)]
pub(crate) struct BufferedReplay(Arc<dyn Replayable>);

trait Replayable: Send + Sync {
    fn can_begin(&self) -> bool;

    fn begin(&self) -> bool;
}

/// Copies a request and replaces its body by one that is kept up to `limit` bytes.
pub(super) fn copy_buffered<B>(
    request: &mut Request<B>,
    limit: usize,
    wrap: impl Fn(ReplayBody<B>) -> B,
) -> Kept<Request<B>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    if request.body().is_end_stream() {
        return Kept::Copy(copy_with_body(request, wrap(ReplayBody::empty())));
    }
    let size_hint = request.body().size_hint();
    let shared = Arc::new(Shared::new(limit));
    let body = |role| ReplayBody {
        shared: Some(Arc::clone(&shared)),
        role,
        size_hint,
    };
    let stream = mem::replace(request.body_mut(), wrap(body(Role::First)));
    shared.lock().stream = Stream::Idle(stream);
    let mut copy = copy_with_body(request, wrap(body(Role::Replay)));
    copy.extensions_mut().insert(BufferedReplay(shared));
    Kept::Copy(copy)
}

impl BufferedReplay {
    /// Returns true if all that was sent until now is kept.
    pub(crate) fn can_begin(&self) -> bool {
        self.0.can_begin()
    }

    /// Hands the stream over to the replay. Returns false if that has become impossible.
    pub(crate) fn begin(&self) -> bool {
        self.0.begin()
    }
}

impl<B> ReplayBody<B> {
    fn empty() -> Self {
        Self {
            shared: None,
            role: Role::Replay,
            size_hint: SizeHint::with_exact(0),
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(shared) = &self.shared else {
            return Poll::Ready(None);
        };
        let polled = match self.role {
            Role::First => shared.poll_first(cx),
            Role::Replay => shared.poll_replay(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.size_hint = rest(&self.size_hint, data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        let state = shared.lock();
        let has_stream_ended = match &state.stream {
            Stream::Idle(stream) => stream.is_end_stream(),
            Stream::PolledBy(_) => false,
            Stream::Ended => true,
        };
        let belongs_to_other = (self.role == Role::Replay) != (state.phase == Phase::Replaying);
        // The kept frames are the replay's.
        let is_sent = self.role == Role::First || !state.has_kept_frames();
        has_stream_ended && !belongs_to_other && is_sent
    }

    fn size_hint(&self) -> SizeHint {
        self.size_hint
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        match self.role {
            Role::First => shared.drop_first(),
            Role::Replay => shared.drop_replay(),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("role", &self.role)
            .field("size_hint", &self.size_hint)
            .finish_non_exhaustive()
    }
}

impl<B> Shared<B> {
    fn new(limit: usize) -> Self {
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

    /// Makes the stream the replay's, unless something that was sent is not kept.
    fn hand_over(&self) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Keeping {
            return false;
        }
        state.phase = Phase::Replaying;
        // The first body has to notice that the stream is no longer its own.
        wake(state.first_waker.take(), state);
        true
    }

    fn drop_first(&self) {
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

    fn drop_replay(&self) {
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
    fn poll_first(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
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

    fn poll_replay(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
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

impl<B: Send> Replayable for Shared<B> {
    fn can_begin(&self) -> bool {
        self.lock().phase == Phase::Keeping
    }

    fn begin(&self) -> bool {
        self.hand_over()
    }
}

impl<B> State<B> {
    fn has_kept_frames(&self) -> bool {
        !self.kept.is_empty() || self.trailers.is_some() || self.error.is_some()
    }

    /// Keeps what the first body sends, if there is room.
    fn keep(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, BoxError>>>) {
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
    fn keep_for_replay(&mut self, polled: Poll<Option<Result<Frame<Bytes>, BoxError>>>) {
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

/// Returns the size of what is left after `sent` bytes.
fn rest(hint: &SizeHint, sent: usize) -> SizeHint {
    let sent = u64::try_from(sent).unwrap_or(u64::MAX);
    let mut rest = SizeHint::new();
    rest.set_lower(hint.lower().saturating_sub(sent));
    if let Some(upper) = hint.upper() {
        rest.set_upper(upper.saturating_sub(sent));
    }
    rest
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

#[cfg(test)]
mod tests;
