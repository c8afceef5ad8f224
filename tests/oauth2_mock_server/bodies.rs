//! 200 responses of the token endpoint with forced bodies.

use std::time::{Duration, SystemTime};

use bearer_auth::TokenErrorKind::{
    InvalidClient, InvalidResponse, InvalidScope, Refused, Throttled, Unavailable,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::failure::{Failure, check_all, error_body, permanent, transient};
use crate::server::{Counters, Server};
use crate::support::stack::{Kind, Stack};

/// The lifetime of a token without a usable `expires_in`.
const DEFAULT_LIFETIME: u64 = 300;
const LONGEST_LIFETIME: u64 = 10 * 365 * 24 * 60 * 60;
/// Longer than a token request takes, shorter than the difference between any two lifetimes here.
const SLACK: Duration = Duration::from_secs(10);

/// Replaces these members of the server's own response.
fn merge(members: Value) -> Value {
    json!({ "merge": members })
}

fn omit(member: &str) -> Value {
    json!({ "omit": [member] })
}

fn body(body: Value) -> Value {
    json!({ "body": body })
}

/// Returns the bodies without a usable token.
fn failures() -> Vec<Failure> {
    vec![
        permanent(
            "invalid_client",
            body(error_body("invalid_client")),
            InvalidClient,
        )
        .code("invalid_client"),
        permanent(
            "invalid_scope",
            body(error_body("invalid_scope")),
            InvalidScope,
        )
        .code("invalid_scope"),
        permanent(
            "unsupported_grant_type",
            body(error_body("unsupported_grant_type")),
            Refused,
        )
        .code("unsupported_grant_type"),
        permanent(
            "invalid_client beside a token",
            merge(json!({ "error": "invalid_client" })),
            InvalidClient,
        )
        .code("invalid_client"),
        transient(
            "server_error",
            body(error_body("server_error")),
            Unavailable,
        )
        .code("server_error"),
        transient("slow_down", body(error_body("slow_down")), Throttled).code("slow_down"),
        transient(
            "temporarily_unavailable",
            body(error_body("temporarily_unavailable")),
            Unavailable,
        )
        .code("temporarily_unavailable"),
        transient("no access_token", omit("access_token"), InvalidResponse),
        transient(
            "access_token null",
            merge(json!({ "access_token": null })),
            InvalidResponse,
        ),
        transient(
            "access_token empty",
            merge(json!({ "access_token": "" })),
            InvalidResponse,
        ),
        transient(
            "access_token with a space",
            merge(json!({ "access_token": "two words" })),
            InvalidResponse,
        ),
        transient(
            "access_token with a line break",
            merge(json!({ "access_token": "line\r\n" })),
            InvalidResponse,
        ),
        transient(
            "access_token with non-ASCII characters",
            merge(json!({ "access_token": "clé" })),
            InvalidResponse,
        ),
        transient(
            "access_token a number",
            merge(json!({ "access_token": 4711 })),
            InvalidResponse,
        ),
        transient(
            "access_token an object",
            merge(json!({ "access_token": { "value": "x" } })),
            InvalidResponse,
        ),
        transient(
            "token_type mac",
            merge(json!({ "token_type": "mac" })),
            InvalidResponse,
        )
        .tried_once(),
        transient(
            "token_type DPoP",
            merge(json!({ "token_type": "DPoP" })),
            InvalidResponse,
        )
        .tried_once(),
        transient(
            "token_type a number",
            merge(json!({ "token_type": 1 })),
            InvalidResponse,
        )
        .tried_once(),
        transient("an empty object", body(json!({})), InvalidResponse),
        transient(
            "an array",
            body(json!(["token", "Bearer"])),
            InvalidResponse,
        ),
        transient("null", body(Value::Null), InvalidResponse),
        transient("a number", body(json!(0)), InvalidResponse),
        transient("an empty string", body(json!("")), InvalidResponse),
        transient(
            "an HTML page in a JSON string",
            json!({ "body": "<html>Sign in</html>", "headers": { "content-type": "text/html" } }),
            InvalidResponse,
        ),
        transient("no body", json!({ "empty": true }), InvalidResponse),
        transient(
            "a body of 300 kB",
            merge(json!({ "padding": "x".repeat(300_000) })),
            InvalidResponse,
        ),
    ]
}

/// Returns the bodies with a usable token, each with the expected lifetime in seconds.
fn tokens() -> Vec<(&'static str, Value, u64)> {
    let expires_in = |expires_in: Value| merge(json!({ "expires_in": expires_in }));
    vec![
        ("the server's own response", json!({}), 3_600),
        ("token_type absent", omit("token_type"), 3_600),
        (
            "token_type null",
            merge(json!({ "token_type": null })),
            3_600,
        ),
        (
            "token_type bearer",
            merge(json!({ "token_type": "bearer" })),
            3_600,
        ),
        (
            "token_type BEARER",
            merge(json!({ "token_type": "BEARER" })),
            3_600,
        ),
        ("error empty", merge(json!({ "error": "" })), 3_600),
        (
            "unknown members",
            merge(json!({
                "ext_expires_in": "0", "refresh_token": "r", "id_token": null, "x": [{ "y": {} }],
            })),
            3_600,
        ),
        (
            "another content-type",
            json!({ "headers": { "content-type": "text/plain" } }),
            3_600,
        ),
        ("expires_in a string", expires_in(json!("900")), 900),
        ("expires_in a float", expires_in(json!(900.5)), 900),
        (
            "expires_in a float, in a string",
            expires_in(json!("900.5")),
            900,
        ),
        (
            "expires_in too large",
            expires_in(json!(1e12)),
            LONGEST_LIFETIME,
        ),
        (
            "expires_in too large, in a string",
            expires_in(json!("1e12")),
            LONGEST_LIFETIME,
        ),
        ("expires_in absent", omit("expires_in"), DEFAULT_LIFETIME),
        ("expires_in null", expires_in(Value::Null), DEFAULT_LIFETIME),
        ("expires_in zero", expires_in(json!(0)), DEFAULT_LIFETIME),
        (
            "expires_in negative",
            expires_in(json!(-1)),
            DEFAULT_LIFETIME,
        ),
        (
            "expires_in negative, in a string",
            expires_in(json!("-900")),
            DEFAULT_LIFETIME,
        ),
        (
            "expires_in false",
            expires_in(json!(false)),
            DEFAULT_LIFETIME,
        ),
        ("expires_in true", expires_in(json!(true)), DEFAULT_LIFETIME),
        (
            "expires_in a word",
            expires_in(json!("soon")),
            DEFAULT_LIFETIME,
        ),
        (
            "expires_in an empty string",
            expires_in(json!("")),
            DEFAULT_LIFETIME,
        ),
        (
            "expires_in an array",
            expires_in(json!([900])),
            DEFAULT_LIFETIME,
        ),
        (
            "expires_in an object",
            expires_in(json!({ "s": 900 })),
            DEFAULT_LIFETIME,
        ),
    ]
}

#[tokio::test]
async fn forced_bodies_without_a_token_have_the_expected_kind_tries_and_pause() {
    let Some(server) = Server::start().await else {
        return;
    };
    check_all(&server, &failures()).await;
}

#[tokio::test]
async fn forced_bodies_with_a_token_are_tokens_with_the_expected_lifetime() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, response, lifetime) in tokens() {
            let case = server.case();
            case.force(&response).await;
            let layer = case.layer();
            let stack = Stack::new(kind, &layer);
            // Several requests: no lifetime is so short that each of them fetches.
            for _ in 0..3 {
                let response = stack.get(case.url()).await;
                let response = response.unwrap_or_else(|error| panic!("{name}, {kind:?}: {error}"));
                assert_eq!(response.status, StatusCode::OK, "{name}, {kind:?}");
            }
            let expires_at = layer.cache().token().await.unwrap().expires_at();
            let ends = expires_at.unwrap().duration_since(SystemTime::now());
            let missing = Duration::from_secs(lifetime + 1).checked_sub(ends.unwrap());
            assert!(
                missing.is_some_and(|missing| missing <= SLACK),
                "{name}, {kind:?}: {expires_at:?} is not in {lifetime} s"
            );
            let expected = Counters {
                token_requests: 1,
                api_requests: 3,
                ..Counters::default()
            };
            assert_eq!(case.counters().await, expected, "{name}, {kind:?}");
        }
    }
}
