//! The reqwest-middleware stacks that are compared: all end in a middleware that answers at once.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bearer_auth::BearerAuthLayer;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderValue};
use reqwest::{Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};

use crate::stack::TOKEN;

/// Ends the stack. The answer brings its URL along, as a client's does: else reqwest would parse one for
/// each, which takes longer than all that is measured.
struct Answer;

#[async_trait]
impl Middleware for Answer {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        let answer = http::Response::builder().url(request.url().clone());
        Ok(answer.body("").expect("an answer").into())
    }
}

/// Sets a constant header; with `COPIES`, it keeps a copy of the request until the answer is there, as
/// whoever sends it again by hand must.
struct Fixed<const COPIES: bool>(HeaderValue);

#[async_trait]
impl<const COPIES: bool> Middleware for Fixed<COPIES> {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let copy = if COPIES { request.try_clone() } else { None };
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        let answer = next.run(request, extensions).await;
        drop(copy);
        answer
    }
}

fn client(middleware: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new())
        .with(middleware)
        .with(Answer)
        .build()
}

/// Nothing but the end.
pub(crate) fn bare() -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new())
        .with(Answer)
        .build()
}

pub(crate) fn fixed() -> ClientWithMiddleware {
    client(Fixed::<false>(value()))
}

pub(crate) fn copying() -> ClientWithMiddleware {
    client(Fixed::<true>(value()))
}

pub(crate) fn bearer(layer: BearerAuthLayer) -> ClientWithMiddleware {
    client(layer.without_replay())
}

pub(crate) fn replaying(layer: BearerAuthLayer) -> ClientWithMiddleware {
    client(layer)
}

fn value() -> HeaderValue {
    let value = format!("Bearer {}", "x".repeat(TOKEN));
    let mut value = HeaderValue::try_from(value).expect("ASCII");
    value.set_sensitive(true);
    value
}

pub(crate) fn url() -> Url {
    "https://api.example.com/v1/transactions"
        .parse()
        .expect("a URL")
}

/// Drives one request through a stack that answers at once.
pub(crate) fn send(client: &ClientWithMiddleware, url: &Url) -> Response {
    let request = Request::new(http::Method::GET, url.clone());
    match pin!(client.execute(request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(answer)) => answer,
        _ => panic!("no answer"),
    }
}
