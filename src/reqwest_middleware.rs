//! The middleware for reqwest-middleware: a driver of the [exchange](crate::exchange).

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next as Chain, Result};

use crate::exchange::{Exchange, Next, Opening};
use crate::layer::BearerAuthLayer;

/// Errors of the token are [`TokenError`](crate::TokenError)s inside of `Error::Middleware`, which
/// `downcast_ref` finds.
///
/// # Cancel safety
///
/// A call may be dropped at any point: a fetch that it began goes on for others.
#[async_trait]
impl Middleware for BearerAuthLayer {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        chain: Chain<'_>,
    ) -> Result<Response> {
        let mut exchange = match Exchange::open(&*self.settings, &request, extensions.get()) {
            Opening::Carry(exchange) => exchange,
            Opening::Pass => return chain.run(request, extensions).await,
            Opening::Refuse(error) => return Err(Error::middleware(error)),
        };
        let granted = match exchange.fresh() {
            Some(granted) => granted,
            None => exchange.acquire().await.map_err(Error::middleware)?,
        };
        let copy = exchange.copy(&request);
        exchange.carry(granted, &mut request);
        let answer = chain.clone().run(request, extensions).await?;
        let (Next::Renew, Some(mut copy)) = (exchange.answered(&answer, copy.is_some()), copy)
        else {
            return Ok(answer);
        };
        let renewed = exchange.acquire().await;
        let Some(granted) = exchange.renewed(renewed) else {
            return Ok(answer);
        };
        drop(answer);
        exchange.carry(granted, &mut copy);
        let answer = chain.run(copy, extensions).await?;
        exchange.replayed(&answer);
        Ok(answer)
    }
}
