//! 1,000 concurrent requests without a token yet share one token request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{BoxError, MockAuthServer};
use http::{Extensions, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::{Middleware, Next};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::report::Report;
use crate::{layer, loopback_client};

const REQUESTS: usize = 1_000;

/// The number of concurrent connections. Each needs two file descriptors in this process, one of
/// them in the mock server, and the usual limit is 1,024, on some systems 256.
const CONNECTIONS: usize = 64;

/// Long enough for all requests to reach the layer before the token arrives.
const TOKEN_LATENCY: Duration = Duration::from_millis(500);

/// A stage between the layer and the client, which limits the connections and counts requests.
struct Gate {
    connections: Semaphore,
    /// The number of requests that have reached the layer.
    arrived: AtomicUsize,
    /// That number when the first request left the layer with its token.
    arrived_at_first: OnceLock<usize>,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            connections: Semaphore::new(CONNECTIONS),
            arrived: AtomicUsize::new(0),
            arrived_at_first: OnceLock::new(),
        })
    }

    fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    async fn pass(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.arrived_at_first
            .get_or_init(|| self.arrived.load(Ordering::Relaxed));
        self.connections.acquire().await
    }
}

/// The gate as a reqwest middleware. Added after the layer, it is inside of it.
struct GateMiddleware(Arc<Gate>);

#[async_trait]
impl Middleware for GateMiddleware {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let permit = self.0.pass().await;
        let _permit = permit.map_err(reqwest_middleware::Error::middleware)?;
        next.run(request, extensions).await
    }
}

/// Wraps `client` in the gate. Unlike `ConcurrencyLimit`, the gate is always ready: the layer is
/// ready only when its inner service is, and all requests have to enter the layer.
fn gated<S, Q>(
    gate: &Arc<Gate>,
    client: S,
) -> impl Service<Q, Response = S::Response, Error = BoxError, Future: Send> + Clone + Send + 'static
where
    S: Service<Q, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    Q: Send + 'static,
{
    let gate = Arc::clone(gate);
    service_fn(move |request| {
        let (gate, client) = (Arc::clone(&gate), client.clone());
        async move {
            let _permit = gate.pass().await?;
            client.oneshot(request).await.map_err(Into::into)
        }
    })
}

pub(crate) async fn reqwest_middleware(report: &mut Report) -> Result<(), BoxError> {
    report.step("1,000 concurrent requests through reqwest-middleware, without a token yet");
    let (server, gate) = (start().await?, Gate::new());
    let client = reqwest_middleware::ClientBuilder::new(loopback_client().build()?)
        .with(layer(&server)?)
        .with(GateMiddleware(Arc::clone(&gate)))
        .build();

    let succeeded = concurrently(|| {
        let request = client.get(server.api_url());
        let gate = Arc::clone(&gate);
        async move {
            gate.arrive();
            let response = request.send().await?;
            let status = response.status();
            response.bytes().await?;
            Ok(status)
        }
    })
    .await?;
    check(report, &server, &gate, succeeded);
    Ok(())
}

pub(crate) async fn tower_over_hyper(report: &mut Report) -> Result<(), BoxError> {
    report.step("The same with tower around hyper-util's client");
    let (server, gate) = (start().await?, Gate::new());
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = ServiceBuilder::new()
        .layer(layer(&server)?)
        .service(gated(&gate, client));

    let succeeded = concurrently(|| {
        let request = http::Request::get(server.api_url()).body(Full::<bytes::Bytes>::default());
        let (mut service, gate) = (service.clone(), Arc::clone(&gate));
        async move {
            let service = service.ready().await?;
            gate.arrive();
            let response = service.call(request?).await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok(status)
        }
    })
    .await?;
    check(report, &server, &gate, succeeded);
    Ok(())
}

pub(crate) async fn tower_over_reqwest(report: &mut Report) -> Result<(), BoxError> {
    report.step("The same with tower around a reqwest::Client");
    let (server, gate) = (start().await?, Gate::new());
    let client = loopback_client().build()?;
    let service = ServiceBuilder::new()
        .layer(layer(&server)?)
        .service(gated(&gate, client));

    let url: reqwest::Url = server.api_url().parse()?;
    let succeeded = concurrently(|| {
        let request = reqwest::Request::new(Method::GET, url.clone());
        let (mut service, gate) = (service.clone(), Arc::clone(&gate));
        async move {
            let service = service.ready().await?;
            gate.arrive();
            let response = service.call(request).await?;
            let status = response.status();
            response.bytes().await?;
            Ok(status)
        }
    })
    .await?;
    check(report, &server, &gate, succeeded);
    Ok(())
}

async fn start() -> std::io::Result<MockAuthServer> {
    MockAuthServer::builder()
        .token_latency(TOKEN_LATENCY)
        .start()
        .await
}

/// Runs each call in its own task. Returns the number of responses with 200.
async fn concurrently<F>(call: impl Fn() -> F) -> Result<usize, BoxError>
where
    F: Future<Output = Result<StatusCode, BoxError>> + Send + 'static,
{
    let mut calls: JoinSet<_> = (0..REQUESTS).map(|_| call()).collect();
    let mut succeeded = 0;
    while let Some(status) = calls.join_next().await {
        succeeded += usize::from(status?? == StatusCode::OK);
    }
    Ok(succeeded)
}

fn check(report: &mut Report, server: &MockAuthServer, gate: &Gate, succeeded: usize) {
    let waiting = gate.arrived_at_first.get().copied().unwrap_or_default();
    report.check("requests waiting when the token arrives", REQUESTS, waiting);
    report.check("responses with 200", REQUESTS, succeeded);
    report.check("token requests", 1, server.token_requests());
}
