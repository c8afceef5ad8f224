//! Forced statuses, with an OAuth error body and without.

use bearer_auth::TokenErrorKind::{
    InvalidClient, InvalidResponse, InvalidScope, Redirected, Refused, Throttled, Unavailable,
};
use serde_json::{Value, json};

use crate::failure::{Failure, check_all, permanent, refusal, transient};
use crate::server::Server;

/// An answer with an OAuth error body.
fn told(status: u16, code: &str) -> Value {
    json!({ "status": status, "body": refusal(code) })
}

/// An answer with a body that says nothing.
fn bare(status: u16) -> Value {
    json!({ "status": status, "body": {} })
}

fn empty(status: u16) -> Value {
    json!({ "status": status, "empty": true })
}

fn rows() -> Vec<Failure> {
    vec![
        // The client can't mend them by waiting.
        permanent(
            "400 invalid_client",
            told(400, "invalid_client"),
            InvalidClient,
        )
        .code("invalid_client"),
        permanent(
            "401 invalid_client",
            told(401, "invalid_client"),
            InvalidClient,
        )
        .code("invalid_client"),
        permanent(
            "400 unauthorized_client",
            told(400, "unauthorized_client"),
            InvalidClient,
        )
        .code("unauthorized_client"),
        permanent(
            "400 invalid_scope",
            told(400, "invalid_scope"),
            InvalidScope,
        )
        .code("invalid_scope"),
        permanent(
            "400 invalid_target",
            told(400, "invalid_target"),
            InvalidScope,
        )
        .code("invalid_target"),
        permanent(
            "400 unsupported_grant_type",
            told(400, "unsupported_grant_type"),
            Refused,
        )
        .code("unsupported_grant_type"),
        permanent("400 invalid_request", told(400, "invalid_request"), Refused)
            .code("invalid_request"),
        permanent("400 with a code of its own", told(400, "E-4711"), Refused).code("E-4711"),
        permanent(
            "400 with a code of two lines",
            told(400, "two\nlines"),
            Refused,
        ),
        permanent("400 with a token", json!({ "status": 400 }), Refused),
        permanent("400 without code", bare(400), Refused),
        permanent("401 without code", bare(401), Refused),
        permanent("403 access_denied", told(403, "access_denied"), Refused).code("access_denied"),
        permanent("403 without body", empty(403), Refused),
        permanent("404 without code", bare(404), Refused),
        permanent(
            "307 to the token endpoint itself",
            json!({ "status": 307, "headers": { "location": "/token" } }),
            Redirected,
        ),
        // They may pass.
        transient("408 without code", bare(408), Unavailable),
        transient(
            "408 invalid_request",
            told(408, "invalid_request"),
            Unavailable,
        )
        .code("invalid_request"),
        transient("429 without body", empty(429), Throttled),
        transient(
            "429 too_many_requests",
            told(429, "too_many_requests"),
            Throttled,
        )
        .code("too_many_requests"),
        transient(
            "400 too_many_requests",
            told(400, "too_many_requests"),
            Throttled,
        )
        .code("too_many_requests"),
        transient("400 slow_down", told(400, "slow_down"), Throttled).code("slow_down"),
        transient(
            "400 temporarily_unavailable",
            told(400, "temporarily_unavailable"),
            Unavailable,
        )
        .code("temporarily_unavailable"),
        transient("500 without code", bare(500), Unavailable),
        transient("500 with a token", json!({ "status": 500 }), Unavailable),
        transient("500 server_error", told(500, "server_error"), Unavailable).code("server_error"),
        transient(
            "500 invalid_client",
            told(500, "invalid_client"),
            Unavailable,
        )
        .code("invalid_client"),
        transient("502 without body", empty(502), Unavailable),
        transient("502 invalid_scope", told(502, "invalid_scope"), Unavailable)
            .code("invalid_scope"),
        transient("503 without code", bare(503), Unavailable),
        transient(
            "503 invalid_client",
            told(503, "invalid_client"),
            Unavailable,
        )
        .code("invalid_client"),
        transient("204", empty(204), InvalidResponse),
        // They name the pause, so the flight ends with the first try.
        transient(
            "503 with Retry-After",
            json!({ "status": 503, "body": {}, "headers": { "retry-after": "2" } }),
            Unavailable,
        ),
        transient(
            "400 slow_down with Retry-After",
            json!({
                "status": 400, "body": refusal("slow_down"), "headers": { "retry-after": "2" },
            }),
            Throttled,
        )
        .code("slow_down"),
    ]
}

#[tokio::test]
async fn a_forced_status_has_its_kind_its_tries_and_its_pause() {
    let Some(server) = Server::start().await else {
        return;
    };
    check_all(&server, &rows()).await;
}
