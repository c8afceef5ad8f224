//! Responses of the token endpoint with forced statuses.

use bearer_auth::TokenErrorKind::{
    InvalidClient, InvalidResponse, InvalidScope, Redirected, Refused, Throttled, Unavailable,
};
use serde_json::{Value, json};

use crate::failure::{Failure, check_all, error_body, permanent, transient};
use crate::server::Server;

/// Forces a response with an OAuth error body.
fn coded(status: u16, code: &str) -> Value {
    json!({ "status": status, "body": error_body(code) })
}

/// Forces a response with an empty JSON object.
fn bare(status: u16) -> Value {
    json!({ "status": status, "body": {} })
}

/// Forces a response without a body.
fn empty(status: u16) -> Value {
    json!({ "status": status, "empty": true })
}

fn failures() -> Vec<Failure> {
    vec![
        // Permanent: a retry cannot succeed.
        permanent(
            "400 invalid_client",
            coded(400, "invalid_client"),
            InvalidClient,
        )
        .code("invalid_client"),
        permanent(
            "401 invalid_client",
            coded(401, "invalid_client"),
            InvalidClient,
        )
        .code("invalid_client"),
        permanent(
            "400 unauthorized_client",
            coded(400, "unauthorized_client"),
            InvalidClient,
        )
        .code("unauthorized_client"),
        permanent(
            "400 invalid_scope",
            coded(400, "invalid_scope"),
            InvalidScope,
        )
        .code("invalid_scope"),
        permanent(
            "400 invalid_target",
            coded(400, "invalid_target"),
            InvalidScope,
        )
        .code("invalid_target"),
        permanent(
            "400 unsupported_grant_type",
            coded(400, "unsupported_grant_type"),
            Refused,
        )
        .code("unsupported_grant_type"),
        permanent(
            "400 invalid_request",
            coded(400, "invalid_request"),
            Refused,
        )
        .code("invalid_request"),
        permanent("400 with a code of its own", coded(400, "E-4711"), Refused).code("E-4711"),
        permanent(
            "400 with a code of two lines",
            coded(400, "two\nlines"),
            Refused,
        ),
        permanent("400 with a token", json!({ "status": 400 }), Refused),
        permanent("400 without code", bare(400), Refused),
        permanent("401 without code", bare(401), Refused),
        permanent("403 access_denied", coded(403, "access_denied"), Refused).code("access_denied"),
        permanent("403 without body", empty(403), Refused),
        permanent("404 without code", bare(404), Refused),
        permanent(
            "307 to the token endpoint itself",
            json!({ "status": 307, "headers": { "location": "/token" } }),
            Redirected,
        ),
        // Transient: a retry may succeed.
        transient("408 without code", bare(408), Unavailable),
        transient(
            "408 invalid_request",
            coded(408, "invalid_request"),
            Unavailable,
        )
        .code("invalid_request"),
        transient("429 without body", empty(429), Throttled),
        transient(
            "429 too_many_requests",
            coded(429, "too_many_requests"),
            Throttled,
        )
        .code("too_many_requests"),
        transient(
            "400 too_many_requests",
            coded(400, "too_many_requests"),
            Throttled,
        )
        .code("too_many_requests"),
        transient("400 slow_down", coded(400, "slow_down"), Throttled).code("slow_down"),
        transient(
            "400 temporarily_unavailable",
            coded(400, "temporarily_unavailable"),
            Unavailable,
        )
        .code("temporarily_unavailable"),
        transient("500 without code", bare(500), Unavailable),
        transient("500 with a token", json!({ "status": 500 }), Unavailable),
        transient("500 server_error", coded(500, "server_error"), Unavailable).code("server_error"),
        transient(
            "500 invalid_client",
            coded(500, "invalid_client"),
            Unavailable,
        )
        .code("invalid_client"),
        transient("502 without body", empty(502), Unavailable),
        transient(
            "502 invalid_scope",
            coded(502, "invalid_scope"),
            Unavailable,
        )
        .code("invalid_scope"),
        transient("503 without code", bare(503), Unavailable),
        transient(
            "503 invalid_client",
            coded(503, "invalid_client"),
            Unavailable,
        )
        .code("invalid_client"),
        transient("204", empty(204), InvalidResponse),
        // They set the pause, so the fetch ends with the first try.
        transient(
            "503 with Retry-After",
            json!({ "status": 503, "body": {}, "headers": { "retry-after": "2" } }),
            Unavailable,
        ),
        transient(
            "400 slow_down with Retry-After",
            json!({
                "status": 400, "body": error_body("slow_down"), "headers": { "retry-after": "2" },
            }),
            Throttled,
        )
        .code("slow_down"),
    ]
}

#[tokio::test]
async fn forced_statuses_have_the_expected_kind_tries_and_pause() {
    let Some(server) = Server::start().await else {
        return;
    };
    check_all(&server, &failures()).await;
}
