//! Log lines and spans of the feature `tracing`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{
    AccessToken, BearerAuthLayer, ClientCredentials, MockAuthServer, MockTokenSource, TokenCache,
    TokenError, TokenRequest, source_fn,
};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::{advance, sleep};
use tower::{Layer as _, ServiceExt, service_fn};
use tracing::{Instrument, Level};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

use crate::discovery::{DAY, HOUR, ISSUER, Issuer, document, metadata};
use crate::support::fleet::{Fault, Fleet, keys, shared};
use crate::support::logs::{self, Capture};

const LIFE: Duration = Duration::from_secs(900);

fn tokens() -> MockTokenSource {
    MockTokenSource::new().with_lifetime(LIFE)
}

fn get(url: &str) -> Request<String> {
    Request::get(url).body(String::new()).unwrap()
}

/// Rejects the first token.
async fn api(request: Request<String>) -> Result<Response<()>, Infallible> {
    let mut response = Response::new(());
    let authorization = request.headers().get(AUTHORIZATION);
    if authorization.is_some_and(|it| it == "Bearer mock-token-1") {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}

#[tokio::test(start_paused = true)]
async fn a_healthy_service_logs_nothing_above_debug() {
    let (capture, _guard) = Capture::start();
    let layer = BearerAuthLayer::new(tokens())
        .allow_origin("https://api.example.com")
        .unwrap();
    let service = layer.layer(service_fn(api));
    for _ in 0..20 {
        let call = service.clone().oneshot(get("https://api.example.com"));
        assert_eq!(call.await.unwrap().status(), 200);
        let call = service.clone().oneshot(get("https://storage.example.com"));
        call.await.unwrap();
        let tenant = TokenRequest::scope("tenant/1");
        layer.cache().token_for(&tenant).await.unwrap();
        advance(Duration::from_secs(300)).await;
        sleep(Duration::from_millis(1)).await;
    }
    let lines = capture.take();
    assert!(lines.len() > 20, "{}", lines.len());
    for line in lines {
        assert!(line.level >= Level::DEBUG, "{line:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_failure_is_a_warning_and_the_recovery_an_information() {
    let (capture, _guard) = Capture::start();
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let tenant = TokenRequest::scope("tenant/1");
    tokens.fail_times(5, TokenError::permanent("the disk is full"));
    for _ in 0..5 {
        cache.token_for(&tenant).await.unwrap_err();
        cache.token_for(&tenant).await.unwrap_err();
        sleep(Duration::from_secs(80)).await;
    }
    cache.token_for(&tenant).await.unwrap();
    let lines = capture.take_notable();
    let levels: Vec<_> = lines.iter().map(|line| line.level).collect();
    assert_eq!(levels, [Level::WARN, Level::INFO], "{lines:#?}");
    let warning = &lines[0].fields;
    assert_eq!(warning["message"], "no token was fetched");
    assert_eq!(warning["scope"], "tenant/1");
    assert_eq!(warning["fetch_reason"], "first");
    assert_eq!(warning["kind"], "source");
    assert_eq!(warning["cause"], "the disk is full");
    assert!(warning.contains_key("retry_after_secs"));
    assert_eq!(lines[1].fields["scope"], "tenant/1");
    assert_eq!(lines[1].fields["failures"], "5");
}

/// An endpoint that recovers from an outage and then refuses the secret fails for another reason.
#[tokio::test(start_paused = true)]
async fn an_outage_that_becomes_permanent_is_another_warning() {
    let (capture, _guard) = Capture::start();
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let errors = [
        TokenError::transient("down"),
        TokenError::transient("down"),
        TokenError::permanent("wrong secret"),
        TokenError::permanent("wrong secret"),
    ];
    for error in errors {
        tokens.fail_times(if error.is_transient() { 3 } else { 1 }, error);
        cache.token().await.unwrap_err();
        sleep(Duration::from_secs(60)).await;
    }
    let lines = capture.take_notable();
    let causes: Vec<_> = lines.iter().map(|line| &line.fields["cause"]).collect();
    assert_eq!(causes, ["down", "wrong secret"]);
    assert!(lines.iter().all(|line| line.level == Level::WARN));
}

/// The warning is not repeated by those that meet the pause of another process or cache.
#[tokio::test(start_paused = true)]
async fn the_pause_of_another_cache_is_no_warning() {
    let (capture, _guard) = Capture::start();
    let tokens = tokens();
    let inner = TokenCache::builder(tokens.clone()).without_default_observers();
    let inner = inner.build().unwrap();
    let source = inner.clone();
    let outer = TokenCache::new(source_fn(move |_| {
        let inner = source.clone();
        async move { inner.token().await }
    }));
    tokens.fail_times(2, TokenError::permanent("the disk is full"));
    outer.token().await.unwrap_err();
    assert_eq!(capture.take_notable().len(), 1);
    sleep(Duration::from_secs(2)).await;
    inner.token().await.unwrap_err();
    assert!(outer.token().await.unwrap_err().is_paused());
    assert_eq!(capture.take_notable().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_a_warning_and_its_return_an_information() {
    let (capture, _guard) = Capture::start();
    let fleet = Fleet::new();
    let cache = fleet.process();
    let fetch = async |tenant: &str| cache.token_for(&TokenRequest::scope(tenant)).await.unwrap();
    fleet.store.set(Fault::Down);
    for tenant in ["a", "b", "c", "d", "e"] {
        fetch(tenant).await;
    }
    let lines = capture.take_notable();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].level, Level::WARN);
    let fields = &lines[0].fields;
    assert_eq!(
        fields["message"],
        "the token store cannot be used: this process works alone"
    );
    assert_eq!(fields["store_fault"], "failing");
    assert!(fields["error"].contains("check that it is reachable"));
    assert_eq!(fields["cause"], "down");
    fleet.store.set(Fault::None);
    sleep(Duration::from_secs(1)).await;
    fetch("f").await;
    let lines = capture.take_notable();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].level, Level::INFO);
    assert_eq!(
        lines[0].fields["message"],
        "the token store can be used again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sealing_key_that_is_missing_is_a_warning() {
    let (capture, _guard) = Capture::start();
    let fleet = Fleet::new();
    fleet.process().token().await.unwrap();
    let source = shared(fleet.tokens.clone(), fleet.store.clone(), keys("other"));
    TokenCache::new(source).token().await.unwrap();
    let lines = capture.take_notable();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].level, Level::WARN);
    let fields = &lines[0].fields;
    assert!(fields["message"].contains("have all sealing keys"));
    assert_eq!(fields["store_fault"], "unknown_key");
}

#[tokio::test(start_paused = true)]
async fn metadata_that_is_not_refreshed_is_one_warning_and_its_refresh_an_info() {
    let (capture, _guard) = Capture::start();
    let issuer = Issuer::with(&metadata());
    let cache = TokenCache::new(issuer.client().build().unwrap());
    cache.token().await.unwrap();
    issuer.answer_with(|_| document(&serde_json::json!({})));
    for time in [DAY, HOUR] {
        sleep(time).await;
        cache.token().await.unwrap();
    }
    let lines = capture.take_notable();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].level, Level::WARN);
    let fields = &lines[0].fields;
    assert!(fields["message"].contains("the known token endpoint stays in use"));
    assert_eq!(fields["issuer"], ISSUER);
    assert_eq!(fields["kind"], "discovery");
    assert!(fields["cause"].contains("not a JSON object of metadata"));
    issuer.answer_with(|_| document(&metadata()));
    sleep(HOUR).await;
    cache.token().await.unwrap();
    let lines = capture.take_notable();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(lines[0].level, Level::INFO);
    assert!(lines[0].fields["message"].contains("was refreshed again"));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_says_what_rejected_the_token() {
    let (capture, _guard) = Capture::start();
    let layer = BearerAuthLayer::new(tokens());
    let service = layer.layer(service_fn(async |request| {
        let mut response = api(request).await?;
        let challenge = HeaderValue::from_static("Bearer error=\"expired_token\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Ok::<_, Infallible>(response)
    }));
    service
        .oneshot(get("https://api.example.com:8443/a?b"))
        .await
        .unwrap();
    let lines = capture.take();
    let line = lines
        .iter()
        .find(|it| it.fields["message"] == "a token was rejected");
    let fields = &line.unwrap().fields;
    assert_eq!(fields["status"], "401");
    assert_eq!(fields["origin"], "https://api.example.com:8443");
    assert_eq!(fields["challenge_error"], "expired_token");
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_not_allowed_is_a_warning_if_none_has_matched() {
    let (capture, _guard) = Capture::start();
    let layer = BearerAuthLayer::new(tokens())
        .allow_origin("https://api.example.com")
        .unwrap();
    let service = layer.layer(service_fn(api));
    let call = |url| service.clone().oneshot(get(url));
    for _ in 0..3 {
        call("https://api.example.org/a?b").await.unwrap();
        call("https://api.example.org:8443/").await.unwrap();
    }
    let origins: Vec<_> = capture
        .take_notable()
        .into_iter()
        .map(|line| (line.level, line.fields["origin"].clone()))
        .collect();
    assert_eq!(
        origins,
        [
            (Level::WARN, "https://api.example.org".to_owned()),
            (Level::WARN, "https://api.example.org:8443".to_owned()),
        ],
        "once per origin"
    );
    call("https://api.example.com").await.unwrap();
    call("https://other.example.org").await.unwrap();
    let lines = capture.take();
    let line = lines.last().unwrap();
    assert_eq!(line.level, Level::DEBUG);
    assert_eq!(line.fields["no_token_reason"], "origin_not_allowed");
    assert_eq!(line.fields["origin"], "https://other.example.org");
}

#[tokio::test(start_paused = true)]
async fn each_fetch_has_a_span_that_follows_from_its_caller() {
    let (capture, _guard) = Capture::start();
    let cache = TokenCache::new(source_fn(async |_| {
        tracing::debug!(target: "bearer_auth", "in the source");
        Ok(AccessToken::new("opaque")?)
    }));
    let tenant = TokenRequest::scope("tenant/1");
    let caller = tracing::info_span!("caller");
    cache.token_for(&tenant).instrument(caller).await.unwrap();
    let spans = capture.spans.lock().unwrap().clone();
    assert_eq!(spans.len(), 1);
    let (name, fields) = &spans[0];
    assert_eq!(name, "fetch");
    assert_eq!(fields["scope"], "tenant/1");
    assert_eq!(fields["fetch_reason"], "first");
    assert_eq!(
        *capture.follows.lock().unwrap(),
        [("fetch".to_owned(), "caller".to_owned())]
    );
    let of = |message: &str| {
        let lines = capture.lines.lock().unwrap();
        let line = lines.iter().find(|it| it.fields["message"] == message);
        line.unwrap().span.clone().unwrap()
    };
    assert_eq!(of("in the source"), "fetch");
    assert_eq!(of("a fetch has finished"), "fetch");
    assert_eq!(of("a caller waited for a token"), "caller");
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_a_cache_can_be_disabled() {
    let (capture, _guard) = Capture::start();
    let tokens = tokens();
    let cache = TokenCache::builder(tokens.clone())
        .without_default_observers()
        .build()
        .unwrap();
    tokens.fail_next(TokenError::permanent("no"));
    cache.token().await.unwrap_err();
    assert!(capture.take().is_empty());
}

/// A writer into memory.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// All lines of all crates, at the level `trace`, under all faults of the mock server.
#[tokio::test]
async fn no_log_line_contains_a_secret() {
    logs::enable();
    let output = Output::default();
    let writer = output.clone();
    let lines = fmt::layer()
        .with_ansi(false)
        .with_span_events(fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone());
    // The transport's own lines are not this crate's.
    let lines = lines.with_filter(tracing_subscriber::filter::filter_fn(|metadata| {
        metadata.target().starts_with("bearer_auth")
    }));
    let subscriber = tracing_subscriber::registry().with(lines);
    let _guard = tracing::subscriber::set_default(subscriber);

    let body = |status: u16, body: &str| {
        let mut response = Response::new(body.to_owned());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    let mut secrets = vec!["s3cret".to_owned(), "czNjcmV0".to_owned()];
    for fault in [
        body(200, r#"{"access_token":"s3cret-of-token with blanks"}"#),
        body(200, r#"{"access_token":["s3cret-of-token"]}"#),
        body(
            200,
            r#"{"access_token":"s3cret-of-token","token_type":"s3cret"}"#,
        ),
        body(
            400,
            r#"{"error":"x","error_description":"s3cret-of-server"}"#,
        ),
        body(401, r#"{"error":"s3cret of server\u0000"}"#),
        body(429, "s3cret-of-server"),
        body(503, "s3cret-of-server"),
        body(302, "s3cret-of-server"),
        body(200, "s3cret-of-server"),
    ] {
        let server = MockAuthServer::builder()
            .client("id", "s3cret-of-client")
            .start()
            .await
            .unwrap();
        let url = format!("{}?key=s3cret-of-client", server.token_url());
        let source = ClientCredentials::builder(url)
            .client_id("id")
            .client_secret("s3cret-of-client")
            .build()
            .unwrap();
        let layer = BearerAuthLayer::new(source);
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(layer.clone())
            .build();
        let api = format!("{}?s3cret", server.api_url());
        client.get(&api).send().await.unwrap();
        let token = layer.cache().peek().unwrap();
        secrets.push(token.expose_secret().to_owned());
        server.revoke_all();
        client.get(&api).send().await.unwrap();
        server.answer_token_requests(3, fault);
        server.revoke_all();
        client.get(&api).send().await.unwrap();
        client
            .get("http://x:s3cret@a.invalid/s3cret")
            .send()
            .await
            .unwrap_err();
        server.shutdown().await;
        let other = TokenRequest::scope("other");
        layer.cache().token_for(&other).await.unwrap_err();
        layer.cache().close().await;
    }
    let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
    for expected in [
        "no token was fetched",
        "a token was rejected",
        "origin_not_allowed",
    ] {
        assert!(text.contains(expected), "{expected} in: {text}");
    }
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret} in: {text}");
    }
}
