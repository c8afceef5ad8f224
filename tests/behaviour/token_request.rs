//! The token request (rules F of `docs/behaviour.md`) and the results of its responses, against
//! `MockAuthServer`.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bearer_auth::{
    ClientAuthentication, ClientAuthenticationSeen, ClientCredentials, ClientCredentialsBuilder,
    MockAuthServer, TokenCache, TokenErrorKind, TokenRequest,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SPECIAL_SECRET: &str = "p@ss:w%rd&=+ /";

fn client_of(server: &MockAuthServer) -> ClientCredentialsBuilder {
    ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
}

fn cache(builder: ClientCredentialsBuilder) -> TokenCache {
    TokenCache::new(builder.build().unwrap())
}

#[tokio::test]
async fn the_form_and_the_headers_are_as_configured() {
    let server = MockAuthServer::start().await.unwrap();
    let source = client_of(&server)
        .scope("tenant/42  b")
        .param("resource", "urn:a");
    let before = SystemTime::now();
    let token = cache(source).token().await.unwrap();
    assert_eq!(token.expose_secret(), "mock-access-token-1");
    assert_eq!(
        token.scope(),
        Some("tenant/42 b"),
        "as the server granted it"
    );
    let expires_in = token.expires_at().unwrap().duration_since(before).unwrap();
    assert!(
        (899..=901).contains(&expires_in.as_secs()),
        "{expires_in:?}"
    );

    let log = server.token_log();
    assert_eq!(log.len(), 1);
    assert_eq!(
        log[0].client_authentication(),
        ClientAuthenticationSeen::Post
    );
    assert_eq!(log[0].scope(), Some("tenant/42 b"));
    assert_eq!(log[0].param("grant_type"), Some("client_credentials"));
    assert_eq!(log[0].param("resource"), Some("urn:a"));
    assert_eq!(log[0].accept(), Some("application/json"));
}

#[tokio::test]
async fn each_request_uses_one_style_of_client_authentication() {
    for (style, raw, seen) in [
        (
            ClientAuthentication::SecretPost,
            false,
            ClientAuthenticationSeen::Post,
        ),
        (
            ClientAuthentication::SecretBasic,
            false,
            ClientAuthenticationSeen::Basic,
        ),
        (
            ClientAuthentication::SecretBasicRaw,
            true,
            ClientAuthenticationSeen::Basic,
        ),
    ] {
        let server = MockAuthServer::builder()
            .client("an id", SPECIAL_SECRET)
            .raw_basic(raw);
        let server = server.start().await.unwrap();
        cache(client_of(&server).client_authentication(style))
            .token()
            .await
            .unwrap();
        assert_eq!(
            server.token_log()[0].client_authentication(),
            seen,
            "{style:?}"
        );
        // After an `invalid_client` no other style is tried.
        let source = client_of(&server)
            .client_secret("wrong")
            .client_authentication(style);
        let error = cache(source).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidClient, "{style:?}");
        assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(error.oauth_error(), Some("invalid_client"));
        assert_eq!(server.token_requests(), 2, "{style:?}");
    }
}

#[tokio::test]
async fn a_scope_overrides_that_of_the_source_and_an_empty_one_is_not_sent() {
    let server = MockAuthServer::start().await.unwrap();
    let cache = cache(client_of(&server).scope("own"));
    cache.token().await.unwrap();
    cache
        .token_for(&TokenRequest::scope("tenant/42"))
        .await
        .unwrap();
    cache.token_for(&TokenRequest::scope("")).await.unwrap();
    let scopes: Vec<_> = server
        .token_log()
        .iter()
        .map(|it| it.scope().map(str::to_owned))
        .collect();
    assert_eq!(
        scopes,
        [Some("own".to_owned()), Some("tenant/42".to_owned()), None]
    );
    let error = cache
        .token_for(&TokenRequest::scope("a\"b"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidSetting);
    assert_eq!(server.token_requests(), 3, "an invalid request is not sent");
}

#[tokio::test]
async fn requests_with_different_parameters_have_different_tokens() {
    let server = MockAuthServer::start().await.unwrap();
    let cache = cache(client_of(&server).param("resource", "urn:own"));
    for request in [
        TokenRequest::default(),
        TokenRequest::default().with_resource("urn:other"),
        TokenRequest::default().with_audience("api"),
        TokenRequest::default().with_audience("api"),
    ] {
        cache.token_for(&request).await.unwrap();
    }
    let seen: Vec<_> = server
        .token_log()
        .iter()
        .map(|it| {
            (
                it.param("resource").map(str::to_owned),
                it.param("audience").is_some(),
            )
        })
        .collect();
    let own = || Some("urn:own".to_owned());
    assert_eq!(
        seen,
        [
            (own(), false),
            (Some("urn:other".to_owned()), false),
            (own(), true)
        ]
    );
    let request = TokenRequest::default().with_param("client_secret", "x");
    let error = cache.token_for(&request).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidSetting);
}

#[tokio::test]
async fn a_tower_service_is_a_transport() {
    let server = MockAuthServer::start().await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    cache(client_of(&server).transport(client))
        .token()
        .await
        .unwrap();

    let transport = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        assert_eq!(request.uri(), "https://identity.example.com/token");
        let body = r#"{"access_token":"opaque","token_type":"bearer"}"#;
        Ok::<_, Infallible>(Response::new(body.to_owned()))
    });
    let source = ClientCredentials::builder("https://identity.example.com/token")
        .client_id("id")
        .client_secret("secret")
        .transport(transport);
    assert_eq!(
        cache(source).token().await.unwrap().expose_secret(),
        "opaque"
    );
}

#[tokio::test]
async fn a_reqwest_builder_is_used_without_redirects() {
    let server = MockAuthServer::start().await.unwrap();
    let elsewhere = MockAuthServer::start().await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        let redirect = Response::builder()
            .status(status)
            .header("location", elsewhere.token_url())
            .body("")
            .unwrap();
        let builder = reqwest::Client::builder().user_agent("own");
        let earlier = reqwest_0_12::Client::builder().user_agent("own");
        for source in [
            client_of(&server).reqwest_builder(builder),
            client_of(&server).reqwest_0_12_builder(earlier),
        ] {
            server.answer_token_requests(1, redirect.clone());
            let error = cache(source).token().await.unwrap_err();
            assert_eq!(error.kind(), TokenErrorKind::Redirected, "{status}");
            assert!(!error.is_transient());
        }
    }
    assert_eq!(
        (server.token_requests(), elsewhere.token_requests()),
        (10, 0)
    );
}

#[tokio::test]
async fn the_status_decides_the_kind_of_the_error() {
    let server = MockAuthServer::start().await.unwrap();
    for (status, kind, transient) in [
        (400, TokenErrorKind::Refused, false),
        (401, TokenErrorKind::InvalidClient, false),
        (408, TokenErrorKind::Unavailable, true),
        (429, TokenErrorKind::Throttled, true),
        (500, TokenErrorKind::Unavailable, true),
        (503, TokenErrorKind::Unavailable, true),
    ] {
        server.fail_token_requests(3, StatusCode::from_u16(status).unwrap());
        let error = cache(client_of(&server)).token().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_transient()),
            (kind, transient),
            "{status}"
        );
        assert_eq!(error.status().unwrap().as_u16(), status);
        server.fail_token_requests(0, StatusCode::OK);
        while cache(client_of(&server)).token().await.is_err() {}
    }
    server.fail_token_requests_with_retry_after(
        1,
        StatusCode::SERVICE_UNAVAILABLE,
        Duration::from_secs(60),
    );
    let before = server.token_requests();
    let cache = cache(client_of(&server));
    assert_eq!(
        cache.token().await.unwrap_err().retry_after(),
        Some(Duration::from_secs(60))
    );
    cache.token().await.unwrap_err();
    assert_eq!(server.token_requests() - before, 1);
}

#[tokio::test]
async fn an_unreachable_endpoint_is_a_connection_error() {
    let server = MockAuthServer::start().await.unwrap();
    let source = client_of(&server);
    server.shutdown().await;
    let error = cache(source).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Connection);
    assert!(error.is_transient());
    assert!(error.source().is_some());
}

#[test]
fn an_invalid_setting_is_an_error_of_build() {
    let valid = || {
        ClientCredentials::builder("https://id.example.com/token")
            .client_id("a")
            .client_secret("b")
    };
    assert!(valid().build().is_ok());
    for (builder, setting) in [
        (
            ClientCredentials::builder("")
                .client_id("a")
                .client_secret("b"),
            "token_url",
        ),
        (
            ClientCredentials::builder("http://id.example.com/"),
            "token_url",
        ),
        (
            ClientCredentials::builder("https://u:p@id.example.com/"),
            "token_url",
        ),
        (
            ClientCredentials::builder("https://id.example.com/#f"),
            "token_url",
        ),
        (valid().client_id(""), "client_id"),
        (valid().client_secret(""), "client_secret"),
        (valid().client_secret("secret\n"), "client_secret"),
        (valid().scope("a\nb"), "scope"),
        (valid().scope("é"), "scope"),
        (valid().param("scope", "x"), "param"),
        (valid().param("client_secret", "x"), "param"),
        (valid().param("grant_type", "x"), "param"),
        (valid().param("", "x"), "param"),
        (
            valid()
                .client_id("a:b")
                .client_authentication(ClientAuthentication::SecretBasicRaw),
            "client_id",
        ),
        (
            valid().reqwest_builder(reqwest::Client::builder().user_agent("\n")),
            "reqwest_builder",
        ),
        (
            valid().reqwest_0_12_builder(reqwest_0_12::Client::builder().user_agent("\n")),
            "reqwest_0_12_builder",
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
        assert!(error.to_string().contains(setting));
    }
    assert!(
        ClientCredentials::builder("http://id.example.com/")
            .client_id("a")
            .client_secret("b")
            .allow_http()
            .build()
            .is_ok()
    );
}

#[tokio::test]
async fn the_kind_the_status_and_the_retry_after_survive_a_truncated_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let requests = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut read = Vec::new();
            while !read.ends_with(b"&client_secret=hush") {
                stream.read_buf(&mut read).await.unwrap();
            }
            let head = "HTTP/1.1 503 x\r\nretry-after: 7\r\ncontent-length: 99\r\n\r\n{";
            stream.write_all(head.as_bytes()).await.unwrap();
        }
    });
    let source = ClientCredentials::builder(&url)
        .client_id("id")
        .client_secret("hush")
        .build()
        .unwrap();
    let error = TokenCache::new(source).token().await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(error.is_transient());
    assert_eq!(requests.load(Ordering::Relaxed), 1, "not retried");
}
