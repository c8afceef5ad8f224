//! Hand-written layers, as references: the least that a layer with a token does.
//!
//! Those of the fresh path attach a token that is there and has not expired. They do not refresh,
//! check no origin and read no response, so they need no future of their own.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tower::Service;

use super::tower_stacks::{Noop, constant_value};

/// A header and its expiry.
pub(crate) struct Token {
    header: HeaderValue,
    expires_at: Instant,
}

impl Token {
    fn lasting() -> Arc<Self> {
        Arc::new(Self {
            header: constant_value(),
            expires_at: Instant::now() + Duration::from_secs(24 * 60 * 60),
        })
    }

    #[inline]
    fn header(&self) -> Option<HeaderValue> {
        (Instant::now() < self.expires_at).then(|| self.header.clone())
    }
}

/// A place from which a layer reads its token.
pub(crate) trait Holder {
    fn header(&self) -> Option<HeaderValue>;
}

/// A token that is never replaced.
impl Holder for Arc<Token> {
    #[inline]
    fn header(&self) -> Option<HeaderValue> {
        Token::header(self)
    }
}

/// A token that a refresh can replace at any time.
impl Holder for Arc<ArcSwap<Token>> {
    #[inline]
    fn header(&self) -> Option<HeaderValue> {
        self.load().header()
    }
}

/// A service that attaches the token of its holder.
#[derive(Clone)]
pub(crate) struct Attach<H, S> {
    holder: H,
    inner: S,
}

impl<B, H: Holder, S: Service<Request<B>>> Service<Request<B>> for Attach<H, S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(header) = self.holder.header() {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        self.inner.call(request)
    }
}

/// Returns a stack that checks the expiry of a token in an `Arc`.
pub(crate) fn plain_arc() -> Attach<Arc<Token>, Noop> {
    Attach {
        holder: Token::lasting(),
        inner: Noop,
    }
}

/// Returns a stack that checks the expiry of a token in an `ArcSwap`.
pub(crate) fn arc_swap() -> Attach<Arc<ArcSwap<Token>>, Noop> {
    Attach {
        holder: Arc::new(ArcSwap::new(Token::lasting())),
        inner: Noop,
    }
}

/// A service that holds a lock while it fetches its token, as many are written by hand.
#[derive(Clone)]
pub(crate) struct Locking {
    token: Arc<Mutex<Option<Arc<Token>>>>,
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
            token,
            latency,
            mut inner,
        } = self.clone();
        Box::pin(async move {
            let mut token = token.lock().await;
            let header = match token.as_ref().and_then(|token| token.header()) {
                Some(header) => header,
                None => {
                    sleep(latency).await;
                    token.insert(Token::lasting()).header.clone()
                }
            };
            drop(token);
            request.headers_mut().insert(AUTHORIZATION, header);
            inner.call(request).await
        })
    }
}

/// Returns a stack that holds a lock during its first fetch, which takes this long.
pub(crate) fn locking(latency: Duration) -> Locking {
    Locking {
        token: Arc::default(),
        latency,
        inner: Noop,
    }
}
