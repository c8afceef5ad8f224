//! Configuration from a TOML file and from environment variables: `cargo run --example config`
//!
//! With `ORDERS_ISSUER` or `ORDERS_TOKEN_URL`, `ORDERS_CLIENT_ID`, and one of
//! `ORDERS_CLIENT_SECRET`, `ORDERS_CLIENT_SECRET_FILE`, `ORDERS_PRIVATE_KEY_FILE` and
//! `ORDERS_CLIENT_ASSERTION_FILE` set, it talks to a token endpoint of your own.

use std::{env, fs};

use bearer_auth::{BoxError, ClientCredentialsSettings, MockAuthServer, TokenCache};
use serde::Deserialize;
use serde::de::value::{Error, MapDeserializer};

const PREFIX: &str = "ORDERS_";

/// The configuration of a service. Settings of the token source are a table of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    listen: String,
    orders: ClientCredentialsSettings,
    payments: ClientCredentialsSettings,
}

/// Reads the settings from variables such as `ORDERS_CLIENT_ID`. `None` if there is none.
fn from_environment(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Option<ClientCredentialsSettings>, Error> {
    let fields = variables.filter_map(|(name, value)| {
        let field = name.strip_prefix(PREFIX)?;
        Some((field.to_ascii_lowercase(), value))
    });
    let mut fields = fields.peekable();
    if fields.peek().is_none() {
        return Ok(None);
    }
    ClientCredentialsSettings::deserialize(MapDeserializer::new(fields)).map(Some)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = MockAuthServer::start().await?;
    // As Kubernetes mounts it.
    let secret = env::temp_dir().join(format!("orders-secret-{}", std::process::id()));
    fs::write(&secret, format!("{}\n", server.client_secret()))?;
    let config: Config = toml::from_str(&format!(
        r#"
        listen = "127.0.0.1:8080"

        [orders]
        token_url = "{}"
        client_id = "{}"
        client_secret_file = '{}'
        scope = "orders.read"

        # Without a secret: the issuer's metadata names the token URL, and a key signs.
        [payments]
        issuer = "https://identity.example.com"
        client_id = "payments"
        private_key_file = "/run/secrets/payments/key.pem"
        scope = "payments.write"
        "#,
        server.token_url(),
        server.client_id(),
        secret.display(),
    ))?;
    println!("listen on {}", config.listen);

    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    // Variables replace the whole table, so that no secret goes to another's token URL.
    let settings = from_environment(variables)?.unwrap_or(config.orders);
    let source = settings.builder()?.build()?;
    println!("{source:?}");

    // The file is read for each token request.
    let token = TokenCache::new(source).token().await?;
    fs::remove_file(&secret)?;
    println!("a token until {:?}", token.expires_at());

    // Nothing is read or sent before the first token request.
    println!("{:?}", config.payments.builder()?.build()?);

    // As a Kubernetes pod would set it, with a projected token.
    let workload = [
        ("ORDERS_ISSUER", "https://identity.example.com"),
        ("ORDERS_CLIENT_ID", "orders"),
        (
            "ORDERS_CLIENT_ASSERTION_FILE",
            "/var/run/secrets/tokens/idp",
        ),
    ];
    let workload = workload.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = from_environment(workload.into_iter())?.ok_or("no variable is set")?;
    println!("{:?}", settings.builder()?.build()?);

    // A mistake is an error that names the setting.
    let mistake = [("ORDERS_CLIENT_SECRETS".to_owned(), "s3cret".to_owned())];
    let error = from_environment(mistake.into_iter()).unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("client_secrets"));
    Ok(())
}
