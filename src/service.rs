//! The tower service: one of the two drivers of the [exchange](crate::exchange).

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower_service::Service;

use crate::cache::cached_token::CachedToken;
use crate::cache::within;
use crate::error::BoxError;
use crate::exchange::message::{RequestView, ResponseView};
use crate::exchange::{Attach, NextStep, Replay, RequestPlan, Settings};
use crate::observe::ReplayObstacle;
use crate::policy::replay::Kept;

mod future;

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
}

/// The layer's settings, behind a reference count of this service's own.
///
/// Every request holds the settings until its response. With one count for all clones, threads that
/// use a clone each would contend for it. The alignment keeps two counts off one cache line.
#[derive(Clone)]
#[repr(align(128))]
struct SharedSettings(Arc<Settings>);

impl<S: Clone> Clone for BearerAuth<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            settings: Arc::new((*self.settings).clone()),
        }
    }
}

impl<S> BearerAuth<S> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self {
            inner,
            settings: Arc::new(SharedSettings(settings)),
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
        Q: RequestView + Send + 'static,
        S: Service<Q> + Clone + Send + 'static,
        S::Response: ResponseView + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
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
            Attach::NoToken => {
                let settings = Arc::clone(&self.settings.0);
                self.discard_readiness();
                let service = self.inner.clone();
                return ResponseFuture::boxed(acquire_and_send(settings, plan, service, request));
            }
        };
        // Each case puts its future together at the end: large parts are moved once, and a part
        // that is not there is not moved at all.
        let sent = |service: &Self| Sent::new(Arc::clone(&service.settings), plan, attached);
        match kept {
            Kept::Copy(copy) => {
                let service = Some(self.inner.clone());
                let future = self.inner.call(request);
                ResponseFuture::sent(future, sent(self), Kept::Copy(copy), service)
            }
            Kept::Origin(origin) => {
                let future = self.inner.call(request);
                ResponseFuture::sent(future, sent(self), Kept::Origin(origin), None)
            }
            Kept::Nothing => {
                let future = self.inner.call(request);
                ResponseFuture::sent(future, sent(self), Kept::Nothing, None)
            }
        }
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

#[cfg(feature = "reqwest")]
impl<S> Service<reqwest::Request> for BearerAuth<S>
where
    S: Service<reqwest::Request, Response = reqwest::Response> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = reqwest::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, reqwest::Request>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: reqwest::Request) -> Self::Future {
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

/// Waits for a token and for the service, then continues as the hot path does.
async fn acquire_and_send<S, Q>(
    settings: Arc<Settings>,
    plan: RequestPlan,
    service: S,
    mut request: Q,
) -> Result<S::Response, BoxError>
where
    Q: RequestView,
    S: Service<Q> + Clone,
    S::Response: ResponseView,
    S::Error: Into<BoxError>,
{
    let (token, mut service) = acquire_then_ready::<S, Q>(&settings, &plan, service).await?;
    let kept = settings.keep(&plan, &mut request);
    let attached = settings.attach(&token, &mut request);
    let response = service.call(request).await.map_err(Into::into)?;
    let Some(attached) = attached else {
        return Ok(response);
    };
    let step = settings.next_step(&plan, attached, &response, &kept);
    match (step, kept) {
        (NextStep::Replay(pending_verdict), Kept::Copy(copy)) => {
            let replay = Replay::new(settings, plan, attached, pending_verdict);
            replay_request(replay, service, copy, response).await
        }
        _ => Ok(response),
    }
}

/// Waits for a token, then until the service is ready. Returns both.
///
/// The service is not ready while this waits for a token, see [`BearerAuth::discard_readiness`].
async fn acquire_then_ready<S, Q>(
    settings: &Settings,
    plan: &RequestPlan,
    service: S,
) -> Result<(Arc<CachedToken>, S), BoxError>
where
    S: Service<Q> + Clone,
    S::Error: Into<BoxError>,
{
    let token = settings.acquire(plan).await?;
    let mut ready = service.clone();
    if !wait_until_ready(&mut ready).await? {
        return Ok((token, ready));
    }
    // The token may have expired or been rejected during that wait. If another one is there, this
    // is ready at once.
    let mut current = pin!(settings.acquire(plan));
    if let Poll::Ready(token) = poll_fn(|cx| Poll::Ready(current.as_mut().poll(cx))).await {
        return Ok((token?, ready));
    }
    drop(ready);
    let token = current.await?;
    let mut ready = service;
    wait_until_ready(&mut ready).await?;
    Ok((token, ready))
}

/// Returns true if the service was not ready at once.
async fn wait_until_ready<S, Q>(service: &mut S) -> Result<bool, BoxError>
where
    S: Service<Q>,
    S::Error: Into<BoxError>,
{
    let mut has_waited = false;
    poll_fn(|cx| {
        let poll = service.poll_ready(cx);
        has_waited |= poll.is_pending();
        poll
    })
    .await
    .map_err(Into::into)?;
    Ok(has_waited)
}

/// Replays a rejected request with another token. Without one, or if the service does not become
/// ready or the replay fails at once, returns the rejection.
async fn replay_request<S, Q>(
    mut replay: Replay<Arc<Settings>>,
    mut service: S,
    mut copy: Q,
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
    let kept = replay.attach(&token, &mut copy);
    let response = service.call(copy);
    let response = replay.receive(response, kept, rejection).await;
    response.map_err(Into::into)
}
