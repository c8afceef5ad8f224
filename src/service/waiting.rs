//! A request that waits for a token.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tower_service::Service;

use crate::cache::cached_token::CachedToken;
use crate::error::BoxError;
use crate::exchange::{RequestPlan, Settings};
use crate::policy::replay::Kept;
use crate::service::SharedSettings;

/// The wait of a request that has no token yet.
///
/// Thousands of requests may wait, so it ends before the request is sent: the future holds nothing
/// that is needed only later.
pub(super) type Waiting<S, Q> =
    Pin<Box<dyn Future<Output = Result<Granted<S, Q>, BoxError>> + Send>>;

/// A request that waits for nothing any more.
pub(super) struct Granted<S, Q> {
    pub(super) held: Held<Q>,
    pub(super) token: Arc<CachedToken>,
    /// Ready, and polled by this request alone.
    pub(super) service: S,
}

/// The parts of a request that are held while it waits.
pub(super) struct Held<Q> {
    pub(super) settings: Arc<SharedSettings>,
    pub(super) plan: RequestPlan,
    pub(super) request: Q,
    pub(super) kept: Kept<Q>,
}

/// Waits for a token and for the service.
pub(super) fn wait<S, Q>(held: Held<Q>, mut service: S) -> Waiting<S, Q>
where
    Q: Send + 'static,
    S: Service<Q> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
{
    // A block rather than a function, whose future would have space for its arguments twice.
    Box::pin(async move {
        let wait = acquire_then_ready(&held.settings.0, &held.plan, &mut service);
        let (token, service) = wait.await?;
        Ok(Granted {
            held,
            token,
            service,
        })
    })
}

/// Waits for a token, then until the service is ready. Returns the token and a clone of the service.
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
