//! The tower service: one of the two drivers of the [exchange](crate::exchange).

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower_service::Service;

use crate::cache::within;
use crate::error::BoxError;
use crate::exchange::message::{CopyView, RequestView, ResponseView};
use crate::exchange::{Attach, Replay, RequestPlan, Settings};
use crate::observe::ReplayObstacle;
use crate::policy::replay::Kept;

mod future;
mod waiting;

pub use future::ResponseFuture;
use future::Sent;

/// The longest wait for the inner service before a replay. After it the caller gets the response
/// that is at hand: the inner service may become ready only once that is dropped.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// The service that [`BearerAuthLayer`](crate::BearerAuthLayer) wraps around an inner service.
///
/// Its error is [`BoxError`]: the inner service's own error or a [`TokenError`](crate::TokenError),
/// which `downcast_ref` finds.
///
/// It is ready when the inner service is. A request that has to wait for a token is not sent to the
/// service that was ready, but to a clone of it, which becomes ready after that wait: a permit that
/// the inner service holds when it is ready is not held meanwhile.
///
/// # Cancel safety
///
/// A call may be dropped at any point: a fetch that it started continues for other callers.
pub struct BearerAuth<S> {
    inner: S,
    settings: Arc<SharedSettings>,
    count: Count,
}

/// The layer's settings, behind a reference count that few services share.
///
/// Every request holds the settings until its response. With one count for all clones, threads that
/// use a clone each would contend for it. The alignment keeps two counts off one cache line.
#[derive(Clone)]
#[repr(align(128))]
struct SharedSettings(Arc<Settings>);

/// The reference count that the requests of a service use.
///
/// Many clones send one request and are dropped: it is not worth an allocation of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    /// That of the service which this one was cloned from.
    Shared,
    /// The same; a request was sent.
    SharedAndUsed,
    Own,
}

impl<S: Clone> Clone for BearerAuth<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            settings: Arc::clone(&self.settings),
            count: Count::Shared,
        }
    }
}

impl<S> BearerAuth<S> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self {
            inner,
            settings: Arc::new(SharedSettings(settings)),
            count: Count::Own,
        }
    }

    /// Returns a reference to the inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Consumes `self` and returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Sends a request. This is the hot path: with a usable token it boxes nothing, and the inner
    /// service is called at once.
    #[inline]
    pub(crate) fn send<Q>(&mut self, mut request: Q) -> ResponseFuture<S, Q>
    where
        Q: RequestView<Copy: Send> + Send + 'static,
        S: Service<Q> + Clone + Send + 'static,
        S::Response: ResponseView + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        if self.count != Count::Own {
            self.take_count();
        }
        let settings = &*self.settings.0;
        let plan = match settings.plan(&request, request.request_auth()) {
            Ok(Some(plan)) => plan,
            Ok(None) => return ResponseFuture::pass_through(self.inner.call(request)),
            Err(error) => {
                self.discard_readiness();
                return ResponseFuture::failed(error.into());
            }
        };
        let kept = settings.keep(&plan, &mut request);
        let attached = match settings.attach_cached(&plan, &mut request) {
            Attach::Attached(attached) => attached,
            Attach::HeaderIsSet => return ResponseFuture::pass_through(self.inner.call(request)),
            Attach::NoToken => return self.wait_and_send(plan, request),
        };
        // Each case puts its future together at the end: large parts are moved once, and a part
        // that is not there is not moved at all.
        if let Kept::Nothing = kept {
            let settings = Arc::clone(&self.settings);
            let future = self.inner.call(request);
            let sent = Sent::new(settings, plan, attached);
            return ResponseFuture::sent(future, sent, Kept::Nothing, None);
        }
        let service = matches!(kept, Kept::Copy(_)).then(|| self.inner.clone());
        let future = self.inner.call(request);
        let sent = Sent::new(Arc::clone(&self.settings), plan, attached);
        ResponseFuture::sent(future, sent, kept, service)
    }

    /// Gives the service a count of its own for its second request.
    #[inline(never)]
    fn take_count(&mut self) {
        self.count = match self.count {
            Count::Shared => Count::SharedAndUsed,
            Count::SharedAndUsed | Count::Own => {
                self.settings = Arc::new((*self.settings).clone());
                Count::Own
            }
        };
    }

    /// Sends a request once there is a token for it.
    #[cold]
    fn wait_and_send<Q>(&mut self, plan: RequestPlan, request: Q) -> ResponseFuture<S, Q>
    where
        Q: RequestView<Copy: Send> + Send + 'static,
        S: Service<Q> + Clone + Send + 'static,
        S::Response: ResponseView + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        self.discard_readiness();
        let service = self.inner.clone();
        let settings = Arc::clone(&self.settings);
        ResponseFuture::waiting(waiting::wait::<S, Q>(settings, plan, service), request)
    }

    /// Replaces the inner service, which was polled ready and is not called, with a clone.
    ///
    /// A service that is ready may hold a permit that others wait for, the token transport among
    /// them.
    #[cold]
    fn discard_readiness(&mut self)
    where
        S: Clone,
    {
        self.inner = self.inner.clone();
    }
}

impl<S, B, R> Service<Request<B>> for BearerAuth<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
    R: Send + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, Request<B>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.send(request)
    }
}

impl<S: fmt::Debug> fmt::Debug for BearerAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerAuth")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

/// Replays a rejected request with another token. Without one, or if the service does not become
/// ready or the replay fails at once, returns the rejection.
async fn replay_request<S, Q>(
    mut replay: Replay<Arc<Settings>>,
    mut service: S,
    mut copy: Q::Copy,
    mut rejection: S::Response,
) -> Result<S::Response, BoxError>
where
    Q: RequestView,
    S: Service<Q>,
    S::Response: ResponseView,
    S::Error: Into<BoxError>,
{
    let Some(token) = replay.acquire(&mut rejection).await else {
        return Ok(rejection);
    };
    let ready = within(
        Instant::now() + READY_LIMIT,
        poll_fn(|cx| service.poll_ready(cx)),
    );
    let is_ready = match ready {
        Ok(ready) => matches!(ready.await, Ok(Ok(()))),
        Err(_) => false,
    };
    if !is_ready {
        replay.give_up(ReplayObstacle::NotReady);
        return Ok(rejection);
    }
    // Until now, the first body was still being sent, and may have become too large to keep.
    if !copy.begin_replay() {
        replay.give_up(ReplayObstacle::Body);
        return Ok(rejection);
    }
    let (request, kept) = replay.attach::<Q>(&token, copy);
    let response = service.call(request);
    let response = replay.receive(response, kept, rejection).await;
    response.map_err(Into::into)
}
