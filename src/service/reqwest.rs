//! The tower service around a `reqwest::Client`.

use std::task::{Context, Poll};

use tower_service::Service;

use super::client::{Request, Response};
use crate::error::BoxError;
use crate::service::{BearerAuth, ResponseFuture};

impl<S> Service<Request> for BearerAuth<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Request>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.get_mut().poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request) -> Self::Future {
        self.send(request)
    }
}
