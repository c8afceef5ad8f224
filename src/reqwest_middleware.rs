//! The middleware for reqwest-middleware: a driver of the [exchange](crate::exchange).

use std::future::Future;
use std::pin::Pin;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next as Chain, Result};

use crate::exchange::{Next, Replay, Settings, carry};
use crate::layer::BearerAuthLayer;

/// Errors of the token are [`TokenError`](crate::TokenError)s inside of `Error::Middleware`, which
/// `downcast_ref` finds.
///
/// # Cancel safety
///
/// A call may be dropped at any point: a fetch that it began goes on for others.
impl Middleware for BearerAuthLayer {
    // What `#[async_trait]` makes of an `async fn`, with its lifetimes, which must be the trait's; less its
    // second copy of each argument in the future.
    fn handle<'layer, 'extensions, 'chain, 'future>(
        &'layer self,
        mut request: Request,
        extensions: &'extensions mut Extensions,
        chain: Chain<'chain>,
    ) -> Pin<Box<dyn Future<Output = Result<Response>> + Send + 'future>>
    where
        'layer: 'future,
        'extensions: 'future,
        'chain: 'future,
        Self: 'future,
    {
        Box::pin(async move {
            let settings = &*self.settings;
            let opened = settings.open(&request, extensions.get());
            let Some(plan) = opened.map_err(Error::middleware)? else {
                return chain.run(request, extensions).await;
            };
            let mut copy = settings.copy(&plan, &request);
            let attached = match settings.carry_at_once(&plan, &mut request) {
                Some(attached) => attached,
                None => {
                    // Whoever waits holds one request, not two.
                    drop(copy);
                    // Boxed, as all that is rare: every request pays for the size of this future.
                    let acquired = Box::pin(settings.acquire(&plan)).await;
                    let current = acquired.map_err(Error::middleware)?;
                    copy = settings.copy(&plan, &request);
                    carry(&current, &mut request)
                }
            };
            let answer = chain.clone().run(request, extensions).await?;
            match settings.answered(&plan, attached, &answer, copy.is_some()) {
                Next::Return => Ok(answer),
                Next::Renew(owed) => {
                    let replay = Replay::new(settings, plan, attached, owed);
                    Box::pin(renew_and_replay(replay, copy, answer, extensions, chain)).await
                }
            }
        })
    }
}

/// The first answer was a refusal: sends the copy with another token, if there is one to be had. Else
/// the refusal is the answer.
async fn renew_and_replay(
    mut replay: Replay<&Settings>,
    copy: Option<Request>,
    refusal: Response,
    extensions: &mut Extensions,
    chain: Chain<'_>,
) -> Result<Response> {
    let (Some(current), Some(mut copy)) = (replay.acquire().await, copy) else {
        return Ok(refusal);
    };
    drop(refusal);
    replay.carry(&current, &mut copy);
    let answer = chain.run(copy, extensions).await?;
    replay.replayed(&answer);
    Ok(answer)
}
