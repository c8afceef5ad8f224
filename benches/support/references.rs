//! Hand-written layers, as references: the least that a layer with a token does.
//!
//! They attach a token that is there and has not expired. They do not refresh, check no origin and
//! read no response, so they need no future of their own.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
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
