//! The tower stacks that are compared: all around the same service, which does nothing.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bearer_auth::{
    AccessToken, BearerAuth, BearerAuthLayer, CoarseClock, RequestAuth, TokenCache,
    TokenCacheBuilder, TokenError, TokenRequest, source_fn,
};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use pin_project_lite::pin_project;
use tokio::runtime::Runtime;
use tower::{Layer, Service};
use tower_http::set_header::{SetRequestHeader, SetRequestHeaderLayer};

/// About the length of the JWTs that APIs hand out.
pub(crate) const TOKEN: usize = 1_000;
pub(crate) const ORIGIN: &str = "https://api.example.com";

/// Answers at once.
#[derive(Clone, Copy)]
pub(crate) struct Noop;

impl<B> Service<Request<B>> for Noop {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(request);
        ready(Ok(Response::new(())))
    }
}

/// A constant header, of a token's length.
pub(crate) fn fixed() -> SetRequestHeader<Noop, HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", "x".repeat(TOKEN))).expect("ASCII");
    value.set_sensitive(true);
    SetRequestHeaderLayer::overriding(AUTHORIZATION, value).layer(Noop)
}

/// A layer whose token is fresh, and stays so.
pub(crate) fn layer() -> BearerAuthLayer {
    over(cache())
}

/// The same, with another clock than the default's.
pub(crate) fn coarse_layer() -> BearerAuthLayer {
    over(warm(builder().clock(CoarseClock)))
}

/// The same, with no origin named: every https host gets the token.
pub(crate) fn open_layer() -> BearerAuthLayer {
    BearerAuthLayer::from_cache(cache())
}

pub(crate) fn over(cache: TokenCache) -> BearerAuthLayer {
    BearerAuthLayer::from_cache(cache)
        .allow_origin(ORIGIN)
        .expect("an origin")
}

/// Without replay.
pub(crate) fn bearer(layer: BearerAuthLayer) -> BearerAuth<Noop> {
    layer.without_replay().layer(Noop)
}

pub(crate) fn replaying(layer: BearerAuthLayer) -> BearerAuth<Noop> {
    layer.layer(Noop)
}

/// Keeps a copy of each request until it is answered.
#[derive(Clone)]
pub(crate) struct Copying<S>(pub(crate) S);

impl<S: Service<Request<()>>> Service<Request<()>> for Copying<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Kept<S::Future, Request<()>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let kept = request.clone();
        Kept {
            future: self.0.call(request),
            _kept: kept,
        }
    }
}

pin_project! {
    /// A future, and what is dropped with it.
    pub(crate) struct Kept<F, K> {
        #[pin]
        future: F,
        _kept: K,
    }
}

impl<F: Future, K> Future for Kept<F, K> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

pub(crate) fn cache() -> TokenCache {
    warm(builder())
}

fn builder() -> TokenCacheBuilder {
    TokenCache::builder(source_fn(fetch))
}

/// Each its own, as tokens are, so that no two tenants share memory.
async fn fetch(request: TokenRequest) -> Result<AccessToken, TokenError> {
    let scope = request.scopes().unwrap_or_default();
    Ok(AccessToken::new(format!("{scope:x<TOKEN$}"))?.without_expiry())
}

/// What a tenant is called: about as long as names with a UUID are.
pub(crate) fn scope(tenant: usize) -> String {
    format!("tenant/{tenant:08x}-0000-4000-8000-{tenant:012x}")
}

/// A service that has the tokens of so many tenants, and the keys by which it got them.
pub(crate) fn of_tenants(tenants: usize) -> (BearerAuth<Noop>, Arc<[TokenRequest]>) {
    let (cache, runtime) = (cache(), runtime());
    let keys: Arc<[_]> = (0..tenants)
        .map(|it| TokenRequest::scope(scope(it)))
        .collect();
    for key in &*keys {
        runtime.block_on(cache.token_for(key)).expect("a token");
    }
    (bearer(over(cache)), keys)
}

/// Sends a request for this tenant.
pub(crate) fn send_for(service: &mut BearerAuth<Noop>, uri: &Uri, tenant: impl Into<RequestAuth>) {
    let mut request = request(black_box(uri));
    request.extensions_mut().insert(tenant.into());
    black_box(send(service, black_box(request)));
}

fn warm(builder: TokenCacheBuilder) -> TokenCache {
    let cache = builder.build().expect("valid settings");
    runtime().block_on(cache.token()).expect("a token");
    cache
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

pub(crate) fn uri() -> Uri {
    Uri::from_static("https://api.example.com/v1/transactions")
}

/// A request as clients make them, with room for one more header.
#[inline]
pub(crate) fn request(uri: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = uri.clone();
    request.headers_mut().reserve(3);
    request
}

/// Drives one request through a service that is ready and answers at once.
///
/// Never inlined: each stack is compiled by itself, as a client's is, and not into the loop that measures
/// it, where a stack costs twice as much or half, depending on what stands beside it.
#[inline(never)]
pub(crate) fn send<S>(service: &mut S, request: Request<()>) -> S::Response
where
    S: Service<Request<()>>,
{
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut context) else {
        panic!("not ready");
    };
    match pin!(service.call(request)).poll(&mut context) {
        Poll::Ready(Ok(answer)) => answer,
        _ => panic!("no answer"),
    }
}
