//! A thousand requests at once and no token yet: one token request serves them all.

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

/// Connections open at once. Each costs this process two file descriptors, one of them the mock
/// server's, and the usual limit is 1,024, on some systems 256.
const CONNECTIONS: usize = 64;

/// Time enough for all requests to arrive at the layer before there is a token.
const TOKEN_LATENCY: Duration = Duration::from_millis(500);

/// What is between the layer and the client: few connections for many requests, and a count.
struct Gate {
    connections: Semaphore,
    /// Requests that were given to the layer.
    arrived: AtomicUsize,
    /// How many those were when the first one came out of it, with its token.
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

/// The gate for reqwest-middleware: added after the layer, it is inside of it.
struct AtGate(Arc<Gate>);

#[async_trait]
impl Middleware for AtGate {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let pass = self.0.pass().await;
        let _connection = pass.map_err(reqwest_middleware::Error::middleware)?;
        next.run(request, extensions).await
    }
}

/// The gate for tower. Unlike a `ConcurrencyLimit`, it is always ready: the layer is ready when its
/// inner service is, so a limit by readiness would let no more than that many in.
fn at_gate<S, Q>(
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
            let _connection = gate.pass().await?;
            client.oneshot(request).await.map_err(Into::into)
        }
    })
}

pub(crate) async fn reqwest_middleware(report: &mut Report) -> Result<(), BoxError> {
    report.step("1,000 requests at once through reqwest-middleware, no token yet");
    let (server, gate) = (start().await?, Gate::new());
    let client = reqwest_middleware::ClientBuilder::new(loopback_client().build()?)
        .with(layer(&server)?)
        .with(AtGate(Arc::clone(&gate)))
        .build();

    let answered_200 = all_at_once(|| {
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
    conclude(report, &server, &gate, answered_200);
    Ok(())
}

pub(crate) async fn tower_over_hyper(report: &mut Report) -> Result<(), BoxError> {
    report.step("The same through tower, around hyper-util's client");
    let (server, gate) = (start().await?, Gate::new());
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = ServiceBuilder::new()
        .layer(layer(&server)?)
        .service(at_gate(&gate, client));

    let answered_200 = all_at_once(|| {
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
    conclude(report, &server, &gate, answered_200);
    Ok(())
}

pub(crate) async fn tower_over_reqwest(report: &mut Report) -> Result<(), BoxError> {
    report.step("The same through tower, around a bare reqwest::Client");
    let (server, gate) = (start().await?, Gate::new());
    let client = loopback_client().build()?;
    let service = ServiceBuilder::new()
        .layer(layer(&server)?)
        .service(at_gate(&gate, client));

    let url: reqwest::Url = server.api_url().parse()?;
    let answered_200 = all_at_once(|| {
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
    conclude(report, &server, &gate, answered_200);
    Ok(())
}

async fn start() -> std::io::Result<MockAuthServer> {
    MockAuthServer::builder()
        .token_latency(TOKEN_LATENCY)
        .start()
        .await
}

/// Runs each call in a task of its own. Returns how many were answered 200.
async fn all_at_once<F>(call: impl Fn() -> F) -> Result<usize, BoxError>
where
    F: Future<Output = Result<StatusCode, BoxError>> + Send + 'static,
{
    let mut calls: JoinSet<_> = (0..REQUESTS).map(|_| call()).collect();
    let mut answered_200 = 0;
    while let Some(status) = calls.join_next().await {
        answered_200 += usize::from(status?? == StatusCode::OK);
    }
    Ok(answered_200)
}

fn conclude(report: &mut Report, server: &MockAuthServer, gate: &Gate, answered_200: usize) {
    let waited = gate.arrived_at_first.get().copied().unwrap_or_default();
    report.check("in the layer when the token came", REQUESTS, waited);
    report.check("answers 200", REQUESTS, answered_200);
    report.check("token requests", 1, server.token_requests());
}
