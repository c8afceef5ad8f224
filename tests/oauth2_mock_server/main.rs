//! The three stacks against a mock authorization server of others, whose answers are forced, and an
//! API that verifies its JWTs (`tests/servers/oauth2-mock-server`).
//!
//! Needs `node` 20.19 or later and `npm`. Without them, or without a way to npm's registry for the
//! first run, the tests skip and say so; where `CI` is set they fail.

#[path = "oauth2_mock_server/bodies.rs"]
mod bodies;
#[path = "oauth2_mock_server/failure.rs"]
mod failure;
#[path = "oauth2_mock_server/rejections.rs"]
mod rejections;
#[path = "oauth2_mock_server/server.rs"]
mod server;
mod servers;
#[path = "oauth2_mock_server/statuses.rs"]
mod statuses;

use bearer_auth::{RequestAuth, TokenRequest};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use failure::refusal;
use server::{Case, Counters, Server};
use servers::stack::{Call, Kind, Stack};

/// Sends this many requests at once, each with a body of its own; all are answered with 200.
async fn crowd(name: &str, callers: usize, case: &Case<'_>, stack: &Stack) {
    let mut calls = JoinSet::new();
    for caller in 0..callers {
        let stack = stack.clone();
        let call = Call::post(case.url(), format!("body of {caller}").into());
        calls.spawn(async move { (caller, stack.send(call).await) });
    }
    for (caller, answer) in calls.join_all().await {
        let answer = answer.unwrap_or_else(|error| panic!("{name}, caller {caller}: {error}"));
        assert_eq!(answer.status, StatusCode::OK, "{name}, caller {caller}");
        let body = format!("body of {caller}");
        assert_eq!(answer.json["body"], body, "{name}, caller {caller}");
        assert_eq!(answer.json["client"], case.id, "{name}, caller {caller}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_of_a_kilobyte_is_fetched_once_for_all_callers() {
    const CALLERS: usize = 200;

    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        let case = server.case();
        let layer = case.layer();
        let stack = Stack::new(kind, layer.clone());
        crowd(&format!("{kind:?}"), CALLERS, &case, &stack).await;

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
async fn an_endpoint_that_fails_twice_costs_its_callers_no_error() {
    const CALLERS: usize = 50;

    let Some(server) = Server::start().await else {
        return;
    };
    let rows = [
        ("408", json!({ "status": 408, "empty": true })),
        ("429", json!({ "status": 429, "empty": true })),
        (
            "500",
            json!({ "status": 500, "body": refusal("server_error") }),
        ),
        (
            "503",
            json!({ "status": 503, "body": refusal("invalid_client") }),
        ),
        (
            "400 slow_down",
            json!({ "status": 400, "body": refusal("slow_down") }),
        ),
        ("200 without a token", json!({ "omit": ["access_token"] })),
        ("200 without a body", json!({ "empty": true })),
    ];
    for kind in Kind::ALL {
        let rows = rows.iter().map(async |(name, answer)| {
            let case = server.case();
            let name = format!("{name}, {kind:?}");
            case.force_times(2, answer).await;
            crowd(&name, CALLERS, &case, &Stack::new(kind, case.layer())).await;
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
async fn a_scope_that_the_server_narrowed_is_seen_on_the_token() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, answer, expected) in [
            (
                "narrowed",
                json!({ "merge": { "scope": "tenant/42" } }),
                Some("tenant/42"),
            ),
            ("as asked for", json!({}), Some("tenant/42 tenant/7")),
            ("not named", json!({ "omit": ["scope"] }), None),
            ("null", json!({ "merge": { "scope": null } }), None),
            (
                "an array",
                json!({ "merge": { "scope": ["tenant/42"] } }),
                None,
            ),
        ] {
            let case = server.case();
            case.force(&answer).await;
            let layer = case.layer();
            let stack = Stack::new(kind, layer.clone());
            crowd(&format!("{name}, {kind:?}"), 1, &case, &stack).await;
            let token = layer.cache().token().await.unwrap();
            assert_eq!(token.scope(), expected, "{name}, {kind:?}");
            assert_eq!(case.counters().await.token_requests, 1, "{name}, {kind:?}");
        }
    }
}

#[tokio::test]
async fn a_scope_that_was_narrowed_for_one_tenant_is_no_others() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in [Kind::Middleware, Kind::TowerHttp] {
        let case = server.case();
        let layer = case.layer();
        let stack = Stack::new(kind, layer.clone());
        let narrowed = json!({ "merge": { "scope": "tenant/7:read" } });
        case.force_times(1, &narrowed).await;
        for tenant in ["tenant/7", "tenant/9"] {
            let call = Call::get(case.url()).auth(RequestAuth::scope(tenant));
            let answer = stack.send(call).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{kind:?}, {tenant}");
            assert_eq!(
                answer.json["scope"], tenant,
                "{kind:?}: as it was asked for"
            );
        }
        for (tenant, expected) in [("tenant/7", "tenant/7:read"), ("tenant/9", "tenant/9")] {
            let request = TokenRequest::scope(tenant);
            let token = layer.cache().token_for(&request).await.unwrap();
            assert_eq!(token.scope(), Some(expected), "{kind:?}");
        }
        assert_eq!(case.counters().await.token_requests, 2, "{kind:?}");
    }
}
