//! The response in the event of a rejection.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use bearer_auth::MockTokenSource;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, StatusCode};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};

use crate::request_events::{get, observed, reject_all, respond};
use crate::support::api::{Api, INVALID_TOKEN, rejected};
use crate::support::stack::{Call, Kind, Stack};

#[tokio::test]
async fn a_rejection_names_its_status_its_origin_and_the_error_code_in_all_stacks() {
    let api = Api::start(|_| rejected(INVALID_TOKEN)).await;
    let expected = [format!("401 {} invalid_token", api.origin())];
    for kind in Kind::ALL {
        for is_allowed in [false, true] {
            for is_streamed in [false, true] {
                let (layer, events) = observed(MockTokenSource::new()).await;
                let layer = match is_allowed {
                    true => layer.allow_origin(api.origin()).unwrap(),
                    false => layer,
                };
                let mut call = Call::get(api.url("/path?query"));
                call.is_streamed = is_streamed;
                Stack::new(kind, &layer).send(call).await.unwrap();
                assert_eq!(
                    events.take_rejecting(),
                    expected,
                    "{kind:?}, {is_allowed}, {is_streamed}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_repeats_neither_the_token_nor_other_text_of_the_server() {
    let long = format!("Bearer error=\"{}\"", "x".repeat(65));
    for (challenge, code) in [
        (
            "Bearer error=\"invalid_token\", error_description=\"hush-hush\"",
            "invalid_token",
        ),
        ("OAuth2 error=\"Session_Invalid\"", "Session_Invalid"),
        ("Bearer realm=\"hush-hush\"", "-"),
        ("Bearer error=\"hush-hush in words\"", "-"),
        ("Bearer error=\"mock-token-1\"", "-"),
        ("Bearer error=\"expired-mock-token-1\"", "-"),
        (&long, "-"),
    ] {
        let (layer, events) = observed(MockTokenSource::new()).await;
        let challenge = HeaderValue::from_str(challenge).unwrap();
        let service = layer
            .without_replay()
            .layer(service_fn(move |_: Request<String>| {
                let mut response = respond(StatusCode::UNAUTHORIZED);
                let headers = response.headers_mut();
                headers.insert(WWW_AUTHENTICATE, challenge.clone());
                ready(Ok::<_, Infallible>(response))
            }));
        service.oneshot(get()).await.unwrap();
        let expected = [format!("401 https://api.example.com {code}")];
        assert_eq!(events.take_rejecting(), expected);
        for secret in ["hush-hush", "mock-token", "xxx"] {
            assert!(!events.debug().contains(secret), "{}", events.debug());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_of_a_request_to_a_path_names_the_assumed_origin() {
    let (layer, events) = observed(MockTokenSource::new()).await;
    let path = || Request::get("/path").body(String::new()).unwrap();
    let service = layer.clone().layer(service_fn(reject_all));
    service.oneshot(path()).await.unwrap();
    assert_eq!(events.take_rejecting(), ["401 (none) -"]);

    sleep(Duration::from_secs(20)).await;
    let layer = layer.assume_origin("https://grpc.example.com").unwrap();
    let service = layer.layer(service_fn(reject_all));
    service.oneshot(path()).await.unwrap();
    assert_eq!(events.take_rejecting(), ["401 https://grpc.example.com -"]);
}
