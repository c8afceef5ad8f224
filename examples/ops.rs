//! A service that can be operated: metrics, readiness, JSON logs, and an orderly shutdown.
//!
//! `cargo run --example ops` starts the service on loopback, breaks its token endpoint and its
//! token, and checks what `/metrics` and `/ready` say before, during and after. With `-- --serve`
//! it runs until Ctrl-C, to be tried by hand.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Router, serve};
use bearer_auth::{
    BearerAuthLayer, BoxError, ClientCredentials, MockAuthServer, TokenCache, TokenError,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// The upper bounds of the buckets of both histograms, in seconds.
const BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];
/// The pause after the first failed fetch: long enough for the checks to see it.
const FIRST_PAUSE: Duration = Duration::from_secs(3);
/// The limit for everything that the checks wait for.
const LIMIT: Duration = Duration::from_secs(60);
/// The time between two polls of a check.
const POLL: Duration = Duration::from_millis(100);

#[derive(Clone)]
struct App {
    client: ClientWithMiddleware,
    cache: TokenCache,
    metrics: PrometheusHandle,
    upstream: Arc<MockAuthServer>,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let metrics = start_observing()?;
    let upstream = Arc::new(MockAuthServer::start().await?);
    let source = ClientCredentials::builder(upstream.token_url())
        .client_id(upstream.client_id())
        .client_secret(upstream.client_secret())
        .reqwest_builder(loopback())
        .build()?;
    let cache = TokenCache::builder(source)
        .first_pause(FIRST_PAUSE)
        .build()?;
    let auth = BearerAuthLayer::from_cache(cache.clone()).allow_origin(upstream.origin())?;
    let app = App {
        cache: cache.clone(),
        client: ClientBuilder::new(loopback().build()?).with(auth).build(),
        metrics,
        upstream,
    };

    if std::env::args().any(|argument| argument == "--serve") {
        let listener = TcpListener::bind("127.0.0.1:3000").await?;
        println!("curl http://127.0.0.1:3000/orders, /ready, /metrics");
        println!("curl -X POST http://127.0.0.1:3000/fault/down, up, revoke, refuse, accept");
        return run(app, listener, async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await;
    }

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let service = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run(app, listener, async {
        let _ = stopped.await;
    }));
    timeout(LIMIT, check(&service)).await??;
    let _ = stop.send(());
    timeout(LIMIT, running).await???;
    // The token is still usable, but no other will be fetched.
    assert!(cache.status().is_ready());
    println!("the service has shut down");
    Ok(())
}

/// Installs the exporter of metrics and the log, before the first token is fetched.
fn start_observing() -> Result<PrometheusHandle, BoxError> {
    // JSON lines on standard error: everything of this crate, and warnings of the others.
    let targets: Targets = "warn,bearer_auth=debug".parse()?;
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    let subscriber = tracing_subscriber::registry()
        .with(targets)
        .with(lines.with_writer(std::io::stderr));
    tracing::subscriber::set_global_default(subscriber)?;
    // Without buckets the exporter writes quantiles, which cannot be added up over instances.
    Ok(PrometheusBuilder::new()
        .set_buckets(&BUCKETS)?
        .install_recorder()?)
}

async fn run(
    app: App,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), BoxError> {
    let cache = app.cache.clone();
    // So that the service becomes ready without waiting for its first request. A failure is logged.
    let first = cache.clone();
    tokio::spawn(async move { first.token().await.map(drop) });

    let routes = Router::new()
        .route("/orders", get(orders))
        .route("/ready", get(ready))
        .route("/metrics", get(render))
        .route("/fault/{name}", post(fault))
        .with_state(app);
    let closing = cache.clone();
    serve(listener, routes)
        .with_graceful_shutdown(async move {
            shutdown.await;
            // Before the requests in progress are drained: those that wait for a token end, and
            // the others still have theirs.
            closing.close().await;
        })
        .await?;
    Ok(())
}

/// Calls the protected API.
async fn orders(State(app): State<App>) -> Result<String, (StatusCode, String)> {
    let response = app.client.get(app.upstream.api_url()).send().await;
    let response = response.map_err(|error| match TokenError::find(&error) {
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        None => (StatusCode::BAD_GATEWAY, error.to_string()),
    })?;
    match response.status() {
        status if status.is_success() => Ok(response.text().await.unwrap_or_default()),
        status => Err((
            StatusCode::BAD_GATEWAY,
            format!("the API answered {status}"),
        )),
    }
}

/// Answers a readiness probe. It never fetches a token and never waits.
async fn ready(State(app): State<App>) -> (StatusCode, String) {
    let status = app.cache.status();
    if status.is_ready() {
        return (StatusCode::OK, "ready".to_owned());
    }
    let reason = match status.last_error() {
        Some(error) => error.to_string(),
        None => format!("{:?}", status.state()),
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason)
}

async fn render(State(app): State<App>) -> String {
    // An exporter with a server of its own does this every few seconds.
    app.metrics.run_upkeep();
    app.metrics.render()
}

/// Switches a fault on or off. No real service has this.
async fn fault(State(app): State<App>, Path(name): Path<String>) -> StatusCode {
    match name.as_str() {
        "down" => app.upstream.set_outage(true),
        "up" => app.upstream.set_outage(false),
        "revoke" => app.upstream.revoke_all(),
        "refuse" => app.upstream.refuse_all(true),
        "accept" => app.upstream.refuse_all(false),
        _ => return StatusCode::NOT_FOUND,
    }
    StatusCode::OK
}

/// Breaks the token and the token endpoint, and checks what an operator sees.
async fn check(service: &str) -> Result<(), BoxError> {
    let probe = Probe {
        http: loopback().build()?,
        service,
    };

    println!("healthy");
    probe.until("/orders", 200).await?;
    probe.expect("/ready", 200).await?;
    let metrics = [
        (
            r#"fetches{outcome="token",reason="first",kind="none"}"#,
            1.0,
        ),
        ("fetch_duration_count", 1.0),
        ("paused", 0.0),
    ];
    probe.expect_metrics(&metrics).await?;

    println!("the token is revoked: nobody notices");
    probe.fault("revoke").await?;
    probe.expect("/orders", 200).await?;
    let metrics = [
        (r#"rejections{outcome="effective"}"#, 1.0),
        (r#"replays{outcome="accepted"}"#, 1.0),
    ];
    probe.expect_metrics(&metrics).await?;

    println!("the token endpoint is down: the token is still good");
    probe.fault("down").await?;
    probe.expect("/orders", 200).await?;
    probe.expect("/ready", 200).await?;

    println!("the token is revoked meanwhile: it counts once the last rejection is not recent");
    probe.fault("revoke").await?;
    let reason = loop {
        probe.expect("/orders", 502).await?;
        match probe.get("/ready").await? {
            (503, reason) => break reason,
            _ => sleep(POLL).await,
        }
    };
    println!("  /ready: {reason}");
    assert!(reason.contains("the token endpoint is failing"), "{reason}");
    let metrics = [
        (
            r#"fetches{outcome="failed",reason="rejected",kind="unavailable"}"#,
            1.0,
        ),
        (r#"replays{outcome="not_possible"}"#, 1.0),
        ("paused", 1.0),
    ];
    probe.expect_metrics(&metrics).await?;

    println!("the token endpoint is up again");
    probe.fault("up").await?;
    probe.until("/orders", 200).await?;
    probe.expect("/ready", 200).await?;
    let metrics = [("paused", 0.0), ("fetches_in_flight", 0.0)];
    probe.expect_metrics(&metrics).await?;
    Ok(())
}

struct Probe<'a> {
    http: reqwest::Client,
    service: &'a str,
}

impl Probe<'_> {
    async fn get(&self, path: &str) -> Result<(u16, String), BoxError> {
        let url = format!("{}{path}", self.service);
        let response = self.http.get(url).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    async fn expect(&self, path: &str, expected: u16) -> Result<String, BoxError> {
        let (status, text) = self.get(path).await?;
        match status == expected {
            true => Ok(text),
            false => Err(format!("{path}: {status} instead of {expected}: {text}").into()),
        }
    }

    /// Repeats a request until it has the expected status.
    async fn until(&self, path: &str, expected: u16) -> Result<(), BoxError> {
        while self.get(path).await?.0 != expected {
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Scrapes the metrics, all of which have the expected values.
    async fn expect_metrics(&self, expected: &[(&str, f64)]) -> Result<(), BoxError> {
        let text = self.expect("/metrics", 200).await?;
        for (name, expected) in expected {
            let name = format!("bearer_auth_{name}");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            let value: Option<f64> = line.and_then(|it| it.trim().parse().ok());
            if value != Some(*expected) {
                return Err(format!("expected {expected} for {name} in:\n{text}").into());
            }
            println!("  {name} {expected}");
        }
        Ok(())
    }

    async fn fault(&self, name: &str) -> Result<(), BoxError> {
        let url = format!("{}/fault/{name}", self.service);
        self.http.post(url).send().await?.error_for_status()?;
        Ok(())
    }
}

/// Ignores proxy settings of the environment, since a proxy cannot reach this machine's loopback.
fn loopback() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}
