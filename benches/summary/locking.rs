//! A hand-written layer that callers without a token are compared with.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tower::Service;

use crate::tower_stacks::{Noop, constant_value};

/// A service that holds a lock while it fetches its token, as many are written by hand.
#[derive(Clone)]
pub(super) struct Locking {
    header: Arc<Mutex<Option<HeaderValue>>>,
    latency: Duration,
    inner: Noop,
}

impl Service<Request<()>> for Locking {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<()>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<()>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let Self {
            header,
            latency,
            mut inner,
        } = self.clone();
        Box::pin(async move {
            let mut held = header.lock().await;
            if held.is_none() {
                sleep(latency).await;
                *held = Some(constant_value());
            }
            let value = held.clone().expect("a token");
            drop(held);
            request.headers_mut().insert(AUTHORIZATION, value);
            inner.call(request).await
        })
    }
}

/// Returns a stack that holds a lock during its first fetch, which takes this long.
pub(super) fn locking(latency: Duration) -> Locking {
    Locking {
        header: Arc::default(),
        latency,
        inner: Noop,
    }
}
