//! Bodies that can only be read once: what was sent is kept, and the replay sends it again.
//!
//! A request and its copy share one stream. The request's body reads it and keeps its frames. When
//! the replay begins, the copy sends the kept frames and then reads the rest of the stream itself.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, SizeHint};

use crate::error::BoxError;
use crate::policy::replay::BodyCopy;

mod shared;

use shared::{Polled, Role, Shared};

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

/// The copy's handle to its body.
#[derive(Clone)]
pub(crate) struct BufferedReplay(Arc<dyn Replayable>);

trait Replayable: Send + Sync {
    fn can_begin(&self) -> bool;

    fn begin(&self) -> bool;
}

/// Copies a body, and replaces it by one that is kept up to `limit` bytes.
pub(super) fn copy_buffered<B>(
    body: &mut B,
    limit: usize,
    wrap: impl Fn(ReplayBody<B>) -> B,
) -> BodyCopy<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        return BodyCopy::from(wrap(ReplayBody::empty()));
    }
    let size_hint = body.size_hint();
    let shared = Arc::new(Shared::new(limit));
    let part = |role| ReplayBody {
        shared: Some(Arc::clone(&shared)),
        role,
        size_hint,
    };
    let stream = mem::replace(body, wrap(part(Role::First)));
    shared.put(stream);
    BodyCopy {
        body: wrap(part(Role::Replay)),
        buffered: Some(BufferedReplay(shared)),
    }
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

impl<B: Send> Replayable for Shared<B> {
    fn can_begin(&self) -> bool {
        self.is_keeping()
    }

    fn begin(&self) -> bool {
        self.hand_over()
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

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
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
        match &self.shared {
            Some(shared) => shared.is_at_end(self.role),
            None => true,
        }
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

#[cfg(test)]
mod tests;
