//! An API that rejects the server's tokens.

use bearer_auth::TokenErrorKind;
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};

use crate::concurrent_calls;
use crate::failure::error_body;
use crate::server::{Counters, Server};
use crate::support::node::json_body;
use crate::support::stack::{ApiResponse, Kind, Stack, token_error};

const CALLERS: usize = 50;

/// Forces a JWT that expired a minute before it was signed.
fn expired() -> Value {
    json!({ "life": -60 })
}

/// Checks that this is the API's own 401, with its headers and its body.
fn assert_whole_rejection(name: &str, response: &ApiResponse) {
    assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{name}");
    let challenge = &response.headers[WWW_AUTHENTICATE];
    let expected = r#"Bearer realm="api", error="invalid_token""#;
    assert_eq!(challenge, expected, "{name}");
    let body = json!({ "ok": false, "error": "invalid_token" });
    assert_eq!(json_body(response), body, "{name}");
}

/// Checks that there was one refresh, and one replay for each rejection.
fn assert_one_refresh(name: &str, counters: Counters, responses: usize) {
    let rejected = counters.api_unauthorized;
    assert!((1..=CALLERS).contains(&rejected), "{name}: {rejected}");
    let expected = Counters {
        token_requests: 2,
        token_requests_basic: 0,
        api_requests: responses + rejected,
        api_unauthorized: rejected,
    };
    assert_eq!(counters, expected, "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_signing_key_costs_one_refresh() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        let case = server.case();
        let stack = Stack::new(kind, &case.layer());
        concurrent_calls(&format!("the first key, {kind:?}"), CALLERS, &case, &stack).await;
        server.rotate_key().await;
        concurrent_calls(&format!("the second key, {kind:?}"), CALLERS, &case, &stack).await;
        assert_one_refresh(&format!("{kind:?}"), case.counters().await, 2 * CALLERS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_issued_expired_costs_one_refresh() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        let case = server.case();
        case.force_times(1, &expired()).await;
        let stack = Stack::new(kind, &case.layer());
        concurrent_calls(&format!("{kind:?}"), CALLERS, &case, &stack).await;
        assert_one_refresh(&format!("{kind:?}"), case.counters().await, CALLERS);
    }
}

#[tokio::test]
async fn after_two_rejected_tokens_the_caller_gets_the_apis_response() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, token_response, api_requests) in [
            ("two tokens", expired(), 2),
            // No replay with the token that was rejected.
            (
                "the same token",
                json!({ "merge": { "access_token": "opaque" } }),
                1,
            ),
        ] {
            let name = &format!("{name}, {kind:?}");
            let case = server.case();
            case.force(&token_response).await;
            let stack = Stack::new(kind, &case.layer());
            assert_whole_rejection(name, &stack.get(case.url()).await.unwrap());
            let expected = Counters {
                token_requests: 2,
                token_requests_basic: 0,
                api_requests,
                api_unauthorized: api_requests,
            };
            assert_eq!(case.counters().await, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn a_rejected_token_without_a_successor_is_not_sent_again() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, token_response, expected, tries) in [
            (
                "401 invalid_client",
                json!({ "status": 401, "body": error_body("invalid_client") }),
                TokenErrorKind::InvalidClient,
                1,
            ),
            (
                "503",
                json!({ "status": 503, "empty": true }),
                TokenErrorKind::Unavailable,
                3,
            ),
            (
                "200 without a token",
                json!({ "omit": ["access_token"] }),
                TokenErrorKind::InvalidResponse,
                3,
            ),
        ] {
            let name = &format!("{name}, {kind:?}");
            let case = server.case();
            let stack = Stack::new(kind, &case.layer());
            let response = stack.get(case.url()).await.unwrap();
            assert_eq!(response.status, StatusCode::OK, "{name}");
            case.force(&token_response).await;
            server.rotate_key().await;

            assert_whole_rejection(name, &stack.get(case.url()).await.unwrap());
            let error = stack.get(case.url()).await.unwrap_err();
            let error = token_error(&error).unwrap();
            assert_eq!(error.kind(), expected, "{name}: during the pause");
            let expected = Counters {
                token_requests: 1 + tries,
                token_requests_basic: 0,
                api_requests: 2,
                api_unauthorized: 1,
            };
            assert_eq!(case.counters().await, expected, "{name}");
        }
    }
}
