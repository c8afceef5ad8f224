//! The tower stacks under comparison. All of them wrap the same service, which does nothing.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bearer_auth::{
    AccessToken, BearerAuth, BearerAuthLayer, BoxError, FleetIdentity, InMemoryTokenStore,
    RequestAuth, SealingKeys, SharedTokenSource, TokenCache, TokenCacheBuilder, TokenError,
    TokenRequest, source_fn,
};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use pin_project_lite::pin_project;
use tokio::runtime::Runtime;
use tower::{Layer, Service};
use tower_http::set_header::{SetRequestHeader, SetRequestHeaderLayer};

/// The length of every token in bytes, about that of a typical JWT.
const TOKEN_LENGTH: usize = 1_000;
const ORIGIN: &str = "https://api.example.com";

/// A service that responds immediately with an empty 200.
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

/// Returns a constant `Authorization` value, as long as that of a token.
pub(crate) fn constant_value() -> HeaderValue {
    let value = format!("Bearer {}", "x".repeat(TOKEN_LENGTH));
    let mut value = HeaderValue::try_from(value).expect("ASCII");
    value.set_sensitive(true);
    value
}

/// Returns a stack that sets a constant header.
pub(crate) fn constant_header() -> SetRequestHeader<Noop, HeaderValue> {
    SetRequestHeaderLayer::overriding(AUTHORIZATION, constant_value()).layer(Noop)
}

/// A layer as one would write it by hand for this benchmark: it reads a shared token and checks its
/// expiry, and never fetches another.
#[derive(Clone)]
pub(crate) struct HandWritten {
    inner: Noop,
    token: Arc<ArcSwap<Expiring>>,
}

struct Expiring {
    value: HeaderValue,
    expires: Instant,
}

impl Service<Request<()>> for HandWritten {
    type Response = Response<()>;
    type Error = BoxError;
    type Future = Ready<Result<Response<()>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<()>) -> Self::Future {
        let token = self.token.load();
        if Instant::now() >= token.expires {
            return ready(Err("expired".into()));
        }
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, token.value.clone());
        drop(token);
        ready(self.inner.call(request).into_inner().map_err(Into::into))
    }
}

/// Returns a stack with a layer as one would write it by hand.
pub(crate) fn hand_written() -> HandWritten {
    let token = Expiring {
        value: constant_value(),
        expires: Instant::now() + Duration::from_secs(3_600),
    };
    HandWritten {
        inner: Noop,
        token: Arc::new(ArcSwap::from_pointee(token)),
    }
}

/// Returns a layer with a token that never expires.
pub(crate) fn layer() -> BearerAuthLayer {
    layer_over(cache())
}

/// Returns the same layer with tokio's clock, as in programs that enable `test-util`.
pub(crate) fn pausable_clock_layer() -> BearerAuthLayer {
    layer_over(warm(TokenCache::builder(source_fn(fetch))))
}

/// Returns the same layer with a token that the processes of a fleet share.
pub(crate) fn shared_layer() -> BearerAuthLayer {
    let identity = FleetIdentity::new("https://identity.example.com", "client");
    let source = SharedTokenSource::new(source_fn(fetch), InMemoryTokenStore::new(), identity)
        .name_key([1; 32])
        .expect("a long key")
        .sealed_with(SealingKeys::new("one", [2; 32]).expect("a key id"));
    layer_over(warm(TokenCache::builder(source).system_clock()))
}

/// Returns the same layer without an allowed origin: every https host gets the token.
pub(crate) fn any_origin_layer() -> BearerAuthLayer {
    BearerAuthLayer::from_cache(cache())
}

/// Returns a layer over `cache` that allows the origin of [`uri`].
pub(crate) fn layer_over(cache: TokenCache) -> BearerAuthLayer {
    BearerAuthLayer::from_cache(cache)
        .allow_origin(ORIGIN)
        .expect("an origin")
}

/// Returns a stack that attaches a token and never replays.
pub(crate) fn token(layer: BearerAuthLayer) -> BearerAuth<Noop> {
    layer.without_replay().layer(Noop)
}

/// Returns a stack that attaches a token and replays after a rejection.
pub(crate) fn token_with_replay(layer: BearerAuthLayer) -> BearerAuth<Noop> {
    layer.layer(Noop)
}

/// A service that keeps a copy of each request until the response arrives, as a replay needs one.
#[derive(Clone)]
pub(crate) struct KeepCopy<S>(pub(crate) S);

impl<S: Service<Request<()>>> Service<Request<()>> for KeepCopy<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = WithCopy<S::Future, Request<()>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        let copy = request.clone();
        WithCopy {
            future: self.0.call(request),
            _copy: copy,
        }
    }
}

pin_project! {
    /// A future and a value that is dropped with it.
    pub(crate) struct WithCopy<F, T> {
        #[pin]
        future: F,
        _copy: T,
    }
}

impl<F: Future, T> Future for WithCopy<F, T> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(cx)
    }
}

/// Returns a cache that holds a token for the default request.
fn cache() -> TokenCache {
    warm(builder())
}

/// The mock enables `test-util`, which other programs do not.
fn builder() -> TokenCacheBuilder {
    TokenCache::builder(source_fn(fetch)).system_clock()
}

/// Returns a different token for each scope, so that no two tenants share memory.
async fn fetch(request: TokenRequest) -> Result<AccessToken, TokenError> {
    let scope = request.scopes().unwrap_or_default();
    Ok(AccessToken::new(format!("{scope:x<TOKEN_LENGTH$}"))?.without_expiry())
}

/// Returns the name of a tenant, about as long as names that contain a UUID.
pub(crate) fn scope(tenant: usize) -> String {
    format!("tenant/{tenant:08x}-0000-4000-8000-{tenant:012x}")
}

/// Returns a cache that holds the tokens of the first `tenants` tenants, and the keys of its
/// entries.
pub(crate) fn tenant_cache(tenants: usize) -> (TokenCache, Arc<[TokenRequest]>) {
    let (cache, runtime) = (cache(), runtime());
    let keys: Arc<[_]> = (0..tenants)
        .map(|it| TokenRequest::scope(scope(it)))
        .collect();
    for key in &*keys {
        runtime.block_on(cache.token_for(key)).expect("a token");
    }
    (cache, keys)
}

/// Returns a stack over [`tenant_cache`], and the keys of its entries.
pub(crate) fn tenants(tenants: usize) -> (BearerAuth<Noop>, Arc<[TokenRequest]>) {
    let (cache, keys) = tenant_cache(tenants);
    (token(layer_over(cache)), keys)
}

/// Sends a request with the token of this tenant.
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

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

pub(crate) fn uri() -> Uri {
    Uri::from_static("https://api.example.com/v1/transactions")
}

/// Returns a URI without an origin, as for an inner service that knows its own.
pub(crate) fn path() -> Uri {
    Uri::from_static("/v1/transactions")
}

/// Creates a request with capacity for one more header, as HTTP clients do.
#[inline]
pub(crate) fn request(uri: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = uri.clone();
    request.headers_mut().reserve(3);
    request
}

/// Sends one request through a service that is ready and responds on the first poll.
///
/// Never inlined: each stack is compiled on its own, as in a client. Inlined into the measuring
/// loop, a stack takes half or twice the time, depending on the code around it.
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
        Poll::Ready(Ok(response)) => response,
        _ => panic!("no response"),
    }
}
