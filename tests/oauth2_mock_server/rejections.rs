//! An API that refuses the server's tokens.

use bearer_auth::TokenErrorKind;
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};

use crate::crowd;
use crate::failure::refusal;
use crate::server::{Counters, Server};
use crate::servers::stack::{Answer, Call, Kind, Stack, token_error};

const CALLERS: usize = 50;

/// A JWT that was over a minute before it was signed.
fn expired() -> Value {
    json!({ "life": -60 })
}

/// The API's own 401, whole.
fn is_refusal(name: &str, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
    let challenge = &answer.headers[WWW_AUTHENTICATE];
    let expected = r#"Bearer realm="api", error="invalid_token""#;
    assert_eq!(challenge, expected, "{name}");
    let body = json!({ "ok": false, "error": "invalid_token" });
    assert_eq!(answer.json, body, "{name}");
}

/// One renewal: nobody sent more than twice, and who was refused was answered with 200 then.
fn one_renewal(name: &str, counters: Counters, answers: usize) {
    let refused = counters.api_unauthorized;
    assert!((1..=CALLERS).contains(&refused), "{name}: {refused}");
    let expected = Counters {
        token_requests: 2,
        token_requests_basic: 0,
        api_requests: answers + refused,
        api_unauthorized: refused,
    };
    assert_eq!(counters, expected, "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_replaced_costs_one_renewal() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        let case = server.case();
        let stack = Stack::new(kind, case.layer());
        crowd(&format!("the first key, {kind:?}"), CALLERS, &case, &stack).await;
        server.rotate_key().await;
        crowd(&format!("the second key, {kind:?}"), CALLERS, &case, &stack).await;
        one_renewal(&format!("{kind:?}"), case.counters().await, 2 * CALLERS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_signed_expired_costs_one_renewal() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        let case = server.case();
        case.force_times(1, &expired()).await;
        let stack = Stack::new(kind, case.layer());
        crowd(&format!("{kind:?}"), CALLERS, &case, &stack).await;
        one_renewal(&format!("{kind:?}"), case.counters().await, CALLERS);
    }
}

#[tokio::test]
async fn two_tokens_that_are_refused_end_in_the_apis_answer() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, answer, api_requests) in [
            ("two tokens", expired(), 2),
            // Nothing new to send.
            (
                "the same one",
                json!({ "merge": { "access_token": "opaque" } }),
                1,
            ),
        ] {
            let name = &format!("{name}, {kind:?}");
            let case = server.case();
            case.force(&answer).await;
            let stack = Stack::new(kind, case.layer());
            is_refusal(name, &stack.send(Call::get(case.url())).await.unwrap());
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
async fn a_refused_token_that_has_no_successor_is_sent_no_more() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (name, answer, expected, tries) in [
            (
                "401 invalid_client",
                json!({ "status": 401, "body": refusal("invalid_client") }),
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
            let stack = Stack::new(kind, case.layer());
            let sent = stack.send(Call::get(case.url())).await.unwrap();
            assert_eq!(sent.status, StatusCode::OK, "{name}");
            case.force(&answer).await;
            server.rotate_key().await;

            is_refusal(name, &stack.send(Call::get(case.url())).await.unwrap());
            let error = stack.send(Call::get(case.url())).await.unwrap_err();
            let error = token_error(kind, &error).unwrap();
            assert_eq!(error.kind(), expected, "{name}: in the pause");
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
