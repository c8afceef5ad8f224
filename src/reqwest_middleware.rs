//! The reqwest middleware: one of the two drivers of the [exchange](crate::exchange).

use std::future::Future;
use std::pin::Pin;

use http::Extensions;

use super::client::{Request, Response};
use super::client_middleware::{Error, Middleware, Next, Result};
use crate::error::TokenError;
use crate::exchange::{Attach, NextStep, Replay, Settings};
use crate::layer::BearerAuthLayer;
use crate::policy::replay::Kept;

/// A failure to get a token is a [`TokenError`] inside `Error::Middleware`, which
/// [`TokenError::find`] and anyhow's `downcast_ref` find.
///
/// # Cancel safety
///
/// A call may be dropped at any point: a fetch that it started continues for other callers.
impl Middleware for BearerAuthLayer {
    // The expansion of `#[async_trait]` with the lifetimes of the trait, but without its second
    // copy of each argument in the future.
    fn handle<'layer, 'extensions, 'next, 'future>(
        &'layer self,
        mut request: Request,
        extensions: &'extensions mut Extensions,
        next: Next<'next>,
    ) -> Pin<Box<dyn Future<Output = Result<Response>> + Send + 'future>>
    where
        'layer: 'future,
        'extensions: 'future,
        'next: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let settings = &*self.settings;
            let plan = settings.plan(&request, extensions.get());
            let Some(plan) = plan.map_err(token_error)? else {
                return next.run(request, extensions).await;
            };
            let mut kept = settings.keep(&plan, &mut request);
            let attached = match settings.attach_cached(&plan, &mut request) {
                Attach::Attached(attached) => attached,
                Attach::HeaderIsSet => return next.run(request, extensions).await,
                Attach::NoToken => {
                    // A request that waits is in memory once, not twice.
                    drop(kept);
                    // Boxed because it is rare: every request pays for the size of this future.
                    let token = Box::pin(settings.acquire(&plan)).await;
                    let token = token.map_err(token_error)?;
                    kept = settings.keep(&plan, &mut request);
                    match settings.attach(&token, &mut request) {
                        Some(attached) => attached,
                        None => return next.run(request, extensions).await,
                    }
                }
            };
            let mut response = next.clone().run(request, extensions).await?;
            match settings.next_step(&plan, attached, &mut response, &kept) {
                NextStep::Return => Ok(response),
                NextStep::Replay(pending_verdict) => {
                    let replay = Replay::new(settings, plan, attached, pending_verdict);
                    Box::pin(replay_request(replay, kept, response, extensions, next)).await
                }
            }
        })
    }
}

/// Replays a rejected request with another token. Without one, or if the replay fails at once,
/// returns the rejection.
async fn replay_request(
    mut replay: Replay<&Settings>,
    kept: Kept<Request>,
    mut rejection: Response,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Response> {
    let (Some(token), Kept::Copy(copy)) = (replay.acquire(&mut rejection).await, kept) else {
        return Ok(rejection);
    };
    let (request, kept) = replay.attach::<Request>(&token, copy);
    let response = next.run(request, extensions);
    replay.receive(response, kept, rejection).await
}

/// Returns the error as the cause of its own text. `Error`, like the wrappers of other middlewares,
/// passes on only the causes of what it holds, and would hide the error itself.
fn token_error(error: TokenError) -> Error {
    let text = error.to_string();
    match Error::middleware(error) {
        Error::Middleware(error) => Error::Middleware(error.context(text)),
        error => error,
    }
}
