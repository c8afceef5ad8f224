//! The tower service: a driver of the [exchange](crate::exchange).

use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower_service::Service;

use crate::cache::within;
use crate::error::BoxError;
use crate::exchange::message::{RequestView, ResponseView};
use crate::exchange::{Next, Replay, RequestPlan, Settings, carry};

mod future;

pub use future::ResponseFuture;
use future::Sent;

/// How long the inner service may take to be ready for the second sending. Beyond that the caller is
/// better off with the answer that is there; the inner service may even be waiting until that is dropped.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// The service that [`BearerAuthLayer`](crate::BearerAuthLayer) makes.
///
/// Its error is [`BoxError`]: the inner service's own, or a [`TokenError`](crate::TokenError), which
/// `downcast_ref` finds.
///
/// # Cancel safety
///
/// A call may be dropped at any point: a fetch that it began goes on for others.
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

    /// The fast path: a token that is in order goes into the request, and the request goes on, with nothing
    /// boxed and nothing awaited.
    #[inline]
    pub(crate) fn send<Q>(&mut self, mut request: Q) -> ResponseFuture<S, Q>
    where
        Q: RequestView + Send + 'static,
        S: Service<Q> + Clone + Send + 'static,
        S::Response: ResponseView + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let settings = &self.settings;
        let plan = match settings.0.open(&request, request.request_auth()) {
            Ok(Some(plan)) => plan,
            Ok(None) => return ResponseFuture::passing(self.inner.call(request)),
            Err(error) => return ResponseFuture::failed(error.into()),
        };
        let copy = settings.0.copy(&plan, &request);
        let Some(attached) = settings.0.carry_at_once(&plan, &mut request) else {
            let settings = Arc::clone(&settings.0);
            // The clone that stays behind has yet to be made ready, the one that was goes along.
            let clone = self.inner.clone();
            let ready = mem::replace(&mut self.inner, clone);
            return ResponseFuture::slow(acquire_and_send(settings, plan, ready, request));
        };
        // What goes into the future is put together last: it is not moved about meanwhile, and a `None`
        // that is known to be one is not moved at full size.
        match copy {
            Some(copy) => {
                let kept = (self.inner.clone(), copy);
                let future = self.inner.call(request);
                let sent = Sent::new(Arc::clone(settings), plan, attached);
                ResponseFuture::sending(future, sent, Some(kept))
            }
            None => {
                let future = self.inner.call(request);
                let sent = Sent::new(Arc::clone(settings), plan, attached);
                ResponseFuture::sending(future, sent, None)
            }
        }
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

/// No token was in order: waits for one if need be, then goes on as the fast path does.
async fn acquire_and_send<S, Q>(
    settings: Arc<Settings>,
    plan: RequestPlan,
    mut service: S,
    mut request: Q,
) -> Result<S::Response, BoxError>
where
    Q: RequestView,
    S: Service<Q>,
    S::Response: ResponseView,
    S::Error: Into<BoxError>,
{
    let current = settings.acquire(&plan).await?;
    let copy = settings.copy(&plan, &request);
    let attached = carry(&current, &mut request);
    let answer = service.call(request).await.map_err(Into::into)?;
    let next = settings.answered(&plan, attached, &answer, copy.is_some());
    match (next, copy) {
        (Next::Renew(owed), Some(copy)) => {
            let replay = Replay::new(settings, plan, attached, owed);
            renew_and_replay(replay, service, copy, answer).await
        }
        _ => Ok(answer),
    }
}

/// The first answer was a refusal: sends the copy with another token, if there is one to be had and
/// the service is ready for it. Else the refusal is the answer.
async fn renew_and_replay<S, Q>(
    mut replay: Replay<Arc<Settings>>,
    mut service: S,
    mut copy: Q,
    refusal: S::Response,
) -> Result<S::Response, BoxError>
where
    Q: RequestView,
    S: Service<Q>,
    S::Response: ResponseView,
    S::Error: Into<BoxError>,
{
    let Some(current) = replay.acquire().await else {
        return Ok(refusal);
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
        return Ok(refusal);
    }
    drop(refusal);
    replay.carry(&current, &mut copy);
    let answer = service.call(copy).await.map_err(Into::into)?;
    replay.replayed(&answer);
    Ok(answer)
}
