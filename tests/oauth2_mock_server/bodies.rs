//! Forced bodies of a 200.

use std::time::{Duration, SystemTime};

use bearer_auth::TokenErrorKind::{
    InvalidClient, InvalidResponse, InvalidScope, Refused, Throttled, Unavailable,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::failure::{Failure, check_all, permanent, refusal, transient};
use crate::server::{Counters, Server};
use crate::servers::stack::{Call, Kind, Stack};

/// What a token without a usable `expires_in` gets.
const DEFAULT_LIFE: u64 = 300;
const LONGEST_LIFE: u64 = 10 * 365 * 24 * 60 * 60;
/// More than a token request takes, less than the difference between any two lives here.
const SLACK: Duration = Duration::from_secs(10);

/// The library's own answer with other members.
fn merge(members: Value) -> Value {
    json!({ "merge": members })
}

fn omit(member: &str) -> Value {
    json!({ "omit": [member] })
}

fn body(body: Value) -> Value {
    json!({ "body": body })
}

/// No tokens.
fn failures() -> Vec<Failure> {
    vec![
        permanent(
            "invalid_client",
            body(refusal("invalid_client")),
            InvalidClient,
        )
        .code("invalid_client"),
        permanent(
            "invalid_scope",
            body(refusal("invalid_scope")),
            InvalidScope,
        )
        .code("invalid_scope"),
        permanent(
            "unsupported_grant_type",
            body(refusal("unsupported_grant_type")),
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
            body(refusal("server_error")),
            InvalidResponse,
        )
        .code("server_error"),
        transient("slow_down", body(refusal("slow_down")), Throttled).code("slow_down"),
        transient(
            "temporarily_unavailable",
            body(refusal("temporarily_unavailable")),
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
            "access_token with a line end",
            merge(json!({ "access_token": "line\r\n" })),
            InvalidResponse,
        ),
        transient(
            "access_token beyond ASCII",
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
        ),
        transient(
            "token_type DPoP",
            merge(json!({ "token_type": "DPoP" })),
            InvalidResponse,
        ),
        transient(
            "token_type a number",
            merge(json!({ "token_type": 1 })),
            InvalidResponse,
        ),
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
            "a page of HTML, in a string",
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

/// Tokens all the same: what is forced, and the life in seconds that becomes of it.
fn tokens() -> Vec<(&'static str, Value, u64)> {
    let life = |expires_in: Value| merge(json!({ "expires_in": expires_in }));
    vec![
        ("as the library has it", json!({}), 3_600),
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
            "members more",
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
        ("expires_in a string", life(json!("900")), 900),
        ("expires_in a float", life(json!(900.5)), 900),
        ("expires_in a float, in a string", life(json!("900.5")), 900),
        ("expires_in absurd", life(json!(1e12)), LONGEST_LIFE),
        (
            "expires_in absurd, in a string",
            life(json!("1e12")),
            LONGEST_LIFE,
        ),
        ("expires_in absent", omit("expires_in"), DEFAULT_LIFE),
        ("expires_in null", life(Value::Null), DEFAULT_LIFE),
        ("expires_in zero", life(json!(0)), DEFAULT_LIFE),
        ("expires_in negative", life(json!(-1)), DEFAULT_LIFE),
        (
            "expires_in negative, in a string",
            life(json!("-900")),
            DEFAULT_LIFE,
        ),
        ("expires_in false", life(json!(false)), DEFAULT_LIFE),
        ("expires_in true", life(json!(true)), DEFAULT_LIFE),
        ("expires_in a word", life(json!("soon")), DEFAULT_LIFE),
        ("expires_in an empty string", life(json!("")), DEFAULT_LIFE),
        ("expires_in an array", life(json!([900])), DEFAULT_LIFE),
        (
            "expires_in an object",
            life(json!({ "s": 900 })),
            DEFAULT_LIFE,
        ),
    ]
}

#[tokio::test]
async fn a_forced_body_that_is_no_token_has_its_kind_its_tries_and_its_pause() {
    let Some(server) = Server::start().await else {
        return;
    };
    check_all(&server, &failures()).await;
}

#[tokio::test]
async fn a_forced_body_with_a_token_in_it_is_a_token_with_a_life() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, answer, life) in tokens() {
            let case = server.case();
            case.force(&answer).await;
            let layer = case.layer();
            let stack = Stack::new(kind, layer.clone());
            // More than one: no life is so short that each request has to fetch.
            for _ in 0..3 {
                let answer = stack.send(Call::get(case.url())).await;
                let answer = answer.unwrap_or_else(|error| panic!("{name}, {kind:?}: {error}"));
                assert_eq!(answer.status, StatusCode::OK, "{name}, {kind:?}");
            }
            let expires_at = layer.cache().token().await.unwrap().expires_at();
            let ends = expires_at.unwrap().duration_since(SystemTime::now());
            let missing = Duration::from_secs(life + 1).checked_sub(ends.unwrap());
            assert!(
                missing.is_some_and(|missing| missing <= SLACK),
                "{name}, {kind:?}: {expires_at:?} is not in {life} s"
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
