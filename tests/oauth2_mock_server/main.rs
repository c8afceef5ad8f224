//! All stacks against a mock authorization server of another project, with forced responses,
//! and an API that verifies its JWTs (`tests/servers/oauth2-mock-server`).
//!
//! Needs `node` 20.19 or later and `npm`. Without them, or if the first run cannot reach npm's
//! registry, the tests are skipped with a notice. If `CI` is set, they fail instead.

mod bodies;
mod failure;
mod rejections;
mod server;
mod statuses;

#[path = "../support"]
mod support {
    pub(crate) mod node;
    #[macro_use]
    mod reqwest_versions;
    pub(crate) mod stack;
}

use bearer_auth::{RequestAuth, TokenRequest};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use failure::error_body;
use server::{Case, Counters, Server};
use support::node::json_body;
use support::stack::{Call, Kind, Stack};

/// Sends this many concurrent requests with different bodies, which must all get a 200.
async fn concurrent_calls(name: &str, callers: usize, case: &Case<'_>, stack: &Stack) {
    let mut calls = JoinSet::new();
    for caller in 0..callers {
        let stack = stack.clone();
        let call = Call::post(case.url(), format!("body of {caller}"));
        calls.spawn(async move { (caller, stack.send(call).await) });
    }
    for (caller, response) in calls.join_all().await {
        let name = format!("{name}, caller {caller}");
        let response = response.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(response.status, StatusCode::OK, "{name}");
        let report = json_body(&response);
        assert_eq!(report["body"], format!("body of {caller}"), "{name}");
        assert_eq!(report["client"], case.id, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_callers_share_one_fetch_of_a_jwt_of_a_kilobyte() {
    const CALLERS: usize = 200;

    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        let case = server.case();
        let layer = case.layer();
        let stack = Stack::new(kind, &layer);
        concurrent_calls(&format!("{kind:?}"), CALLERS, &case, &stack).await;

        let token = layer.cache().token().await.unwrap();
        let length = token.expose_secret().len();
        assert!((800..1_200).contains(&length), "{kind:?}: {length} bytes");
        let expected = Counters {
            token_requests: 1,
            api_requests: CALLERS,
            ..Counters::default()
        };
        assert_eq!(case.counters().await, expected, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_twice_costs_no_caller_an_error() {
    const CALLERS: usize = 50;

    let Some(server) = Server::start().await else {
        return;
    };
    let rows = [
        ("408", json!({ "status": 408, "empty": true })),
        ("429", json!({ "status": 429, "empty": true })),
        (
            "500",
            json!({ "status": 500, "body": error_body("server_error") }),
        ),
        (
            "503",
            json!({ "status": 503, "body": error_body("invalid_client") }),
        ),
        (
            "400 slow_down",
            json!({ "status": 400, "body": error_body("slow_down") }),
        ),
        ("200 without a token", json!({ "omit": ["access_token"] })),
        ("200 without a body", json!({ "empty": true })),
    ];
    for kind in Kind::ALL {
        let rows = rows.iter().map(async |(name, response)| {
            let case = server.case();
            let name = format!("{name}, {kind:?}");
            case.force_times(2, response).await;
            concurrent_calls(&name, CALLERS, &case, &Stack::new(kind, &case.layer())).await;
            let expected = Counters {
                token_requests: 3,
                api_requests: CALLERS,
                ..Counters::default()
            };
            assert_eq!(case.counters().await, expected, "{name}");
        });
        join_all(rows).await;
    }
}

#[tokio::test]
async fn a_narrowed_scope_is_available_on_the_token() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, response, expected) in [
            (
                "narrowed",
                json!({ "merge": { "scope": "tenant/42" } }),
                Some("tenant/42"),
            ),
            ("as requested", json!({}), Some("tenant/42 tenant/7")),
            ("not named", json!({ "omit": ["scope"] }), None),
            ("null", json!({ "merge": { "scope": null } }), None),
            (
                "an array",
                json!({ "merge": { "scope": ["tenant/42"] } }),
                None,
            ),
        ] {
            let case = server.case();
            case.force(&response).await;
            let layer = case.layer();
            let stack = Stack::new(kind, &layer);
            concurrent_calls(&format!("{name}, {kind:?}"), 1, &case, &stack).await;
            let token = layer.cache().token().await.unwrap();
            assert_eq!(token.scope(), expected, "{name}, {kind:?}");
            assert_eq!(case.counters().await.token_requests, 1, "{name}, {kind:?}");
        }
    }
}

#[tokio::test]
async fn a_scope_narrowed_for_one_tenant_affects_no_other() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::WITH_EXTENSIONS {
        let case = server.case();
        let layer = case.layer();
        let stack = Stack::new(kind, &layer);
        let narrowed = json!({ "merge": { "scope": "tenant/7:read" } });
        case.force_times(1, &narrowed).await;
        for tenant in ["tenant/7", "tenant/9"] {
            let call = Call::get(case.url()).auth(RequestAuth::scope(tenant));
            let response = stack.send(call).await.unwrap();
            assert_eq!(response.status, StatusCode::OK, "{kind:?}, {tenant}");
            let scope = &json_body(&response)["scope"];
            assert_eq!(scope, tenant, "{kind:?}: as requested");
        }
        for (tenant, expected) in [("tenant/7", "tenant/7:read"), ("tenant/9", "tenant/9")] {
            let request = TokenRequest::scope(tenant);
            let token = layer.cache().token_for(&request).await.unwrap();
            assert_eq!(token.scope(), Some(expected), "{kind:?}");
        }
        assert_eq!(case.counters().await.token_requests, 2, "{kind:?}");
    }
}
