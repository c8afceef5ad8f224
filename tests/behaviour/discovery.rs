//! The token endpoint by the issuer's metadata (RFC 8414, OpenID Connect Discovery 1.0).

use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{
    Assertion, AssertionContext, ClientAssertion, ClientAuthentication, ClientCredentials,
    ClientCredentialsBuilder, InMemoryRefreshTokenStore, JwtBearer, RefreshTokenGrant,
    SecurityToken, TokenCache, TokenError, TokenErrorKind, TokenExchange, TokenRequest,
    TokenSource,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::client_assertions::issued;
use crate::support::api::{Scripted, status};

pub(crate) const ISSUER: &str = "https://id.example.com/realms/a";
const RFC_8414: &str = "https://id.example.com/.well-known/oauth-authorization-server/realms/a";
const OPENID: &str = "https://id.example.com/realms/a/.well-known/openid-configuration";
const TOKEN_URL: &str = "https://id.example.com/realms/a/token";
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// An issuer without network, which answers requests for metadata as it is told and all others with
/// a token.
#[derive(Clone)]
pub(crate) struct Issuer {
    #[allow(clippy::type_complexity)]
    answer: Arc<Mutex<Box<dyn Fn(&str) -> Scripted + Send>>>,
    requests: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Issuer {
    /// `answer` is called with the URL of a request for metadata.
    fn new(answer: impl Fn(&str) -> Scripted + Send + 'static) -> Self {
        Self {
            answer: Arc::new(Mutex::new(Box::new(answer))),
            requests: Arc::default(),
        }
    }

    pub(crate) fn with(metadata: &Value) -> Self {
        let metadata = metadata.clone();
        Self::new(move |_| document(&metadata))
    }

    pub(crate) fn answer_with(&self, answer: impl Fn(&str) -> Scripted + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    pub(crate) async fn respond(
        self,
        request: Request<Full<Bytes>>,
    ) -> Result<Scripted, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let request = Request::from_parts(parts, body);
        let url = request.uri().to_string();
        let is_metadata = request.method() == Method::GET;
        self.requests.lock().unwrap().push(request);
        Ok(if is_metadata {
            (self.answer.lock().unwrap())(&url)
        } else {
            issued()
        })
    }

    fn connect(&self, builder: ClientCredentialsBuilder) -> ClientCredentialsBuilder {
        let issuer = self.clone();
        builder.transport(tower::service_fn(move |request| {
            issuer.clone().respond(request)
        }))
    }

    pub(crate) fn client(&self) -> ClientCredentialsBuilder {
        let client = ClientCredentials::discover(ISSUER).client_id("id");
        self.connect(client.client_secret("s3cret"))
    }

    /// Returns the requests since the last call, as method and URL.
    fn take(&self) -> Vec<String> {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        let line = |request: &Request<_>| format!("{} {}", request.method(), request.uri());
        requests.iter().map(line).collect()
    }
}

pub(crate) fn document(metadata: &Value) -> Scripted {
    Response::new(Full::from(metadata.to_string()))
}

pub(crate) fn metadata() -> Value {
    json!({ "issuer": ISSUER, "token_endpoint": TOKEN_URL, "scopes_supported": ["a"] })
}

fn at(url: &str) -> Value {
    json!({ "issuer": ISSUER, "token_endpoint": url })
}

async fn fetch(source: &impl TokenSource) -> Result<(), TokenError> {
    source.fetch(&TokenRequest::default()).await.map(drop)
}

/// Returns the texts of an error and its causes.
pub(crate) fn chain(error: &TokenError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let texts = causes.map(ToString::to_string);
    format!("{error}\n{}\n{error:?}", texts.collect::<String>())
}

/// Counts the assertions that are made.
#[derive(Clone, Default)]
pub(crate) struct Assertions(Arc<Mutex<Vec<Option<String>>>>);

impl Assertions {
    /// Returns the audiences of all assertions.
    pub(crate) fn audiences(&self) -> Vec<Option<String>> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait::async_trait]
impl ClientAssertion for Assertions {
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
        let audience = context.audience().map(str::to_owned);
        self.0.lock().unwrap().push(audience);
        Ok(Assertion::new("a.b.c")?)
    }

    fn needs_audience(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn metadata_of_either_standard_names_the_token_endpoint() {
    let issuer = Issuer::with(&metadata());
    let source = issuer.client().build().unwrap();
    assert!(issuer.take().is_empty(), "nothing before the first fetch");
    fetch(&source).await.unwrap();
    fetch(&source).await.unwrap();
    let metadata_and_tokens = issuer.requests.lock().unwrap().clone();
    let request = &metadata_and_tokens[0];
    assert!(request.body().is_empty() && !request.headers().contains_key("authorization"));
    assert_eq!(request.headers()["accept"], "application/json");
    let post = format!("POST {TOKEN_URL}");
    assert_eq!(
        issuer.take(),
        [format!("GET {RFC_8414}"), post.clone(), post.clone()]
    );

    for missing in [404, 400, 403, 302, 500] {
        let issuer = Issuer::new(move |url| match url {
            OPENID => document(&metadata()),
            _ => status(missing),
        });
        fetch(&issuer.client().build().unwrap()).await.unwrap();
        let [first, second] = [RFC_8414, OPENID].map(|url| format!("GET {url}"));
        assert_eq!(issuer.take(), [first, second, post.clone()], "{missing}");
    }
}

#[tokio::test]
async fn the_issuer_is_the_audience_of_assertions_unless_one_is_set() {
    let issuer = Issuer::with(&metadata());
    let assertions = Assertions::default();
    let client = || {
        let client = ClientCredentials::discover(ISSUER).client_id("id");
        issuer.connect(client.client_assertion(assertions.clone()))
    };
    fetch(&client().build().unwrap()).await.unwrap();
    let other = client().audience("https://other").build().unwrap();
    fetch(&other).await.unwrap();
    let audiences = [ISSUER, "https://other"].map(|audience| Some(audience.to_owned()));
    assert_eq!(assertions.audiences(), audiences);
    let error = client().token_url_as_audience().build().unwrap_err();
    assert_eq!(error.setting(), "token_url_as_audience");
}

#[tokio::test]
async fn metadata_that_fails_a_check_gets_no_credentials() {
    let aliases = json!({
        "issuer": ISSUER,
        "mtls_endpoint_aliases": { "token_endpoint": TOKEN_URL },
    });
    let of = |issuer: &str| json!({ "issuer": issuer, "token_endpoint": TOKEN_URL });
    for (metadata, expected) in [
        (of("https://evil.example.com"), "`issuer` differs"),
        (of("https://id.example.com/realms/a/"), "`issuer` differs"),
        (of("https://id.example.com"), "`issuer` differs"),
        (of("https://ID.example.com/realms/a"), "`issuer` differs"),
        (of("http://id.example.com/realms/a"), "`issuer` differs"),
        (json!({ "issuer": ISSUER }), "no `token_endpoint`"),
        (aliases, "no `token_endpoint`"),
        (at("http://id.example.com/token"), "must be an https URL"),
        (at("ftp://id.example.com/token"), "must be an https URL"),
        (at("/token"), "must be an https URL"),
        (at(""), "must be an https URL"),
        (
            at("https://u:p@id.example.com/token"),
            "must be an https URL",
        ),
        (at("https://id.example.com/token#a"), "must be an https URL"),
        (
            at("https://id.example.com\\@evil.example.com/"),
            "must be an https URL",
        ),
        (at("https://evil.example.com/token"), "evil.example.com"),
        (
            at("https://id.example.com.evil.example.com/"),
            "another origin",
        ),
        (at("https://id.example.com:8443/token"), "another origin"),
        (at("https://id.example.com./token"), "another origin"),
        (at("http://127.0.0.1/token"), "another origin"),
    ] {
        let issuer = Issuer::with(&metadata);
        let assertions = Assertions::default();
        let client = ClientCredentials::discover(ISSUER).client_id("id");
        let client = issuer.connect(client.client_assertion(assertions.clone()));
        let cache = TokenCache::new(client.build().unwrap());
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Discovery, "{metadata}");
        assert!(!error.is_transient(), "{metadata}");
        assert_eq!(error.token_endpoint(), Some("id.example.com"));
        let text = chain(&error);
        assert!(text.contains(expected), "{metadata}: {text}");
        assert!(text.contains("check the issuer"), "{text}");
        assert_eq!(assertions.audiences(), [], "{metadata}");
        assert_eq!(issuer.take(), [format!("GET {RFC_8414}")], "{metadata}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_metadata_is_a_typed_error() {
    let text = |text: &'static str| move |_: &str| Response::new(Full::from(text));
    type Answer = Box<dyn Fn(&str) -> Scripted + Send>;
    for (name, answer, transient, expected) in [
        (
            "missing",
            Box::new(|_: &str| status(404)) as Answer,
            false,
            "has no metadata",
        ),
        (
            "unavailable",
            Box::new(|url| status(if url == OPENID { 404 } else { 503 })),
            true,
            "at the moment",
        ),
        (
            "forbidden",
            Box::new(|url| status(if url == OPENID { 404 } else { 403 })),
            false,
            "403",
        ),
        ("redirect", Box::new(|_| status(302)), false, "redirected"),
        ("page", Box::new(text("<html>s3cret")), true, "not a JSON"),
        ("list", Box::new(text("[]")), true, "not a JSON"),
        (
            "twice",
            Box::new(text(r#"{"issuer":"s3cret","issuer":"s3cret"}"#)),
            true,
            "not a JSON",
        ),
        (
            "deep",
            Box::new(|_| Response::new(Full::from("{\"a\":".repeat(40_000)))),
            true,
            "not a JSON",
        ),
        (
            "10 MiB",
            Box::new(|_| Response::new(Full::from(vec![b' '; 10 << 20]))),
            true,
            "longer than 262144 bytes",
        ),
    ] {
        let issuer = Issuer::new(answer);
        let cache = TokenCache::new(issuer.client().build().unwrap());
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Discovery, "{name}");
        assert_eq!(error.is_transient(), transient, "{name}");
        let chain = chain(&error);
        assert!(chain.contains(expected), "{name}: {chain}");
        assert!(!chain.contains("s3cret"), "{name}: {chain}");
        let requests = issuer.take();
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|it| it.starts_with("GET ")), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_of_metadata_that_is_unavailable_follows_retry_after() {
    let issuer = Issuer::new(|_| {
        let mut response = status(503);
        let headers = response.headers_mut();
        headers.insert("retry-after", http::HeaderValue::from_static("77"));
        response
    });
    let error = fetch(&issuer.client().build().unwrap()).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(77)));
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
}

#[tokio::test]
async fn a_token_endpoint_at_an_allowed_origin_is_used() {
    let elsewhere = "https://login.example.com/token";
    let issuer = Issuer::with(&at(elsewhere));
    let allowed = issuer
        .client()
        .allow_token_origin("https://login.example.com");
    fetch(&allowed.unwrap().build().unwrap()).await.unwrap();
    assert_eq!(issuer.take()[1], format!("POST {elsewhere}"));

    let other = issuer
        .client()
        .allow_token_origin("https://log.example.com");
    let error = fetch(&other.unwrap().build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Discovery);
}

#[tokio::test(start_paused = true)]
async fn metadata_is_fetched_again_once_a_day_and_a_failure_keeps_the_endpoint() {
    let issuer = Issuer::with(&metadata());
    let source = issuer.client().build().unwrap();
    let get = format!("GET {RFC_8414}");
    let post = |url: &str| format!("POST {url}");
    fetch(&source).await.unwrap();
    issuer.take();
    advance(DAY - Duration::from_secs(1)).await;
    fetch(&source).await.unwrap();
    assert_eq!(issuer.take(), [post(TOKEN_URL)]);

    advance(Duration::from_secs(1)).await;
    let moved = "https://id.example.com/moved";
    issuer.answer_with(move |_| document(&at(moved)));
    fetch(&source).await.unwrap();
    assert_eq!(issuer.take(), [get.clone(), post(moved)]);

    for (name, body) in [
        ("no metadata", document(&json!({}))),
        ("redirect", status(302)),
        (
            "other issuer",
            document(&json!({ "issuer": "https://x", "token_endpoint": moved })),
        ),
        ("http", document(&at("http://id.example.com/token"))),
    ] {
        issuer.answer_with(move |_| body.clone());
        advance(DAY).await;
        fetch(&source).await.unwrap();
        let requests = issuer.take();
        assert_eq!(requests.last(), Some(&post(moved)), "{name}");
        assert!(requests.len() > 1, "{name}");
        // The next try is an hour later.
        advance(HOUR - Duration::from_secs(1)).await;
        fetch(&source).await.unwrap();
        assert_eq!(issuer.take(), [post(moved)], "{name}");
        issuer.answer_with(move |_| document(&at(moved)));
        advance(Duration::from_secs(1)).await;
        fetch(&source).await.unwrap();
        assert_eq!(issuer.take(), [get.clone(), post(moved)], "{name}");
    }
}

#[tokio::test]
async fn the_origin_of_the_token_endpoint_is_pinned() {
    tokio::time::pause();
    let issuer = Issuer::with(&metadata());
    let allowed = issuer
        .client()
        .allow_token_origin("https://login.example.com");
    let source = allowed.unwrap().build().unwrap();
    fetch(&source).await.unwrap();
    issuer.answer_with(|_| document(&at("https://login.example.com/token")));
    advance(DAY).await;
    issuer.take();
    fetch(&source).await.unwrap();
    let requests = [format!("GET {RFC_8414}"), format!("POST {TOKEN_URL}")];
    assert_eq!(issuer.take(), requests);
}

#[tokio::test(start_paused = true)]
async fn metadata_that_hangs_delays_a_fetch_by_two_seconds_once_the_endpoint_is_known() {
    let hangs = Arc::new(Mutex::new(false));
    let is_hanging = Arc::clone(&hangs);
    let transport = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let hangs = request.method() == Method::GET && *is_hanging.lock().unwrap();
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(match *request.method() {
                Method::GET => document(&metadata()),
                _ => issued(),
            })
        }
    });
    let client = || {
        let client = ClientCredentials::discover(ISSUER).client_id("id");
        client.client_secret("s").transport(transport.clone())
    };
    let source = client().build().unwrap();
    fetch(&source).await.unwrap();
    *hangs.lock().unwrap() = true;
    advance(DAY).await;
    let start = tokio::time::Instant::now();
    fetch(&source).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));

    let start = tokio::time::Instant::now();
    let error = fetch(&client().build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test]
async fn endpoints_for_certificates_are_for_clients_that_use_one() {
    let mtls = "https://mtls.id.example.com/token";
    let mut metadata = metadata();
    metadata["mtls_endpoint_aliases"] = json!({ "token_endpoint": mtls });
    let issuer = Issuer::with(&metadata);
    let client = || {
        let client = ClientCredentials::discover(ISSUER).client_id("id");
        let client = client.client_authentication(ClientAuthentication::TlsClientAuth);
        issuer.connect(client)
    };
    let allowed = client().allow_token_origin("https://mtls.id.example.com");
    fetch(&allowed.unwrap().build().unwrap()).await.unwrap();
    assert_eq!(issuer.take()[1], format!("POST {mtls}"));
    let error = fetch(&client().build().unwrap()).await.unwrap_err();
    assert!(chain(&error).contains("another origin"), "{error:?}");
    issuer.take();

    fetch(&issuer.client().build().unwrap()).await.unwrap();
    assert_eq!(issuer.take()[1], format!("POST {TOKEN_URL}"));
}

#[test]
fn settings_that_discovery_excludes_are_named() {
    let client = |issuer: &str| {
        let client = ClientCredentials::discover(issuer).client_id("id");
        client.client_secret("s")
    };
    for issuer in [
        "",
        "id.example.com",
        "http://id.example.com",
        "https://a?b",
        "https://a#b",
    ] {
        let error = client(issuer).build().unwrap_err();
        assert_eq!(error.setting(), "issuer", "{issuer}");
    }
    client("http://127.0.0.1:1/a").build().unwrap();
    let error = client(ISSUER).allow_http().build().unwrap_err();
    assert_eq!(error.setting(), "allow_http");
    for origin in [
        "http://a.example.com",
        "https://a.example.com/",
        "a.example.com",
    ] {
        let error = client(ISSUER).allow_token_origin(origin).unwrap_err();
        assert_eq!(error.setting(), "allow_token_origin", "{origin}");
    }
    let fixed = ClientCredentials::builder(TOKEN_URL).client_id("id");
    let fixed = fixed.client_secret("s").allow_token_origin("https://a");
    let error = fixed.unwrap().build().unwrap_err();
    assert_eq!(error.setting(), "allow_token_origin");
}

#[tokio::test]
async fn every_grant_can_discover_its_endpoint() {
    let issuer = Issuer::with(&metadata());
    let transport = || {
        let issuer = issuer.clone();
        tower::service_fn(move |request| issuer.clone().respond(request))
    };
    let jwt = || async { Ok(SecurityToken::jwt("a.b.c")) };
    let source = JwtBearer::discover(ISSUER)
        .assertion(move |_| jwt())
        .transport(transport())
        .build();
    fetch(&source.unwrap()).await.unwrap();
    let source = TokenExchange::discover(ISSUER)
        .client_id("id")
        .client_secret("s3cret")
        .subject_token(move |_| jwt())
        .transport(transport())
        .build();
    let subject = TokenRequest::subject("user");
    source.unwrap().fetch(&subject).await.unwrap();
    let requests = [format!("GET {RFC_8414}"), format!("POST {TOKEN_URL}")];
    assert_eq!(issuer.take(), [requests.clone(), requests.clone()].concat());

    // A refresh token was not presented if the endpoint was not found.
    issuer.answer_with(|_| document(&json!({})));
    let source = RefreshTokenGrant::discover(ISSUER)
        .client_id("id")
        .client_authentication(ClientAuthentication::None)
        .refresh_token(InMemoryRefreshTokenStore::new("refresh"))
        .transport(transport())
        .build()
        .unwrap();
    let error = fetch(&source).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Discovery);
    issuer.answer_with(|_| document(&metadata()));
    fetch(&source).await.unwrap();
}
