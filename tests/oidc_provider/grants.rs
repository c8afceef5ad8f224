//! The grants for users: refresh tokens with rotation, JWT bearer and token exchange.
//!
//! Rotation is the server's own. It has a place for the other two grants, whose checks are in
//! `server.mjs`.

use std::time::{SystemTime, UNIX_EPOCH};

use bearer_auth::{
    AccessToken, BearerAuthLayer, ClientAuthentication, InMemoryRefreshTokenStore, JwtBearer,
    JwtBearerBuilder, RefreshTokenGrant, RefreshTokenGrantBuilder, RefreshTokenStore, RequestAuth,
    SecurityToken, TokenCache, TokenError, TokenErrorKind, TokenExchange, TokenExchangeBuilder,
    TokenRequest, TokenSource,
};
use serde_json::{Value, json};

use crate::accepted;
use crate::assertions::sign;
use crate::server::Server;
use crate::support::stack::{Call, Kind, Stack};

const USER: &str = "user-7";

fn public_app(server: &Server, store: &InMemoryRefreshTokenStore) -> RefreshTokenGrantBuilder {
    RefreshTokenGrant::builder(&server.token_url)
        .client_id("public-app")
        .client_authentication(ClientAuthentication::None)
        .refresh_token(store.clone())
}

fn web_app(server: &Server, store: &InMemoryRefreshTokenStore) -> RefreshTokenGrantBuilder {
    RefreshTokenGrant::builder(&server.token_url)
        .client_id("web-app")
        .client_secret("web-secret")
        .refresh_token(store.clone())
}

async fn fetch(source: impl TokenSource) -> Result<AccessToken, TokenError> {
    TokenCache::new(source).token().await
}

/// Returns the refresh token in a store.
async fn stored(store: &InMemoryRefreshTokenStore) -> String {
    let token = store.load(&TokenRequest::default()).await.unwrap().unwrap();
    assert!(!token.is_presented());
    token.expose_secret().to_owned()
}

/// Returns a stack around a source.
fn stack(server: &Server, kind: Kind, source: impl TokenSource) -> Stack {
    let layer = BearerAuthLayer::new(source);
    Stack::new(kind, &layer.allow_origin(&server.api_url).unwrap())
}

#[tokio::test]
async fn each_refresh_replaces_the_refresh_token() {
    let Some(server) = Server::start().await else {
        return;
    };
    for (client, grant) in [
        ("public-app", public_app as fn(&Server, &_) -> _),
        ("web-app", web_app),
    ] {
        server.reset_counters().await;
        let store = InMemoryRefreshTokenStore::new(server.log_in(client).await);
        let layer = BearerAuthLayer::new(grant(&server, &store).build().unwrap());
        let cache = layer.cache().clone();
        let stack = Stack::new(Kind::ALL[0], &layer.allow_origin(&server.api_url).unwrap());
        let mut seen = vec![stored(&store).await];
        for count in 1..=3 {
            let report = accepted(stack.get(server.url("/")).await);
            assert_eq!(
                (&report["client"], &report["user"]),
                (&json!(client), &json!(USER))
            );
            let counters = server.counters().await;
            let expected = (count, count);
            let requests = (counters.token_requests, counters.token_responses_ok);
            assert_eq!(requests, expected, "{client}");
            let next = stored(&store).await;
            assert!(!seen.contains(&next), "{client}: token {count} came back");
            seen.push(next);
            cache.invalidate(&cache.token().await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_stolen_refresh_token_ends_the_login_for_both() {
    let Some(server) = Server::start().await else {
        return;
    };
    let first = server.log_in("public-app").await;
    let store = InMemoryRefreshTokenStore::new(first.clone());
    let user = TokenCache::new(public_app(&server, &store).build().unwrap());
    let token = user.token().await.unwrap();

    let thief = InMemoryRefreshTokenStore::new(first);
    let thief = TokenCache::new(public_app(&server, &thief).build().unwrap());
    let error = thief.token().await.unwrap_err();
    assert_login_required(&error);
    assert_eq!(server.last_reason().await, "refresh token already used");

    user.invalidate(&token);
    let error = user.token().await.unwrap_err();
    assert_login_required(&error);
    assert_eq!(server.last_reason().await, "refresh token not found");

    // The server has refused it, so it is never sent again, not even by another source.
    server.reset_counters().await;
    let error = fetch(public_app(&server, &store).build().unwrap()).await;
    assert_eq!(error.unwrap_err().kind(), TokenErrorKind::LoginRequired);
    assert_eq!(server.counters().await.token_requests, 0);

    store.insert(&TokenRequest::default(), server.log_in("public-app").await);
    let after_login = public_app(&server, &store).build().unwrap();
    fetch(after_login).await.unwrap();
}

fn assert_login_required(error: &TokenError) {
    assert_eq!(error.kind(), TokenErrorKind::LoginRequired, "{error}");
    assert_eq!(error.oauth_error(), Some("invalid_grant"));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_refresh_token_of_another_client_is_refused() {
    let Some(server) = Server::start().await else {
        return;
    };
    let store = InMemoryRefreshTokenStore::new(server.log_in("web-app").await);
    let error = fetch(public_app(&server, &store).build().unwrap()).await;
    assert_login_required(&error.unwrap_err());
    assert_eq!(server.last_reason().await, "client mismatch");

    let store = InMemoryRefreshTokenStore::new(server.log_in("web-app").await);
    let wrong = web_app(&server, &store).client_secret("wrong-secret");
    let error = fetch(wrong.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    // The refresh token was not used, and is sent again.
    fetch(web_app(&server, &store).build().unwrap())
        .await
        .unwrap();
}

/// Returns the claims of an assertion that the server accepts once.
fn claims(server: &Server, id: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    json!({
        "iss": "https://users.example.test", "sub": USER, "aud": server.issuer,
        "jti": id, "exp": now.as_secs() + 60,
    })
}

fn jwt_bearer(server: &Server, assertion: String) -> JwtBearerBuilder {
    JwtBearer::builder(&server.token_url)
        .client_id("web-app")
        .client_secret("web-secret")
        .scope("tenant/42")
        .assertion(move |_| {
            let assertion = assertion.clone();
            async move { Ok(SecurityToken::jwt(assertion)) }
        })
}

#[tokio::test]
async fn an_assertion_for_a_user_becomes_a_token_once() {
    let Some(server) = Server::start().await else {
        return;
    };
    let good = sign(&server, &claims(&server, "first"));
    let source = jwt_bearer(&server, good.clone()).build().unwrap();
    let stack = stack(&server, Kind::ALL[0], source);
    let report = accepted(stack.get(server.url("/")).await);
    assert_eq!(report["user"], USER);
    assert_eq!(report["scope"], "tenant/42");

    let with = |name: &str, value: Value| {
        let mut claims = claims(&server, "second");
        claims[name] = value;
        sign(&server, &claims)
    };
    let (message, _) = good.rsplit_once('.').unwrap();
    let other = with("exp", json!(0));
    let (_, signature) = other.rsplit_once('.').unwrap();
    for (assertion, reason) in [
        (good.clone(), "the assertion was used before"),
        (
            format!("{message}.{signature}"),
            "signature verification failed",
        ),
        (
            with("aud", json!("https://other.example.test")),
            "unexpected \"aud\" claim value",
        ),
        (
            with("iss", json!("https://other.example.test")),
            "unexpected \"iss\" claim value",
        ),
        (
            with("exp", json!(1)),
            "\"exp\" claim timestamp check failed",
        ),
    ] {
        let source = jwt_bearer(&server, assertion).build().unwrap();
        let error = fetch(source).await.unwrap_err();
        assert_eq!(error.oauth_error(), Some("invalid_grant"), "{reason}");
        assert_eq!(error.kind(), TokenErrorKind::Refused, "{reason}");
        assert!(!error.is_transient(), "{reason}");
        assert_eq!(server.last_reason().await, reason);
    }
}

/// Returns a source that takes the key of a subject for the subject token itself.
fn exchanger(server: &Server) -> TokenExchangeBuilder {
    TokenExchange::builder(&server.token_url)
        .client_id("exchanger")
        .client_secret("exchanger-secret")
        .subject_token(|key| async move { Ok(SecurityToken::access_token(key)) })
}

#[tokio::test]
async fn a_users_token_is_exchanged_for_one_with_less_scope() {
    let Some(server) = Server::start().await else {
        return;
    };
    let store = InMemoryRefreshTokenStore::new(server.log_in("public-app").await);
    let subject = fetch(public_app(&server, &store).build().unwrap()).await;
    let subject = subject.unwrap().expose_secret().to_owned();
    let request = TokenRequest::scope("tenant/43").with_subject(&subject);
    for kind in Kind::WITH_EXTENSIONS {
        let stack = stack(&server, kind, exchanger(&server).build().unwrap());
        let call = Call::get(server.url("/")).auth(RequestAuth::token(request.clone()));
        let report = accepted(stack.send(call).await);
        assert_eq!(report["user"], USER, "{kind:?}");
        assert_eq!(report["client"], "exchanger", "{kind:?}");
        assert_eq!(report["scope"], "tenant/43", "{kind:?}");
    }

    let cache = TokenCache::new(exchanger(&server).build().unwrap());
    // The exchanged token for one scope is the subject token of the next exchange.
    let narrow = cache.token_for(&request).await.unwrap();
    let wider = TokenRequest::scope("tenant/42").with_subject(narrow.expose_secret());
    let error = cache.token_for(&wider).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidScope);

    server.revoke_all().await;
    let request = TokenRequest::scope("tenant/42").with_subject(&subject);
    let error = cache.token_for(&request).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Refused);
    assert_eq!(error.oauth_error(), Some("invalid_request"));
    let description = error.error_description();
    assert_eq!(description, Some("the subject token is not valid"));
    assert!(!format!("{error} {error:?}").contains(&subject));
}
