//! `ClientCredentialsSettings`, and secrets of the crate `secrecy`.

use std::fs;
use std::path::Path;

use bearer_auth::{
    AccessToken, ClientAuthenticationSeen, ClientCredentials, ClientCredentialsSettings,
    MockAuthServer, StaticTokenSource, TokenCache,
};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::value::{Error, MapDeserializer};

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

#[test]
fn a_setting_that_cannot_be_is_named() {
    for (text, names) in [
        ("", &["token_url"][..]),
        ("token_url = 'https://id.example.com/token'", &["client_id"]),
        (REQUIRED, &["`client_secret`", "`client_secret_file`"]),
        (
            &format!("{REQUIRED}client_secret = 's3cret'\nclient_secret_file = 'f'"),
            &["`client_secret`", "`client_secret_file`"],
        ),
        (
            &format!("{REQUIRED}client_secret = 's3cret'\nclient_secrets = 's3cret'"),
            &["client_secrets"],
        ),
        (
            &format!("{REQUIRED}client_secret = 's3cret'\nissuer = 'https://id.example.com'"),
            &["issuer"],
        ),
        (
            &format!("{REQUIRED}client_secret = 's3cret'\nclient_authentication = 'basic'"),
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
    let file = settings(&format!("{REQUIRED}client_secret_file = ''"));
    let error = file.builder().unwrap().build().unwrap_err();
    assert_eq!(error.setting(), "client_secret_file");

    let http = r#"
        token_url = "http://id.example.com/token"
        client_id = "id"
        client_secret = "s3cret"
    "#;
    let build = |text: &str| settings(text).builder().unwrap().build();
    assert_eq!(build(http).unwrap_err().setting(), "token_url");
    build(&format!("{http}allow_http = true")).unwrap();
    let scope = format!("{REQUIRED}client_secret = 's3cret'\nscope = 'é'");
    assert_eq!(build(&scope).unwrap_err().setting(), "scope");
}

#[test]
fn a_secret_is_neither_shown_nor_serialized() {
    let value = settings(&format!(
        "{REQUIRED}client_secret = 's3cret'\nscope = 'read'"
    ));
    assert!(!format!("{value:?}").contains("s3cret"));
    assert_eq!(
        serde_json::to_value(&value).unwrap(),
        serde_json::json!({
            "token_url": "https://id.example.com/token",
            "client_id": "id",
            "scope": "read",
            "client_authentication": "client_secret_post",
            "allow_http": false,
        })
    );

    // Without a secret of its own, it can be read again.
    let file = settings(&format!("{REQUIRED}client_secret_file = 'secret'"));
    let text = serde_json::to_string(&file).unwrap();
    assert!(text.contains(r#""client_secret_file":"secret""#), "{text}");
    let again: ClientCredentialsSettings = serde_json::from_str(&text).unwrap();
    assert_eq!(format!("{again:?}"), format!("{file:?}"));
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
