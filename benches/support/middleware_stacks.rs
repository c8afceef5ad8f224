//! The reqwest-middleware stacks under comparison. All of them end in a middleware that responds
//! immediately.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bearer_auth::BearerAuthLayer;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderValue};
use reqwest::{Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};

use super::tower_stacks::constant_value;

/// The last middleware of each stack, which responds in place of the client.
///
/// Its response carries the request's URL, as that of a client does. Without one, reqwest parses a
/// URL for each response, which takes longer than everything measured here.
struct Respond;

#[async_trait]
impl Middleware for Respond {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        let response = http::Response::builder().url(request.url().clone());
        Ok(response.body("").expect("a response").into())
    }
}

/// Sets a constant header. With `COPY`, it keeps a copy of the request until the response arrives,
/// as a replay needs one.
struct ConstantHeader<const COPY: bool>(HeaderValue);

#[async_trait]
impl<const COPY: bool> Middleware for ConstantHeader<COPY> {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let copy = if COPY { request.try_clone() } else { None };
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        let response = next.run(request, extensions).await;
        drop(copy);
        response
    }
}

fn client(middleware: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new())
        .with(middleware)
        .with(Respond)
        .build()
}

/// Returns a stack without authorization.
pub(crate) fn bare() -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new())
        .with(Respond)
        .build()
}

pub(crate) fn constant_header() -> ClientWithMiddleware {
    client(ConstantHeader::<false>(constant_value()))
}

pub(crate) fn constant_header_and_copy() -> ClientWithMiddleware {
    client(ConstantHeader::<true>(constant_value()))
}

/// Returns a stack that attaches a token and never replays.
pub(crate) fn token(layer: BearerAuthLayer) -> ClientWithMiddleware {
    client(layer.without_replay())
}

/// Returns a stack that attaches a token and replays after a rejection.
pub(crate) fn token_with_replay(layer: BearerAuthLayer) -> ClientWithMiddleware {
    client(layer)
}

pub(crate) fn url() -> Url {
    "https://api.example.com/v1/transactions"
        .parse()
        .expect("a URL")
}

/// Sends one request through a stack that responds on the first poll.
pub(crate) fn send(client: &ClientWithMiddleware, url: &Url) -> Response {
    let request = Request::new(http::Method::GET, url.clone());
    match pin!(client.execute(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        _ => panic!("no response"),
    }
}
