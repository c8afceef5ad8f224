//! A request that waits for a token.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tower_service::Service;

use crate::cache::cached_token::CachedToken;
use crate::error::BoxError;
use crate::exchange::{RequestPlan, Settings};
use crate::service::SharedSettings;

/// The wait of a request that has no token yet.
///
/// Thousands of requests may wait, and each byte that they hold is read again when they all
/// continue at once. So this holds only what it needs itself, and the request is not copied for a
/// replay until it is sent.
pub(super) type Waiting<S> = Pin<Box<dyn Future<Output = Result<Granted<S>, BoxError>> + Send>>;

/// The parts that a request is sent with after its wait.
pub(super) struct Granted<S> {
    pub(super) settings: Arc<SharedSettings>,
    pub(super) plan: RequestPlan,
    pub(super) token: Arc<CachedToken>,
    /// Ready, and polled for this request alone.
    pub(super) service: S,
}

/// Waits for a token and for the service.
pub(super) fn wait<S, Q>(
    settings: Arc<SharedSettings>,
    plan: RequestPlan,
    mut service: S,
) -> Waiting<S>
where
    S: Service<Q> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    // A block rather than a function, whose future would have space for its arguments twice.
    Box::pin(async move {
        let (token, service) = acquire_then_ready(&settings.0, &plan, &mut service).await?;
        Ok(Granted {
            settings,
            plan,
            token,
            service,
        })
    })
}

/// Waits for a token, then until the service is ready. Returns the token and a clone of the
/// service.
///
/// The service is not ready while this waits for a token, see
/// [`BearerAuth::discard_readiness`](super::BearerAuth::discard_readiness).
async fn acquire_then_ready<S, Q>(
    settings: &Settings,
    plan: &RequestPlan,
    service: &mut S,
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
    let mut current = Box::pin(settings.acquire(plan));
    if let Poll::Ready(token) = poll_fn(|cx| Poll::Ready(current.as_mut().poll(cx))).await {
        return Ok((token?, ready));
    }
    drop(ready);
    let token = current.await?;
    let mut ready = service.clone();
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
