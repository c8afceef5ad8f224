//! `ClientCredentialsSettings`, and secrets of the crate `secrecy`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bearer_auth::{
    AccessToken, ClientAuthenticationSeen, ClientCredentials, ClientCredentialsSettings,
    MockAuthServer, StaticTokenSource, TokenCache,
};
use http::Response;
use http_body_util::Full;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::value::{Error, MapDeserializer};
use serde_json::json;

use crate::client_assertions::{JWT_BEARER, MAC_SECRET, issued};
use crate::support::api::Api;
use crate::support::jwt::Jwt;

const REQUIRED: &str = r#"
    token_url = "https://id.example.com/token"
    client_id = "id"
"#;

fn settings(text: &str) -> ClientCredentialsSettings {
    toml::from_str(text).unwrap()
}

#[tokio::test]
async fn all_settings_reach_the_token_request() {
    let server = MockAuthServer::start().await.unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configured-secret");
    let (url, id, secret) = (
        server.token_url(),
        server.client_id(),
        server.client_secret(),
    );
    let text = format!(
        r#"
        token_url = "{url}"
        client_id = "{id}"
        client_secret_file = '{}'
        scope = "read write"
        client_authentication = "client_secret_basic"

        [params]
        audience = "orders"
        resource = "urn:orders"
        "#,
        file.display()
    );
    for line_break in ["", "\n", "\r\n"] {
        fs::write(&file, format!("{secret}{line_break}")).unwrap();
        let source = settings(&text).builder().unwrap().build().unwrap();
        TokenCache::new(source).token().await.unwrap();
        let log = server.token_log();
        let record = log.last().unwrap();
        assert_eq!(
            record.client_authentication(),
            ClientAuthenticationSeen::Basic
        );
        assert_eq!(record.scope(), Some("read write"));
        assert_eq!(record.param("audience"), Some("orders"));
        assert_eq!(record.param("resource"), Some("urn:orders"));
    }
}

#[tokio::test]
async fn settings_are_read_from_pairs_as_of_the_environment() {
    let server = MockAuthServer::start().await.unwrap();
    let pairs = [
        ("token_url", server.token_url()),
        ("client_id", server.client_id()),
        ("client_secret", server.client_secret()),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pairs = MapDeserializer::<_, Error>::new(pairs.into_iter());
    let settings = ClientCredentialsSettings::deserialize(pairs).unwrap();
    let source = settings.builder().unwrap().build().unwrap();
    TokenCache::new(source).token().await.unwrap();
    assert_eq!(
        server.token_log()[0].client_authentication(),
        ClientAuthenticationSeen::Post
    );
}

/// Returns the form of the token request that these settings cause, with the file in place of
/// `FILE` and the endpoint in place of `ISSUER`.
async fn form_of(text: &str, file: &Path) -> HashMap<String, String> {
    let issuer = Arc::<OnceLock<String>>::default();
    let named = Arc::clone(&issuer);
    let endpoint = Api::start(move |request| match request.uri.path() {
        "/token" => issued(),
        _ => {
            let issuer = named.get().unwrap();
            let metadata = json!({ "issuer": issuer, "token_endpoint": format!("{issuer}/token") });
            Response::new(Full::from(metadata.to_string()))
        }
    })
    .await;
    issuer.set(endpoint.origin()).unwrap();
    let text = text.replace("FILE", file.to_str().unwrap());
    let text = text.replace("ISSUER", &endpoint.origin());
    let source = settings(&text).builder().unwrap().build().unwrap();
    TokenCache::new(source).token().await.unwrap();
    let requests = endpoint.requests();
    let request = requests.last().unwrap();
    assert_eq!(request.uri.path(), "/token");
    form_urlencoded::parse(&request.body).into_owned().collect()
}

#[tokio::test]
async fn an_issuer_stands_in_place_of_the_token_url() {
    let text = "issuer = 'ISSUER'\nclient_id = 'id'\nclient_secret = 's3cret'";
    let form = form_of(text, Path::new("")).await;
    assert_eq!(form["client_secret"], "s3cret");
}

#[tokio::test]
async fn a_key_in_a_file_signs_for_the_audience_or_for_the_issuer() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configured-key");
    fs::write(&file, include_str!("../keys/rsa.pem")).unwrap();
    let key = "client_id = 'id'\nprivate_key_file = 'FILE'";
    let by_issuer = form_of(&format!("issuer = 'ISSUER'\n{key}"), &file).await;
    assert_eq!(by_issuer["client_assertion_type"], JWT_BEARER);
    let jwt = Jwt::parse(&by_issuer["client_assertion"]);
    assert_eq!(jwt.header, json!({ "typ": "JWT", "alg": "RS256" }));
    assert!(
        jwt.claims["aud"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );

    let by_url = format!(
        "token_url = 'ISSUER/token'\n{key}\nkey_id = '2026-11'\nalgorithm = 'PS256'\n\
         audience = 'https://id.example.com'"
    );
    let jwt = Jwt::parse(&form_of(&by_url, &file).await["client_assertion"]);
    assert_eq!(
        jwt.header,
        json!({ "typ": "JWT", "alg": "PS256", "kid": "2026-11" })
    );
    assert_eq!(jwt.claims["aud"], "https://id.example.com");
    assert_eq!(jwt.claims["sub"], "id");
}

#[tokio::test]
async fn an_assertion_in_a_file_and_a_secret_that_signs_are_configured() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configured-assertion");
    fs::write(&file, "a.b.c\n").unwrap();
    let text = "token_url = 'ISSUER/token'\nclient_id = 'id'\nclient_assertion_file = 'FILE'";
    let form = form_of(text, &file).await;
    assert_eq!(form["client_assertion"], "a.b.c");
    assert_eq!(form["client_assertion_type"], JWT_BEARER);

    fs::write(&file, MAC_SECRET).unwrap();
    let text = "issuer = 'ISSUER'\nclient_id = 'id'\nclient_secret_file = 'FILE'\n\
                client_authentication = 'client_secret_jwt'\naudience = 'https://id.example.com'";
    let jwt = Jwt::parse(&form_of(text, &file).await["client_assertion"]);
    assert_eq!(jwt.header["alg"], "HS256");
    assert_eq!(jwt.claims["aud"], "https://id.example.com");
}

#[test]
fn a_certificate_needs_no_other_proof() {
    let settings = settings(&format!(
        "{REQUIRED}client_authentication = 'tls_client_auth'"
    ));
    let builder = settings.builder().unwrap();
    let source = builder.reqwest_factory(reqwest::Client::builder).build();
    assert!(format!("{:?}", source.unwrap()).contains("TlsClientAuth"));
}

#[test]
fn a_setting_that_cannot_be_is_named() {
    let secret = "client_secret = 's3cret'";
    for (text, names) in [
        ("", &["`client_id`"][..]),
        ("client_id = 'id'", &["`token_url`", "`issuer`"]),
        ("token_url = 'https://id.example.com/token'", &["client_id"]),
        (
            REQUIRED,
            &[
                "`client_secret`",
                "`client_secret_file`",
                "`private_key_file`",
                "`client_assertion_file`",
                "`tls_client_auth`",
            ],
        ),
        (
            &format!("{REQUIRED}{secret}\nclient_secret_file = 'f'"),
            &["`client_secret`", "`client_secret_file`"],
        ),
        (
            &format!("{REQUIRED}{secret}\nclient_assertion_file = 'f'"),
            &["`client_secret`", "`client_assertion_file`"],
        ),
        (
            &format!("{REQUIRED}private_key_file = 'f'\nclient_assertion_file = 'f'"),
            &["`private_key_file`", "`client_assertion_file`"],
        ),
        (
            &format!("{REQUIRED}{secret}\nclient_secrets = 's3cret'"),
            &["client_secrets"],
        ),
        (
            &format!("{REQUIRED}{secret}\nissuer = 'https://id.example.com'"),
            &["`token_url`", "`issuer`"],
        ),
        (
            &format!("{REQUIRED}{secret}\nkey_id = 'k'"),
            &["`key_id`", "`private_key_file`"],
        ),
        (
            &format!("{REQUIRED}client_assertion_file = 'f'\nalgorithm = 'ES256'"),
            &["`algorithm`", "`private_key_file`"],
        ),
        (
            &format!("{REQUIRED}private_key_file = 'f'\nalgorithm = 'HS256'"),
            &["`HS256`", "`RS256`", "`PS256`", "`ES256`", "`EdDSA`"],
        ),
        (
            &format!("{REQUIRED}{secret}\nclient_authentication = 'basic'"),
            &["`basic`", "`client_secret_basic`"],
        ),
    ] {
        let error = toml::from_str::<ClientCredentialsSettings>(text).unwrap_err();
        for name in names {
            assert!(error.message().contains(name), "{text}: {error}");
        }
        assert!(!error.message().contains("s3cret"), "{error}");
    }
}

#[test]
fn what_the_builder_rejects_is_named() {
    let build = |text: &str| settings(text).builder().unwrap().build();
    let http = r#"
        token_url = "http://id.example.com/token"
        client_id = "id"
        client_secret = "s3cret"
    "#;
    build(&format!("{http}allow_http = true")).unwrap();
    let issuer = "issuer = 'https://id.example.com'\nclient_id = 'id'\nclient_secret = 's3cret'";
    build(issuer).unwrap();
    let with = |line: &str| format!("{REQUIRED}{line}");
    for (text, setting) in [
        (http.to_owned(), "token_url"),
        (format!("{issuer}\nallow_http = true"), "allow_http"),
        (issuer.replace("https", "http"), "issuer"),
        (with("client_secret_file = ''"), "client_secret_file"),
        (with("client_assertion_file = ''"), "client_assertion_file"),
        (
            with("private_key_file = ''\naudience = 'a'"),
            "private_key_file",
        ),
        (with("private_key_file = 'f'"), "audience"),
        (with("client_secret = 's3cret'\naudience = 'a'"), "audience"),
        (with("client_secret = 's3cret'\nscope = 'é'"), "scope"),
        (
            with("client_authentication = 'none'"),
            "client_authentication",
        ),
        (
            with("client_secret = 's3cret'\nclient_authentication = 'tls_client_auth'"),
            "client_authentication",
        ),
        (
            with("client_assertion_file = 'f'\nclient_authentication = 'client_secret_post'"),
            "client_authentication",
        ),
    ] {
        let error = build(&text).unwrap_err();
        assert_eq!(error.setting(), setting, "{text}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn a_secret_is_neither_shown_nor_serialized() {
    let value = settings(&format!(
        "{REQUIRED}client_secret = 's3cret'\nscope = 'read'"
    ));
    assert!(!format!("{value:?}").contains("s3cret"));
    assert_eq!(
        serde_json::to_value(&value).unwrap(),
        json!({
            "token_url": "https://id.example.com/token",
            "client_id": "id",
            "scope": "read",
            "allow_http": false,
        })
    );

    // Without a secret of its own, it can be read again.
    let [file, assertion] = ["client_secret_file", "client_assertion_file"]
        .map(|name| json!({ "token_url": "https://a/token", name: "f" }));
    let key = json!({
        "issuer": "https://a", "private_key_file": "f", "key_id": "k", "algorithm": "EdDSA",
    });
    let certificate = json!({
        "issuer": "https://a", "client_authentication": "tls_client_auth", "audience": "a",
        "params": { "resource": "r" },
    });
    for mut written in [file, assertion, key, certificate] {
        written["client_id"] = "id".into();
        written["allow_http"] = true.into();
        let read: ClientCredentialsSettings = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
    }
}

#[tokio::test]
async fn secrets_of_the_crate_secrecy_are_accepted() {
    let server = MockAuthServer::start().await.unwrap();
    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(SecretString::from(server.client_secret()))
        .build()
        .unwrap();
    TokenCache::new(source).token().await.unwrap();

    let secret = SecretString::from("s3cret");
    let token = AccessToken::new(&secret).unwrap();
    assert_eq!(token.expose_secret(), "s3cret");
    StaticTokenSource::new(secret).unwrap();
}

#[test]
fn the_debug_of_a_source_shows_its_scope_or_none() {
    let builder = || {
        ClientCredentials::builder("https://identity.example.com/token")
            .client_id("my-client")
            .client_secret("s3cret")
    };
    let without = format!("{:?}", builder().build().unwrap());
    assert!(without.contains("scope: None"), "{without}");
    let with = format!("{:?}", builder().scope("orders.read").build().unwrap());
    assert!(with.contains("scope: Some(\"orders.read\")"), "{with}");
}
