//! Tokens are renewed while requests go on, and no request waits or fails for it.

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

/// Held for longer, a request has waited for a token: about half of those that wait would be.
const A_WAIT: Duration = Duration::from_millis(100);

/// When a request was given to the layer.
#[derive(Clone, Copy)]
struct Arrival(Instant);

/// How long the layer held each request, from its call to the inner service's.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Vec<Duration>>>);

impl Held {
    fn record<B>(&self, request: &Request<B>) {
        if let Some(Arrival(at)) = request.extensions().get() {
            let held = at.elapsed();
            self.times().push(held);
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

pub(crate) async fn short_lived(report: &mut Report) -> Result<(), BoxError> {
    report.step("Tokens of 6 s under load: 300 requests/s for 10 s, a token request takes 200 ms");
    let server = MockAuthServer::builder()
        .lifetime(LIFETIME)
        .token_latency(TOKEN_LATENCY)
        .start()
        .await?;
    let auth = layer(&server)?;
    // The first token is waited for; that is not what is measured here.
    auth.cache().token().await?;

    let held = Held::default();
    let at_client = held.clone();
    let service = ServiceBuilder::new()
        .map_request(|mut request: Request<Full<Bytes>>| {
            request.extensions_mut().insert(Arrival(Instant::now()));
            request
        })
        .layer(auth)
        .map_request(move |request| {
            at_client.record(&request);
            request
        })
        .service(Client::builder(TokioExecutor::new()).build_http());

    let answered_200 = steadily(3_000, || {
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

    let held = held.sorted();
    let waits = held.iter().filter(|&&time| time > A_WAIT).count();
    report.check("answers 200", 3_000, answered_200);
    // One each 4.4 s to 4.7 s: before a token of 6 s ends, by a margin and some jitter.
    report.check("renewals", 2, server.token_requests() - 1);
    report.check("requests held for over 100 ms", 0, waits);
    report.check("requests measured", 3_000, held.len());
    for (name, percent) in [("p50", 50), ("p99", 99), ("max", 100)] {
        let added = format!("{:.1?}", percentile(&held, percent));
        report.note(&format!("time added by the layer, {name}"), added);
    }
    Ok(())
}

pub(crate) async fn revoked(report: &mut Report) -> Result<(), BoxError> {
    report.step("A token revoked in mid-load: 300 requests/s for 3 s, each answered after 50 ms");
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

    let load = steadily(900, || {
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
    let (answered_200, ()) = tokio::join!(load, revocation);

    report.check("answers 200", 900, answered_200?);
    report.check("token requests more", 1, server.token_requests() - before);
    report.note("answers 401, sent again unseen", server.api_unauthorized());
    Ok(())
}

/// The time that so many percent of all stay within.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// Starts the calls one by one, each in a task of its own. Returns how many were answered 200.
async fn steadily<F>(calls: usize, call: impl Fn() -> F) -> Result<usize, BoxError>
where
    F: Future<Output = Result<StatusCode, BoxError>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    let mut running = JoinSet::new();
    for _ in 0..calls {
        ticks.tick().await;
        running.spawn(call());
    }
    let mut answered_200 = 0;
    while let Some(status) = running.join_next().await {
        answered_200 += usize::from(status?? == StatusCode::OK);
    }
    Ok(answered_200)
}
