//! The grants beside client credentials: token exchange and JWT bearer, tenants with credentials of
//! their own, and the end of a login. The token endpoint is a tower service in memory.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearer_auth::{
    ClientAuthentication, ClientCredentials, Grant, GrantBuilder, JwtBearer, MockTokenSource,
    SecurityToken, StaticTokenSource, TenantCredentials, TokenCache, TokenError, TokenErrorKind,
    TokenExchange, TokenRequest, TokenSource,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::service_fn;

const TOKEN_URL: &str = "https://id.example.com/token";

type Form = Vec<(String, String)>;

/// A token endpoint that issues numbered tokens and keeps the forms it got.
#[derive(Clone, Default)]
struct Endpoint {
    forms: Arc<Mutex<Vec<Form>>>,
    /// The `expires_in` of the responses, none if it is 0.
    expires_in: u64,
}

impl Endpoint {
    fn of<G: Grant>(&self, builder: GrantBuilder<G>) -> GrantBuilder<G> {
        let endpoint = self.clone();
        builder.transport(service_fn(move |request: Request<Full<Bytes>>| {
            let endpoint = endpoint.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let form = form_urlencoded::parse(&body).into_owned().collect();
                let mut forms = endpoint.forms.lock().unwrap();
                forms.push(form);
                let mut body = serde_json::json!({
                    "access_token": format!("token-{}", forms.len()), "token_type": "Bearer",
                });
                if endpoint.expires_in > 0 {
                    body["expires_in"] = endpoint.expires_in.into();
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body.to_string()))))
            }
        }))
    }

    fn forms(&self) -> Vec<Form> {
        self.forms.lock().unwrap().clone()
    }

    fn last(&self) -> Form {
        self.forms().pop().unwrap()
    }
}

fn field<'a>(form: &'a Form, name: &str) -> Option<&'a str> {
    let mut values = form.iter().filter(|(key, _)| key == name);
    let value = values.next()?;
    assert!(values.next().is_none(), "{name} is sent twice");
    Some(&value.1)
}

fn jwt_expiring_in(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let claims = format!("{{\"exp\":{}}}", now.unwrap().as_secs() + seconds);
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn exchange(endpoint: &Endpoint) -> TokenExchange {
    let builder = TokenExchange::builder(TOKEN_URL)
        .client_id("svc")
        .client_secret("s3cret")
        .subject_token(|key| async move {
            match key.as_str() {
                "gone" => Err(TokenError::permanent("logged out")),
                "short" => Ok(SecurityToken::jwt(jwt_expiring_in(60))),
                "expired" => Ok(SecurityToken::jwt("a").with_expires_at(SystemTime::UNIX_EPOCH)),
                key => Ok(SecurityToken::access_token(format!(
                    "subject-token-of-{key}"
                ))),
            }
        });
    endpoint.of(builder).build().unwrap()
}

#[tokio::test]
async fn an_exchange_sends_the_token_of_the_subject_and_never_its_key() {
    let endpoint = Endpoint::default();
    let cache = TokenCache::new(exchange(&endpoint));
    let alice = TokenRequest::subject("alice").with_audience("billing");
    let token = cache.token_for(&alice).await.unwrap();
    let form = endpoint.last();
    for (name, value) in [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("subject_token", "subject-token-of-alice"),
        (
            "subject_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("audience", "billing"),
        ("client_id", "svc"),
        ("client_secret", "s3cret"),
    ] {
        assert_eq!(field(&form, name), Some(value), "{name}");
    }
    assert!(form.iter().all(|(_, value)| value != "alice"), "{form:?}");
    assert_eq!(field(&form, "actor_token"), None);

    // Another scope of the same subject is another token, and so is another subject.
    let narrow = TokenRequest::scope("read").with_subject("alice");
    assert_ne!(
        cache.token_for(&narrow).await.unwrap().expose_secret(),
        token.expose_secret()
    );
    assert_eq!(field(&endpoint.last(), "scope"), Some("read"));
    let bob = TokenRequest::subject("bob").with_audience("billing");
    cache.token_for(&bob).await.unwrap();
    assert_eq!(
        field(&endpoint.last(), "subject_token"),
        Some("subject-token-of-bob")
    );
    // The first is served from the cache.
    let again = cache.token_for(&alice).await.unwrap();
    assert_eq!(again.expose_secret(), token.expose_secret());
    assert_eq!(endpoint.forms().len(), 3);
}

#[tokio::test]
async fn an_exchange_sends_the_token_of_the_acting_party() {
    let endpoint = Endpoint::default();
    let builder = TokenExchange::builder(TOKEN_URL)
        .client_id("svc")
        .client_authentication(ClientAuthentication::None)
        .subject_token(|_| async { Ok(SecurityToken::id_token("id")) })
        .actor_token(|| async { Ok(SecurityToken::jwt("actor")) });
    let source = endpoint.of(builder).build().unwrap();
    source.fetch(&TokenRequest::subject("alice")).await.unwrap();
    let form = endpoint.last();
    assert_eq!(field(&form, "actor_token"), Some("actor"));
    assert_eq!(
        field(&form, "actor_token_type"),
        Some("urn:ietf:params:oauth:token-type:jwt")
    );
    assert_eq!(
        field(&form, "subject_token_type"),
        Some("urn:ietf:params:oauth:token-type:id_token")
    );
    assert_eq!(field(&form, "client_secret"), None);
}

#[tokio::test]
async fn an_exchanged_token_does_not_outlive_the_token_of_its_subject() {
    let until = |token: &bearer_auth::AccessToken| {
        let left = token
            .expires_at()
            .unwrap()
            .duration_since(SystemTime::now());
        left.unwrap().as_secs()
    };
    for expires_in in [0, 3600] {
        let endpoint = Endpoint {
            expires_in,
            ..Endpoint::default()
        };
        let source = exchange(&endpoint);
        let token = source.fetch(&TokenRequest::subject("short")).await.unwrap();
        assert!(
            (50..=60).contains(&until(&token)),
            "{expires_in}: {}",
            until(&token)
        );
    }
    let endpoint = Endpoint {
        expires_in: 30,
        ..Endpoint::default()
    };
    let source = exchange(&endpoint);
    let token = source.fetch(&TokenRequest::subject("short")).await.unwrap();
    assert!((28..=30).contains(&until(&token)), "{}", until(&token));

    let error = source
        .fetch(&TokenRequest::subject("expired"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::LoginRequired);
    assert_eq!(endpoint.forms().len(), 1, "an expired token is not sent");
}

#[tokio::test]
async fn an_exchange_needs_a_subject_and_other_grants_refuse_one() {
    let endpoint = Endpoint::default();
    let source = exchange(&endpoint);
    let error = source.fetch(&TokenRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidSetting);
    let error = source
        .fetch(&TokenRequest::subject("gone"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Source);

    let builder = ClientCredentials::builder(TOKEN_URL)
        .client_id("svc")
        .client_secret("s");
    let source = endpoint.of(builder).build().unwrap();
    let error = source
        .fetch(&TokenRequest::subject("alice"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidSetting);
    assert!(endpoint.forms().is_empty());
}

#[tokio::test]
async fn jwt_bearer_asks_for_an_assertion_per_token_request_and_needs_no_client() {
    let endpoint = Endpoint::default();
    let count = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&count);
    let builder =
        JwtBearer::builder(TOKEN_URL)
            .scope("read")
            .assertion(move |request: TokenRequest| {
                let mut count = counted.lock().unwrap();
                *count += 1;
                let subject = request.subject_key().unwrap_or("service").to_owned();
                let assertion = format!("assertion-{count}-{subject}");
                async move { Ok(SecurityToken::jwt(assertion)) }
            });
    let source = endpoint.of(builder).build().unwrap();
    source.fetch(&TokenRequest::default()).await.unwrap();
    let form = endpoint.last();
    assert_eq!(
        form,
        [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", "assertion-1-service"),
            ("scope", "read"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    source.fetch(&TokenRequest::subject("alice")).await.unwrap();
    assert_eq!(
        field(&endpoint.last(), "assertion"),
        Some("assertion-2-alice")
    );
}

#[test]
fn a_grant_without_its_settings_is_refused() {
    let setting = |error: bearer_auth::InvalidSetting| error.setting();
    let missing = TokenExchange::builder(TOKEN_URL)
        .client_id("x")
        .client_secret("y")
        .build();
    assert_eq!(setting(missing.unwrap_err()), "subject_token");
    assert_eq!(
        setting(JwtBearer::builder(TOKEN_URL).build().unwrap_err()),
        "assertion"
    );
    let no_id = TokenExchange::builder(TOKEN_URL).client_secret("y").build();
    assert_eq!(setting(no_id.unwrap_err()), "client_id");
    let public = ClientCredentials::builder(TOKEN_URL)
        .client_id("x")
        .client_authentication(ClientAuthentication::None)
        .build();
    assert_eq!(setting(public.unwrap_err()), "client_authentication");
    let unsent = JwtBearer::builder(TOKEN_URL).client_secret("y").build();
    assert_eq!(setting(unsent.unwrap_err()), "client_id");
    for name in [
        "assertion",
        "subject_token",
        "refresh_token",
        "client_assertion",
        "actor_token",
    ] {
        let builder = ClientCredentials::builder(TOKEN_URL)
            .client_id("x")
            .client_secret("y");
        assert_eq!(
            setting(builder.param(name, "v").build().unwrap_err()),
            "param",
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_credentials_is_an_error_of_that_tenant_alone() {
    let loads = Arc::new(Mutex::new(Vec::new()));
    let counted = Arc::clone(&loads);
    let source = TenantCredentials::new(move |request: TokenRequest| {
        let tenant = request.scopes().unwrap_or_default().to_owned();
        counted.lock().unwrap().push(tenant.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            match tenant.as_str() {
                "unknown" => Err(TokenError::permanent("a tenant without credentials")),
                tenant => Ok(StaticTokenSource::new(format!("token-of-{tenant}"))?),
            }
        }
    });
    let cache = TokenCache::new(source);
    let (known, unknown) = (TokenRequest::scope("1"), TokenRequest::scope("unknown"));
    let calls = (0..100).map(|n| cache.token_for(if n % 2 == 0 { &known } else { &unknown }));
    for (n, result) in futures_util::future::join_all(calls)
        .await
        .into_iter()
        .enumerate()
    {
        match n % 2 {
            0 => assert_eq!(result.unwrap().expose_secret(), "token-of-1"),
            _ => assert_eq!(result.unwrap_err().kind(), TokenErrorKind::Source),
        }
    }
    let mut loads = loads.lock().unwrap().clone();
    loads.sort();
    assert_eq!(loads, ["1", "unknown"], "one load per tenant");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_token_is_gone_and_so_is_the_pause() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    for request in [TokenRequest::default(), TokenRequest::subject("alice")] {
        let first = cache.token_for(&request).await.unwrap();
        cache.forget(&request);
        assert!(cache.peek_for(&request).is_none());
        let second = cache.token_for(&request).await.unwrap();
        assert_ne!(first.expose_secret(), second.expose_secret());

        cache.forget(&request);
        tokens.fail_next(TokenError::permanent("down"));
        cache.token_for(&request).await.unwrap_err();
        assert!(cache.token_for(&request).await.unwrap_err().is_paused());
        cache.forget(&request);
        cache.token_for(&request).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_forgotten_leaves_no_token() {
    for request in [TokenRequest::default(), TokenRequest::subject("alice")] {
        let tokens = MockTokenSource::new();
        let cache = TokenCache::new(tokens.clone());
        let hold = tokens.hold();
        let call = tokio::spawn({
            let (cache, request) = (cache.clone(), request.clone());
            async move { cache.token_for(&request).await }
        });
        while tokens.fetches() == 0 {
            tokio::task::yield_now().await;
        }
        // The caller still waits, and starts another fetch each time.
        for fetches in 2..=5 {
            cache.forget(&request);
            assert!(cache.peek_for(&request).is_none());
            while tokens.fetches() < fetches {
                assert!(!call.is_finished());
                tokio::task::yield_now().await;
            }
        }
        drop(hold);
        call.await.unwrap().unwrap();
        assert_eq!(tokens.fetches(), 5);
    }
}
