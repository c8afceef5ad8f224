//! Each fault can be named from its log lines and its metrics alone.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, ClientCredentials, ClientCredentialsBuilder, MockAuthServer, MockTokenSource,
    TokenCache, TokenRequest, source_fn,
};
use bytes::Bytes;
use futures_util::{future, stream};
use http::{Response, StatusCode};
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use serde_json::Value;
use tokio::net::TcpListener;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use crate::discovery::{DAY, Issuer, metadata};
use crate::support::api::status;
use crate::support::clock::ManualClock;
use crate::support::fleet::{Fault as StoreFault, Fleet, keys, shared};
use crate::support::logs;

/// The log lines and metrics of one fault.
struct Seen {
    fault: Fault,
    log: String,
    metrics: String,
}

/// A fault, the line that names it, and a metric that counts it.
struct Fault {
    name: &'static str,
    /// The message, and a field with a part of its value.
    line: (&'static str, &'static str, &'static str),
    metric: Option<&'static str>,
}

impl Fault {
    fn is_named_by(&self, line: &str) -> bool {
        let line: Value = serde_json::from_str(line).unwrap();
        let (message, field, value) = self.line;
        let has = |name: &str, part: &str| {
            let value = line.get(name).map(Value::to_string);
            value.is_some_and(|value| value.contains(part))
        };
        has("message", message) && has(field, value)
    }
}

/// Runs all faults, and writes what was seen to the folder in `FAULTS_FOLDER`, if that is set.
#[test]
fn each_fault_has_a_log_line_of_its_own() {
    let all = [
        dead_endpoint(),
        hanging_endpoint(),
        throttled(),
        wrong_secret(),
        wrong_scope(),
        clock_set_back(),
        revoked_token(),
        api_that_rejects_everything(),
        streaming_body(),
        origin_not_allowed(),
        full_queue(),
        panicking_source(),
        store_that_fails(),
        missing_sealing_key(),
        metadata_that_is_gone(),
    ];
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations/README.md");
    let page = fs::read_to_string(page).unwrap();
    if let Some(folder) = std::env::var_os("FAULTS_FOLDER") {
        for seen in &all {
            seen.write_to(Path::new(&folder)).unwrap();
        }
    }
    for Seen { fault, .. } in &all {
        let (message, field, value) = fault.line;
        let is_explained = page.lines().any(|line| {
            [message, field, value]
                .iter()
                .all(|part| line.contains(part))
        });
        assert!(is_explained, "{:?} in {page}", fault.line);
        for seen in &all {
            let is_named = seen.log.lines().any(|line| fault.is_named_by(line));
            let is_same = seen.fault.name == fault.name;
            assert_eq!(is_named, is_same, "the line of {} in: {seen}", fault.name);
        }
    }
    for seen in &all {
        let Some(metric) = seen.fault.metric else {
            continue;
        };
        let metric = format!("bearer_auth_{metric}");
        let line = seen.metrics.lines().find(|line| line.starts_with(&metric));
        let value = line.and_then(|line| line.rsplit(' ').next());
        let value: Option<f64> = value.and_then(|value| value.parse().ok());
        assert!(value.is_some_and(|it| it > 0.0), "{metric} in: {seen}");
    }
}

fn dead_endpoint() -> Seen {
    let fault = Fault {
        name: "dead endpoint",
        line: ("no token was fetched", "kind", "connection"),
        metric: Some(r#"fetches{outcome="failed",reason="first",kind="connection"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        drop(socket);
        let source = ClientCredentials::builder(format!("http://{address}/token"))
            .client_id("reports")
            .client_secret("s3cret");
        let client = client(source);
        call(&client, &server, 3).await;
        client
    })
}

fn hanging_endpoint() -> Seen {
    let fault = Fault {
        name: "hanging endpoint",
        line: ("no token was fetched", "kind", "timeout"),
        metric: Some(r#"fetches{outcome="failed",reason="first",kind="timeout"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        server.set_token_latency(Duration::from_secs(600));
        let source = source(&server).try_timeout(Duration::from_millis(200));
        let client = client(source);
        call(&client, &server, 3).await;
        client
    })
}

fn throttled() -> Seen {
    let fault = Fault {
        name: "429 with Retry-After",
        line: ("no token was fetched", "kind", "throttled"),
        metric: Some(r#"fetches{outcome="failed",reason="first",kind="throttled"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let (status, wait) = (StatusCode::TOO_MANY_REQUESTS, Duration::from_secs(120));
        server.fail_token_requests_with_retry_after(usize::MAX, status, wait);
        let client = client(source(&server));
        call(&client, &server, 3).await;
        client
    })
}

fn wrong_secret() -> Seen {
    let fault = Fault {
        name: "wrong secret",
        line: ("no token was fetched", "kind", "invalid_client"),
        metric: Some(r#"fetches{outcome="failed",reason="first",kind="invalid_client"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let source = source(&server).client_secret("the secret of last year");
        let client = client(source);
        call(&client, &server, 3).await;
        client
    })
}

fn wrong_scope() -> Seen {
    let fault = Fault {
        name: "wrong scope",
        line: ("no token was fetched", "kind", "invalid_scope"),
        metric: Some(r#"fetches{outcome="failed",reason="first",kind="invalid_scope"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let mut refusal = Response::new(r#"{"error":"invalid_scope"}"#);
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        server.answer_token_requests(100, refusal);
        let source = source(&server).scope("reports.all");
        let client = client(source);
        call(&client, &server, 3).await;
        client
    })
}

fn clock_set_back() -> Seen {
    let fault = Fault {
        name: "clock set back",
        line: ("the wall clock was set back", "step_secs", "-"),
        metric: Some(r#"fetches{outcome="token",reason="due",kind="none"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let clock = ManualClock::new();
        let cache = TokenCache::builder(source(&server).build().unwrap())
            .clock(clock.clone())
            .build()
            .unwrap();
        let layer = BearerAuthLayer::from_cache(cache.clone());
        let client = with_layer(layer);
        call(&client, &server, 2).await;
        clock.advance(885.0, 885.0 - 3_600.0);
        // The first of these starts a refresh in the background.
        call(&client, &server, 2).await;
        while server.tokens_issued() < 2 || cache.status().is_fetching() {
            tokio::task::yield_now().await;
        }
        client
    })
}

fn revoked_token() -> Seen {
    let fault = Fault {
        name: "revoked token",
        line: ("a replay has finished", "outcome", "accepted"),
        metric: Some(r#"replays{outcome="accepted"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let client = client(source(&server));
        call(&client, &server, 2).await;
        server.revoke_all();
        call(&client, &server, 2).await;
        client
    })
}

fn api_that_rejects_everything() -> Seen {
    let fault = Fault {
        name: "API that answers 401 to everything",
        line: ("a replay has finished", "outcome", "refused"),
        metric: Some(r#"replays{outcome="refused"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        server.refuse_all(true);
        let client = client(source(&server));
        call(&client, &server, 5).await;
        client
    })
}

fn streaming_body() -> Seen {
    let fault = Fault {
        name: "streaming body that cannot be replayed",
        line: ("a request was not replayed", "replay_obstacle", "body"),
        metric: Some(r#"replays{outcome="not_possible"}"#),
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let client = client(source(&server));
        call(&client, &server, 1).await;
        server.revoke_all();
        let body = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"report"))]);
        let request = client
            .post(server.api_url())
            .body(reqwest::Body::wrap_stream(body));
        assert_eq!(request.send().await.unwrap().status(), 401);
        call(&client, &server, 1).await;
        client
    })
}

fn origin_not_allowed() -> Seen {
    let fault = Fault {
        name: "origin not allowed",
        line: (
            "check `allow_origin`",
            "no_token_reason",
            "origin_not_allowed",
        ),
        metric: None,
    };
    see(fault, async || {
        let server = MockAuthServer::start().await.unwrap();
        let layer = BearerAuthLayer::new(source(&server).build().unwrap())
            .allow_origin("https://api.example.com")
            .unwrap();
        let client = with_layer(layer);
        call(&client, &server, 3).await;
        client
    })
}

fn full_queue() -> Seen {
    let fault = Fault {
        name: "full queue",
        line: ("a caller waited for a token in vain", "error", "queued"),
        metric: Some(r#"wait_duration_count{outcome="failed"}"#),
    };
    see(fault, async || {
        let tokens = MockTokenSource::new().with_latency(Duration::from_millis(300));
        let cache = TokenCache::builder(tokens)
            .max_concurrent_fetches(2)
            .wait_timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        let callers = (1..=40).map(|tenant| {
            let (cache, request) = (
                cache.clone(),
                TokenRequest::scope(format!("tenant/{tenant}")),
            );
            async move { cache.token_for(&request).await }
        });
        let results = future::join_all(callers).await;
        assert!(results.iter().any(Result::is_err));
        cache
    })
}

fn panicking_source() -> Seen {
    let fault = Fault {
        name: "source that panics",
        line: ("no token was fetched", "kind", "source_panicked"),
        metric: Some(r#"fetches{outcome="failed",reason="first",kind="source_panicked"}"#),
    };
    see(fault, async || {
        let cache = TokenCache::new(source_fn(async |_| panic!("of the source")));
        for _ in 0..3 {
            cache.token().await.unwrap_err();
        }
        cache
    })
}

fn store_that_fails() -> Seen {
    let fault = Fault {
        name: "token store that fails",
        line: ("the token store cannot be used", "store_fault", "failing"),
        metric: Some("stores_unavailable"),
    };
    see(fault, async || {
        let fleet = Fleet::new();
        fleet.store.set(StoreFault::Down);
        let cache = fleet.process();
        for tenant in 0..5 {
            let request = TokenRequest::scope(format!("tenant/{tenant}"));
            cache.token_for(&request).await.unwrap();
        }
        cache
    })
}

fn missing_sealing_key() -> Seen {
    let fault = Fault {
        name: "sealing key that a process does not have",
        line: (
            "the token store has records that this process cannot open",
            "store_fault",
            "unknown_key",
        ),
        metric: Some("stores_unavailable"),
    };
    see(fault, async || {
        let fleet = Fleet::new();
        fleet.process().token().await.unwrap();
        let source = shared(fleet.tokens.clone(), fleet.store.clone(), keys("other"));
        let cache = TokenCache::new(source);
        cache.token().await.unwrap();
        cache
    })
}

fn metadata_that_is_gone() -> Seen {
    let fault = Fault {
        name: "metadata of the issuer that is gone",
        line: (
            "the metadata of an issuer could not be refreshed",
            "kind",
            "discovery",
        ),
        metric: None,
    };
    see(fault, async || {
        tokio::time::pause();
        let issuer = Issuer::with(&metadata());
        let cache = TokenCache::new(issuer.client().build().unwrap());
        cache.token().await.unwrap();
        issuer.answer_with(|_| status(404));
        tokio::time::advance(DAY).await;
        cache.token().await.unwrap();
        cache
    })
}

/// Runs a fault on a runtime of its own. Captures the log at the level `debug` as JSON, and the
/// metrics at the end, while what `run` returned is still there: gauges do not count caches that
/// are gone.
fn see<T>(fault: Fault, run: impl AsyncFnOnce() -> T) -> Seen {
    logs::enable();
    let output = Output::default();
    let writer = output.clone();
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
    let targets: Targets = "bearer_auth=debug".parse().unwrap();
    let subscriber = tracing_subscriber::registry()
        .with(targets)
        .with(lines.with_writer(move || writer.clone()));
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.01, 0.1, 1.0, 10.0])
        .unwrap()
        .build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _logs = tracing::subscriber::set_default(subscriber);
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let kept = runtime.block_on(run());
    let seen = Seen {
        fault,
        log: output.take(),
        metrics: recorder.handle().render(),
    };
    // While the log and the metrics are still captured: none of this belongs to the next fault.
    drop((kept, runtime));
    seen
}

/// Calls the API some times, one after the other. A fault decides what the caller gets.
async fn call(client: &ClientWithMiddleware, server: &MockAuthServer, times: usize) {
    for _ in 0..times {
        let _ = client.get(server.api_url()).send().await;
    }
}

fn client(source: ClientCredentialsBuilder) -> ClientWithMiddleware {
    with_layer(BearerAuthLayer::new(source.build().unwrap()))
}

fn with_layer(layer: BearerAuthLayer) -> ClientWithMiddleware {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    ClientBuilder::new(http).with(layer).build()
}

fn source(server: &MockAuthServer) -> ClientCredentialsBuilder {
    ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
}

impl Seen {
    fn write_to(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(self.fault.name), self.to_string())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.log, self.metrics)
    }
}

/// A writer into memory.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
