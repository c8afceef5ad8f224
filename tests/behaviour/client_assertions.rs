//! Client authentication by assertions (RFC 7523 §2.2): what is sent and what is signed.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bearer_auth::{
    Assertion, AssertionContext, ClientAssertion, ClientAuthentication, ClientCredentials,
    ClientCredentialsBuilder, PrivateKeyJwt, SigningAlgorithm, TokenCache, TokenError,
    TokenErrorKind,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::api::{Api, Received, Scripted, status};
use crate::support::jwt::Jwt;

pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub(crate) const ISSUER: &str = "https://issuer.example.com/";
pub(crate) const MAC_SECRET: &str = "a-secret-of-at-least-32-bytes-for-a-mac";

const RSA: &str = include_str!("../keys/rsa.pem");
pub(crate) const P256: &str = include_str!("../keys/p256.pem");
pub(crate) const ED25519: &str = include_str!("../keys/ed25519.pem");

pub(crate) fn issued() -> Scripted {
    let body = r#"{"access_token":"t1","token_type":"Bearer","expires_in":900}"#;
    Response::new(Full::from(body))
}

/// Returns the fields of a token request.
fn fields(request: &Received) -> Vec<(String, String)> {
    form_urlencoded::parse(&request.body).into_owned().collect()
}

pub(crate) fn field(request: &Received, name: &str) -> String {
    let mut fields = fields(request).into_iter();
    fields.find(|(other, _)| other == name).unwrap().1
}

pub(crate) fn client_of(endpoint: &Api) -> ClientCredentialsBuilder {
    ClientCredentials::builder(endpoint.url("/token")).client_id("my client")
}

pub(crate) async fn fetch(source: ClientCredentialsBuilder) -> Result<String, TokenError> {
    let token = TokenCache::new(source.build()?).token().await?;
    Ok(token.expose_secret().to_owned())
}

/// Counts its assertions, which contain the context.
#[derive(Default)]
struct Counting(AtomicUsize);

#[async_trait::async_trait]
impl ClientAssertion for Counting {
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let audience = context.audience().unwrap_or("none");
        let id = context.client_id().replace(' ', "+");
        Ok(Assertion::new(format!("{number}.{id}.{audience}"))?)
    }
}

#[tokio::test]
async fn an_assertion_is_sent_with_its_type_and_the_id_and_made_anew_for_each_try() {
    let endpoint = Api::start(|_| status(503)).await;
    let source = client_of(&endpoint)
        .client_assertion(Counting::default())
        .audience(ISSUER)
        .scope("read");
    fetch(source).await.unwrap_err();
    let requests = endpoint.requests();
    assert_eq!(requests.len(), 3);
    for (number, request) in requests.iter().enumerate() {
        let assertion = format!("{number}.my+client.{ISSUER}");
        let expected = [
            ("grant_type", "client_credentials"),
            ("client_id", "my client"),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &assertion),
            ("scope", "read"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields(request), expected);
        assert!(!request.headers.contains_key("authorization"));
    }
}

#[tokio::test]
async fn three_tries_have_three_ids() {
    let endpoint = Api::start(|_| status(503)).await;
    let key = PrivateKeyJwt::from_pem(P256).unwrap();
    let source = client_of(&endpoint).private_key_jwt(key).audience(ISSUER);
    fetch(source).await.unwrap_err();
    let ids: HashSet<_> = endpoint
        .requests()
        .iter()
        .map(|request| {
            let jwt = Jwt::parse(&field(request, "client_assertion"));
            jwt.claims["jti"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 3);
    // 128 bits in base64url.
    assert!(ids.iter().all(|id| id.len() == 22), "{ids:?}");
}

/// Fetches a token and returns the assertion that was sent for it.
async fn assertion_of(
    builder: impl FnOnce(ClientCredentialsBuilder) -> ClientCredentialsBuilder,
) -> Jwt {
    let endpoint = Api::start(|_| issued()).await;
    assert_eq!(fetch(builder(client_of(&endpoint))).await.unwrap(), "t1");
    Jwt::parse(&field(&endpoint.requests()[0], "client_assertion"))
}

fn assert_claims(jwt: &Jwt) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let issued_at = jwt.claims["iat"].as_u64().unwrap();
    assert!(now.as_secs().abs_diff(issued_at) <= 5, "{issued_at}");
    let expected = json!({
        "iss": "my client",
        "sub": "my client",
        "aud": ISSUER,
        "jti": jwt.claims["jti"],
        "iat": issued_at,
        "exp": issued_at + 60,
    });
    assert_eq!(jwt.claims, expected);
}

#[tokio::test]
async fn each_algorithm_signs_the_claims_of_the_client() {
    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    let rsa_public = DecodingKey::from_rsa_pem(include_bytes!("../keys/rsa-public.pem"));
    let p256_public = DecodingKey::from_ec_pem(include_bytes!("../keys/p256-public.pem"));
    let ed25519_public = DecodingKey::from_ed_pem(include_bytes!("../keys/ed25519-public.pem"));
    let (rsa_public, p256_public, ed25519_public) = (
        rsa_public.unwrap(),
        p256_public.unwrap(),
        ed25519_public.unwrap(),
    );
    for (pem, algorithm, name, library, public) in [
        (RSA, None, "RS256", Algorithm::RS256, &rsa_public),
        (RSA, Some(Rs256), "RS256", Algorithm::RS256, &rsa_public),
        (RSA, Some(Ps256), "PS256", Algorithm::PS256, &rsa_public),
        (P256, None, "ES256", Algorithm::ES256, &p256_public),
        (P256, Some(Es256), "ES256", Algorithm::ES256, &p256_public),
        (ED25519, None, "EdDSA", Algorithm::EdDSA, &ed25519_public),
        (
            ED25519,
            Some(EdDsa),
            "EdDSA",
            Algorithm::EdDSA,
            &ed25519_public,
        ),
    ] {
        let mut key = PrivateKeyJwt::from_pem(pem).unwrap().key_id("2026-11");
        if let Some(algorithm) = algorithm {
            key = key.algorithm(algorithm);
        }
        let jwt = assertion_of(|it| it.private_key_jwt(key).audience(ISSUER)).await;
        let header = json!({ "typ": "JWT", "alg": name, "kid": "2026-11" });
        assert_eq!(jwt.header, header);
        assert_claims(&jwt);
        assert!(jwt.is_signed_by(library, public), "{name}");
    }
}

#[tokio::test]
async fn a_jwk_names_its_algorithm_and_its_id() {
    let with = |members: &str| {
        let jwk = include_str!("../keys/rsa.jwk.json").trim_start();
        PrivateKeyJwt::from_jwk(format!("{{{members},{}", &jwk[1..]))
    };
    let key = with(r#""kid":"a\u002fb","alg":"PS256","use":"sig""#).unwrap();
    let jwt = assertion_of(|it| {
        it.private_key_jwt(key.certificate_thumbprint("dGh1bWI"))
            .audience(ISSUER)
    });
    let header = json!({ "typ": "JWT", "alg": "PS256", "kid": "a/b", "x5t#S256": "dGh1bWI" });
    assert_eq!(jwt.await.header, header);
    for alg in ["RS512", "ES256", "none", ""] {
        let error = with(&format!(r#""alg":"{alg}""#)).unwrap_err();
        assert!(error.to_string().contains("algorithm"), "{error}");
    }
}

#[tokio::test]
async fn the_token_url_is_the_audience_only_if_it_is_asked_for() {
    let endpoint = Api::start(|_| issued()).await;
    let source = client_of(&endpoint)
        .private_key_jwt(PrivateKeyJwt::from_pem(ED25519).unwrap())
        .token_url_as_audience();
    fetch(source).await.unwrap();
    let jwt = Jwt::parse(&field(&endpoint.requests()[0], "client_assertion"));
    assert_eq!(jwt.claims["aud"], endpoint.url("/token"));
}

#[tokio::test]
async fn a_secret_signs_an_assertion_and_is_not_sent() {
    let endpoint = Api::start(|_| issued()).await;
    let source = client_of(&endpoint)
        .client_secret(MAC_SECRET)
        .client_authentication(ClientAuthentication::SecretJwt)
        .audience(ISSUER);
    fetch(source).await.unwrap();
    let request = &endpoint.requests()[0];
    let names: Vec<_> = fields(request).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "grant_type",
        "client_id",
        "client_assertion_type",
        "client_assertion",
    ];
    assert_eq!(names, expected);
    let jwt = Jwt::parse(&field(request, "client_assertion"));
    assert_eq!(jwt.header, json!({ "typ": "JWT", "alg": "HS256" }));
    assert_claims(&jwt);
    let key = DecodingKey::from_secret(MAC_SECRET.as_bytes());
    assert!(jwt.is_signed_by(Algorithm::HS256, &key));
    let other = DecodingKey::from_secret(b"another");
    assert!(!jwt.is_signed_by(Algorithm::HS256, &other));
}

struct Slow(Duration);

#[async_trait::async_trait]
impl ClientAssertion for Slow {
    async fn assertion(&self, _: &AssertionContext) -> Result<Assertion, TokenError> {
        sleep(self.0).await;
        Ok(Assertion::new("a.b.c")?)
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_for_an_assertion_counts_towards_the_limit_of_a_try() {
    // The assertion takes 9 s and the endpoint forever, or the assertion alone takes too long.
    for seconds in [9, 90] {
        let requests = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&requests);
        let transport = tower::service_fn(move |_: Request<Full<Bytes>>| {
            counter.fetch_add(1, Ordering::Relaxed);
            pending::<Result<Response<String>, Infallible>>()
        });
        let source = ClientCredentials::builder("https://id.example.com/token")
            .client_id("id")
            .client_assertion(Slow(Duration::from_secs(seconds)))
            .transport(transport)
            .build()
            .unwrap();
        let cache = TokenCache::builder(source)
            .fetch_timeout(Duration::from_secs(60))
            .wait_timeout(Duration::from_secs(120))
            .build()
            .unwrap();
        let start = Instant::now();
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        let tries = start.elapsed().as_secs_f64() / 10.0;
        assert!((3.0..3.1).contains(&tries), "{tries}");
        let sent = if seconds == 9 { 3 } else { 0 };
        assert_eq!(requests.load(Ordering::Relaxed), sent);
    }
}

#[tokio::test]
async fn the_error_of_an_assertion_is_that_of_the_fetch_and_sends_nothing() {
    struct Failing(TokenError, Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl ClientAssertion for Failing {
        async fn assertion(&self, _: &AssertionContext) -> Result<Assertion, TokenError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Err(self.0.clone())
        }
    }

    let endpoint = Api::start(|_| issued()).await;
    for (error, tries) in [
        (TokenError::permanent("no such key"), 1),
        (TokenError::transient("busy"), 3),
    ] {
        let count = Arc::<AtomicUsize>::default();
        let failing: Box<dyn ClientAssertion> =
            Box::new(Failing(error.clone(), Arc::clone(&count)));
        let seen = fetch(client_of(&endpoint).client_assertion(failing)).await;
        let seen = seen.unwrap_err();
        assert_eq!(seen.is_transient(), error.is_transient());
        assert_eq!(seen.token_endpoint(), Some(&*endpoint.authority()));
        assert_eq!(count.load(Ordering::Relaxed), tries);
    }
    assert!(endpoint.requests().is_empty());
}

#[tokio::test]
async fn a_key_can_be_wrapped_by_an_assertion_of_ones_own() {
    struct Logged(PrivateKeyJwt);

    #[async_trait::async_trait]
    impl ClientAssertion for Logged {
        async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
            let assertion = self.0.assertion(context).await?;
            assert_eq!(assertion.expose_secret().split('.').count(), 3);
            Ok(assertion)
        }

        fn needs_audience(&self) -> bool {
            self.0.needs_audience()
        }
    }

    let key = PrivateKeyJwt::from_pem(ED25519).unwrap();
    let misfit = key.clone().algorithm(SigningAlgorithm::Es256);
    let context = AssertionContext::new("id").with_audience(ISSUER);
    for (key, context) in [
        (&misfit, &context),
        (&key, &AssertionContext::new("without audience")),
    ] {
        let error = key.assertion(context).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidSetting);
    }
    let jwt = assertion_of(|it| it.client_assertion(Logged(key)).audience(ISSUER)).await;
    assert_claims(&jwt);
}

#[tokio::test]
async fn no_key_and_no_assertion_is_in_any_debug() {
    let key = PrivateKeyJwt::from_pem(P256).unwrap().key_id("2026-11");
    let client = || ClientCredentials::builder("https://id.example.com/token").client_id("id");
    let builder = client().private_key_jwt(key.clone()).audience(ISSUER);
    let mut shown = format!("{key:?}{builder:?}");
    assert!(shown.contains("2026-11") && shown.contains("private_key_jwt"));
    let context = AssertionContext::new("id").with_audience(ISSUER);
    let assertion = key.assertion(&context).await.unwrap();
    shown += &format!("{assertion:?}{:?}", builder.build().unwrap());
    let secret = client()
        .client_secret(MAC_SECRET)
        .client_authentication(ClientAuthentication::SecretJwt)
        .audience(ISSUER);
    shown += &format!("{secret:?}");
    shown += &format!("{:?}", secret.build().unwrap());
    let second_line = P256.lines().nth(1).unwrap();
    // A key or a secret might be shown as numbers, too.
    for secret in [
        second_line,
        MAC_SECRET,
        assertion.expose_secret(),
        "48, 129",
        "97, 45",
    ] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
