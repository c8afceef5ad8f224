//! Tokens are refreshed and revoked under load, and no request waits for a refresh or fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bearer_auth::{BoxError, MockAuthServer};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt};

use crate::report::Report;
use crate::{layer, loopback_client};

const REQUESTS_PER_SECOND: u32 = 300;
const LIFETIME: Duration = Duration::from_secs(6);
const TOKEN_LATENCY: Duration = Duration::from_millis(200);

/// A request that spends longer than this in the layer has waited for a token. About half of the
/// requests that wait would exceed it.
const WAITED: Duration = Duration::from_millis(100);

/// The time at which a request reached the layer.
#[derive(Clone, Copy)]
struct Arrival(Instant);

/// The time that each request spent in the layer before the inner service was called.
#[derive(Clone, Default)]
struct TimesInLayer(Arc<Mutex<Vec<Duration>>>);

impl TimesInLayer {
    fn record<B>(&self, request: &Request<B>) {
        if let Some(Arrival(at)) = request.extensions().get() {
            let elapsed = at.elapsed();
            self.times().push(elapsed);
        }
    }

    fn sorted(&self) -> Vec<Duration> {
        let mut times = self.times().clone();
        times.sort_unstable();
        times
    }

    fn times(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn refresh(report: &mut Report) -> Result<(), BoxError> {
    report.step("6 s tokens under load: 300 requests/s for 10 s, a token request takes 200 ms");
    let server = MockAuthServer::builder()
        .lifetime(LIFETIME)
        .token_latency(TOKEN_LATENCY)
        .start()
        .await?;
    let auth = layer(&server)?;
    // Fetches the first token before the measurement, since requests have to wait for that one.
    auth.cache().token().await?;

    let times = TimesInLayer::default();
    let recorded = times.clone();
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<Full<Bytes>>| {
            request.extensions_mut().insert(Arrival(Instant::now()));
            request
        })
        .layer(auth)
        .map_request(move |request| {
            recorded.record(&request);
            request
        })
        .service(Client::builder(TokioExecutor::new()).build_http());

    let succeeded = at_constant_rate(3_000, || {
        let request = Request::get(server.api_url()).body(Full::default());
        let service = service.clone();
        async move {
            let response = service.oneshot(request?).await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok(status)
        }
    })
    .await?;

    let times = times.sorted();
    let waits = times.iter().filter(|&&time| time > WAITED).count();
    report.check("responses with 200", 3_000, succeeded);
    // A token of 6 s is refreshed 4.4 s to 4.7 s after its fetch: before it expires, with jitter.
    report.check("refreshes", 2, server.token_requests() - 1);
    report.check("requests delayed by over 100 ms", 0, waits);
    report.check("requests measured", 3_000, times.len());
    for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        let added = format!("{:.1?}", percentile(&times, percent));
        report.note(&format!("time added by the layer, {name}"), added);
    }
    Ok(())
}

pub(crate) async fn revocation(report: &mut Report) -> Result<(), BoxError> {
    report.step("A token revoked under load: 300 requests/s for 3 s, the API responds after 50 ms");
    let server = MockAuthServer::builder()
        .token_latency(TOKEN_LATENCY)
        .api_latency(Duration::from_millis(50))
        .start()
        .await?;
    let auth = layer(&server)?;
    auth.cache().token().await?;
    let before = server.token_requests();
    let client = reqwest_middleware::ClientBuilder::new(loopback_client().build()?)
        .with(auth)
        .build();

    let load = at_constant_rate(900, || {
        let request = client.post(server.api_url()).body("amount=7");
        async move {
            let response = request.send().await?;
            let status = response.status();
            response.bytes().await?;
            Ok(status)
        }
    });
    let revocation = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        server.revoke_all();
    };
    let (succeeded, ()) = tokio::join!(load, revocation);

    report.check("responses with 200", 900, succeeded?);
    report.check(
        "token requests after the revocation",
        1,
        server.token_requests() - before,
    );
    report.note("requests rejected and replayed", server.api_unauthorized());
    Ok(())
}

/// Returns the time that `percent` percent of the requests do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// Starts calls at a constant rate, each in its own task. Returns the number of responses with 200.
async fn at_constant_rate<F>(calls: usize, call: impl Fn() -> F) -> Result<usize, BoxError>
where
    F: Future<Output = Result<StatusCode, BoxError>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    let mut running = JoinSet::new();
    for _ in 0..calls {
        ticks.tick().await;
        running.spawn(call());
    }
    let mut succeeded = 0;
    while let Some(status) = running.join_next().await {
        succeeded += usize::from(status?? == StatusCode::OK);
    }
    Ok(succeeded)
}
