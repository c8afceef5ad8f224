//! `private_key_jwt` and `client_secret_jwt`: accepted, and refused for each reason.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearer_auth::{
    Assertion, AssertionContext, ClientAssertion, ClientAuthentication, ClientCredentials,
    ClientCredentialsBuilder, PrivateKeyJwt, SigningAlgorithm, TokenCache, TokenError,
    TokenErrorKind,
};
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::stack::{Kind, Stack};
use crate::{accepted, layer};

const MAC_SECRET: &str = "a-secret-of-at-least-32-bytes-for-a-mac";

fn client(server: &Server, id: &str) -> ClientCredentialsBuilder {
    ClientCredentials::builder(&server.token_url)
        .client_id(id)
        .audience(&server.issuer)
        .scope("tenant/42")
}

/// Returns the private key that the server made, and named, for its clients.
fn key(server: &Server, name: &str) -> PrivateKeyJwt {
    PrivateKeyJwt::from_pem(&server.keys[name])
        .unwrap()
        .key_id(name)
}

fn secret_jwt(server: &Server, secret: &str) -> ClientCredentialsBuilder {
    client(server, "jwt-client")
        .client_secret(secret)
        .client_authentication(ClientAuthentication::SecretJwt)
}

async fn fetch(source: ClientCredentialsBuilder) -> Result<(), TokenError> {
    let cache = TokenCache::new(source.build().unwrap());
    cache.token().await.map(|_| ())
}

#[tokio::test]
async fn each_algorithm_gets_a_token_that_the_api_accepts() {
    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    let Some(server) = Server::start().await else {
        return;
    };
    for (id, name, algorithm) in [
        ("rs256-client", "rsa", Rs256),
        ("ps256-client", "rsa", Ps256),
        ("es256-client", "p256", Es256),
        ("eddsa-client", "ed25519", EdDsa),
    ] {
        let key = || key(&server, name).algorithm(algorithm);
        for source in [
            client(&server, id).private_key_jwt(key()),
            // The same through the trait.
            client(&server, id).client_assertion(key()),
        ] {
            let stack = Stack::new(Kind::ALL[0], &layer(&server, source));
            let report = accepted(stack.get(server.url("/")).await);
            assert_eq!(report["client"], id);
        }
    }
    let source = secret_jwt(&server, MAC_SECRET);
    let stack = Stack::new(Kind::ALL[0], &layer(&server, source));
    let report = accepted(stack.get(server.url("/")).await);
    assert_eq!(report["client"], "jwt-client");
}

#[tokio::test]
async fn the_token_url_is_accepted_as_the_audience() {
    let Some(server) = Server::start().await else {
        return;
    };
    let source = ClientCredentials::builder(&server.token_url)
        .client_id("es256-client")
        .private_key_jwt(key(&server, "p256"))
        .token_url_as_audience();
    fetch(source).await.unwrap();
}

/// Sends one assertion again and again.
struct Replayed(PrivateKeyJwt, OnceLock<Assertion>);

#[async_trait::async_trait]
impl ClientAssertion for Replayed {
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
        let assertion = self.0.assertion(context).await?;
        Ok(self.1.get_or_init(|| assertion).clone())
    }
}

/// Returns a JWT with claims of the test's choice, signed with the key `p256`.
pub(crate) fn sign(server: &Server, claims: &Value) -> String {
    let encoded = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let header = json!({ "alg": "ES256", "kid": "p256" });
    let message = format!("{}.{}", encoded(&header), encoded(claims));
    let key = EncodingKey::from_ec_pem(server.keys["p256"].as_bytes()).unwrap();
    let signer = (DEFAULT_PROVIDER.signer_factory)(&Algorithm::ES256, &key).unwrap();
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// Signs claims of the test's choice with the key of `es256-client`.
fn signed(server: &Server, claims: &Value) -> impl ClientAssertion {
    struct Fixed(String);

    #[async_trait::async_trait]
    impl ClientAssertion for Fixed {
        async fn assertion(&self, _: &AssertionContext) -> Result<Assertion, TokenError> {
            Ok(Assertion::new(&self.0)?)
        }
    }

    Fixed(sign(server, claims))
}

/// Checks that the server refuses the client, and for this reason.
async fn assert_refused(server: &Server, source: ClientCredentialsBuilder, reason: &str) {
    server.reset_counters().await;
    let error = fetch(source).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient, "{reason}");
    assert_eq!(error.oauth_error(), Some("invalid_client"));
    assert_eq!(error.status().unwrap(), 401);
    assert_eq!(
        error.error_description(),
        Some("client authentication failed")
    );
    assert!(!error.is_transient());
    let seen = server.last_reason().await;
    assert!(seen.contains(reason), "{reason}: {seen}");
    assert_eq!(server.counters().await.token_requests, 1, "{reason}");
}

#[tokio::test]
async fn an_assertion_that_the_server_refuses_is_an_invalid_client() {
    let Some(server) = Server::start().await else {
        return;
    };
    let es256 = || client(&server, "es256-client");

    let wrong = PrivateKeyJwt::from_pem(include_str!("../keys/p256.pem")).unwrap();
    let source = es256().private_key_jwt(wrong);
    assert_refused(&server, source, "signature verification failed").await;

    let source = es256()
        .private_key_jwt(key(&server, "p256"))
        .audience("https://other.example.com");
    assert_refused(&server, source, "audience (aud) must equal").await;

    let source = es256().private_key_jwt(key(&server, "ed25519"));
    assert_refused(&server, source, "alg mismatch").await;

    let replayed = Arc::new(Replayed(key(&server, "p256"), OnceLock::new()));
    let source = || es256().client_assertion(Arc::clone(&replayed));
    fetch(source()).await.unwrap();
    assert_refused(&server, source(), "must only be used once").await;

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = |exp: u64| {
        json!({
            "iss": "es256-client", "sub": "es256-client", "aud": server.issuer,
            "jti": exp.to_string(), "exp": exp,
        })
    };
    let source = es256().client_assertion(signed(&server, &claims(now.as_secs() + 60)));
    fetch(source).await.unwrap();
    let source = es256().client_assertion(signed(&server, &claims(now.as_secs() - 60)));
    assert_refused(&server, source, "jwt expired").await;

    let source = secret_jwt(&server, &MAC_SECRET.replace('-', "+"));
    assert_refused(&server, source, "signature verification failed").await;
}
