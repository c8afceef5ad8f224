//! Allocations of a request with a fresh token: none, except for the copy that a replay needs and
//! the box of every middleware. The counts are exact.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use async_trait::async_trait;
use bearer_auth::task_local::with_request_auth;
use bearer_auth::{
    BearerAuthLayer, Event, FleetIdentity, InMemoryTokenStore, MockTokenSource, Observer,
    RequestAuth, SealingKeys, SharedTokenSource, StaticTokenSource, TokenCache, TokenError,
    TokenRequest,
};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_MATCH, USER_AGENT};
use http::{Extensions, HeaderValue, Request, Response, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use tower::{Layer, Service};

/// Responds at once, without an allocation.
#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
        ready(Ok(Response::new(())))
    }
}

/// Returns a request with capacity for another header, so that the header map does not grow.
fn request() -> Request<()> {
    let mut request = Request::get("https://api.example.com/").body(()).unwrap();
    request.headers_mut().reserve(8);
    request
}

fn request_of(tenant: &TokenRequest) -> Request<()> {
    let mut request = request();
    let auth = RequestAuth::token(tenant.clone());
    request.extensions_mut().insert(auth);
    request
}

fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return output;
        }
    }
}

async fn warm_layer() -> BearerAuthLayer {
    let cache = TokenCache::new(StaticTokenSource::new("x".repeat(1_000)).unwrap());
    cache.token().await.unwrap();
    let layer = BearerAuthLayer::from_cache(cache);
    layer.allow_origin("https://api.example.com").unwrap()
}

fn allocations<S>(service: &mut S) -> u64
where
    S: Service<Request<()>>,
{
    allocations_of(service, request())
}

fn allocations_of<S>(service: &mut S, request: Request<()>) -> u64
where
    S: Service<Request<()>>,
{
    let count = measure(|| {
        assert!(finish(service.call(request)).is_ok());
    });
    count.count_total
}

#[tokio::test]
async fn tower_without_replay_allocates_nothing() {
    let mut service = warm_layer().await.without_replay().layer(Inner);
    assert_eq!(allocations(&mut service), 0);
    assert_eq!(allocations(&mut service.clone()), 0);
}

#[tokio::test]
async fn tower_for_a_tenant_allocates_nothing() {
    let layer = warm_layer().await.without_replay();
    let tenant = TokenRequest::scope("tenant/42");
    layer.cache().token_for(&tenant).await.unwrap();
    let mut service = layer.layer(Inner);
    assert_eq!(allocations_of(&mut service, request_of(&tenant)), 0);
}

/// Many clones send one request. One that sends more gets a reference count of its own.
#[tokio::test]
async fn a_clone_allocates_for_its_second_request_only() {
    let service = warm_layer().await.without_replay().layer(Inner);
    let mut clone = None;
    let count = measure(|| clone = Some(service.clone()));
    assert_eq!(count.count_total, 0);
    let mut clone = clone.unwrap();
    assert_eq!([(); 4].map(|()| allocations(&mut clone)), [0, 1, 0, 0]);
}

/// The store of a fleet is asked only when a token is needed.
#[tokio::test]
async fn tower_with_a_shared_token_allocates_nothing() {
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(900));
    let identity = FleetIdentity::new("https://identity.example.com/", "client");
    let source = SharedTokenSource::new(tokens, InMemoryTokenStore::new(), identity)
        .name_key([1; 32])
        .unwrap()
        .sealed_with(SealingKeys::new("one", [2; 32]).unwrap());
    let cache = TokenCache::new(source);
    cache.token().await.unwrap();
    let mut service = BearerAuthLayer::from_cache(cache)
        .without_replay()
        .layer(Inner);
    assert_eq!(allocations(&mut service), 0);
    assert_eq!(allocations(&mut service.clone()), 0);
}

/// The first request starts the refresh. During it, and during the pause after it has failed, the
/// others cost as much as with a fresh token.
#[tokio::test(start_paused = true)]
async fn no_request_allocates_during_a_refresh() {
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(900));
    let cache = TokenCache::new(tokens.clone());
    let tenant = TokenRequest::scope("tenant/42");
    cache.token().await.unwrap();
    cache.token_for(&tenant).await.unwrap();
    let layer = BearerAuthLayer::from_cache(cache).without_replay();
    let mut service = layer.layer(Inner);
    let mut both = || {
        let of_tenant = allocations_of(&mut service, request_of(&tenant));
        [allocations(&mut service), of_tenant]
    };

    tokio::time::advance(Duration::from_secs(850)).await;
    let hold = tokens.hold();
    assert!(
        both().iter().all(|count| *count > 0),
        "due: the refreshes start"
    );
    assert_eq!(both(), [0, 0], "the refreshes are in progress");
    tokens.fail_next(TokenError::permanent("no"));
    tokens.fail_next(TokenError::permanent("no"));
    drop(hold);
    while tokens.fetches() < 4 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(both(), [0, 0], "they have failed: the pause");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(both().iter().all(|count| *count > 0), "the pause has ended");
}

/// Counts events.
#[derive(Default)]
struct CountEvents(AtomicU64);

impl Observer for CountEvents {
    fn on_event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The other tests have the observers of the features `tracing` and `metrics`.
#[tokio::test]
async fn a_request_with_a_fresh_token_causes_no_event_and_allocates_nothing_for_observers() {
    let events = Arc::new(CountEvents::default());
    let cache = TokenCache::builder(StaticTokenSource::new("opaque").unwrap())
        .observer(Arc::clone(&events))
        .build()
        .unwrap();
    cache.token().await.unwrap();
    let before = events.0.load(Ordering::Relaxed);
    assert!(before > 0);
    let layer = BearerAuthLayer::from_cache(cache).without_replay();
    let mut service = layer.layer(Inner);
    for _ in 0..10 {
        assert_eq!(allocations(&mut service), 0);
    }
    assert_eq!(events.0.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn reading_the_choice_of_the_task_allocates_nothing() {
    let layer = warm_layer().await.without_replay();
    let tenant = TokenRequest::scope("tenant/42");
    layer.cache().token_for(&tenant).await.unwrap();
    let mut service = layer.layer(Inner);
    let scope = with_request_auth(RequestAuth::token(tenant), async move {
        allocations(&mut service)
    });
    assert_eq!(scope.await, 0);
}

/// The copy of a request is a list of its headers, where a clone of their map takes two allocations.
#[tokio::test]
async fn tower_with_replay_allocates_a_list_of_the_headers() {
    let mut service = warm_layer().await.layer(Inner);
    assert_eq!(allocations(&mut service), 0, "no headers");
    let mut request = request();
    for name in [ACCEPT, CONTENT_TYPE, IF_MATCH, USER_AGENT] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static("x"));
    }
    assert_eq!(allocations_of(&mut service, request), 1, "4 headers");
}

/// The copy for the replay shares the bytes of the original body.
#[test]
fn replaying_a_reqwest_body_does_not_copy_its_bytes() {
    const BODY: usize = 64 << 20;
    const MAX_ALLOCATED: u64 = 1 << 20;

    let bodies = Arc::<Mutex<Vec<(usize, usize)>>>::default();
    let log = Arc::clone(&bodies);
    let inner = tower::service_fn(move |request: Request<reqwest::Body>| {
        let body = request.body().as_bytes().unwrap();
        log.lock().unwrap().push((body.as_ptr().addr(), body.len()));
        let mut response = Response::new(());
        if request.headers()[AUTHORIZATION] == "Bearer mock-token-1" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        ready(Ok::<_, Infallible>(response))
    });
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let layer = BearerAuthLayer::new(MockTokenSource::new());
    runtime.block_on(layer.cache().token()).unwrap();
    let mut service = layer.layer(inner);

    let request = Request::post("https://api.example.com/").body(vec![7; BODY].into());
    let request = request.unwrap();
    let count = measure(|| {
        let response = runtime.block_on(service.call(request)).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    });
    let bodies = bodies.lock().unwrap();
    assert_eq!(bodies.len(), 2, "the request and its replay");
    assert_eq!(bodies[0], bodies[1], "the same bytes");
    assert_eq!(bodies[0].1, BODY);
    assert!(count.bytes_max < MAX_ALLOCATED, "{} bytes", count.bytes_max);
}

/// Sets a static header, as the baseline for the cheapest possible middleware.
struct StaticHeader(HeaderValue);

#[async_trait]
impl Middleware for StaticHeader {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        next.run(request, extensions).await
    }
}

/// Ends the stack with a response.
struct Respond;

#[async_trait]
impl Middleware for Respond {
    async fn handle(
        &self,
        _: reqwest::Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        Ok(Response::new("").into())
    }
}

fn client(middleware: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new())
        .with(middleware)
        .with(Respond)
        .build()
}

fn allocations_of_client(client: &ClientWithMiddleware) -> u64 {
    let url = reqwest::Url::parse("https://api.example.com/").unwrap();
    let request = reqwest::Request::new(http::Method::GET, url);
    let count = measure(|| {
        assert!(finish(client.execute(request)).is_ok());
    });
    count.count_total
}

#[tokio::test]
async fn reqwest_middleware_without_replay_allocates_no_more_than_a_static_header() {
    let fixed = client(StaticHeader(HeaderValue::from_static("Bearer opaque")));
    let auth = client(warm_layer().await.without_replay());
    let baseline = allocations_of_client(&fixed);
    let with_layer = allocations_of_client(&auth);
    assert!(baseline > 0);
    assert_eq!(with_layer, baseline);
}

#[tokio::test]
async fn reqwest_middleware_with_replay_also_allocates_the_copy_of_the_request() {
    let fixed = client(StaticHeader(HeaderValue::from_static("Bearer opaque")));
    let auth = client(warm_layer().await);
    let url = reqwest::Url::parse("https://api.example.com/").unwrap();
    let original = reqwest::Request::new(http::Method::GET, url);
    let copy = measure(|| drop(original.try_clone())).count_total;
    let baseline = allocations_of_client(&fixed);
    let with_layer = allocations_of_client(&auth);
    assert!(copy > 0);
    assert_eq!(with_layer, baseline + copy);
}

/// The middleware's future holds the copy of the request and little else. Rare states have boxes of
/// their own.
#[tokio::test]
async fn the_middlewares_box_is_small() {
    struct Measured(BearerAuthLayer);

    #[async_trait]
    impl Middleware for Measured {
        async fn handle(
            &self,
            request: reqwest::Request,
            extensions: &mut Extensions,
            next: Next<'_>,
        ) -> reqwest_middleware::Result<reqwest::Response> {
            let copy = size_of::<reqwest::Request>();
            let future = self.0.handle(request, extensions, next);
            let bytes = size_of_val(&*future);
            println!(
                "the middleware's future: {bytes} bytes, {copy} of them for the copy of the request"
            );
            assert!(bytes <= copy + 512, "{bytes}");
            future.await
        }
    }

    let client = client(Measured(warm_layer().await));
    let response = client.get("https://api.example.com/").send().await;
    assert_eq!(response.unwrap().status(), 200);
}
