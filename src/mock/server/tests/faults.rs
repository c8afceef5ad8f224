//! Tests of failures, outages and latencies of the token endpoint.

use std::time::Instant;

use http::{Response, StatusCode};

use super::*;

#[tokio::test]
async fn queued_failures_are_sent_in_order() {
    let server = start().await;
    server.fail_token_requests(0, StatusCode::IM_A_TEAPOT);
    server.fail_token_requests(2, StatusCode::BAD_REQUEST);
    for status in [401, 403, 429, 500, 503] {
        server.fail_token_requests(1, StatusCode::from_u16(status).unwrap());
    }
    for (status, error) in [
        (400, "invalid_request"),
        (400, "invalid_request"),
        (401, "invalid_client"),
        (403, "unauthorized_client"),
        (429, ""),
        (500, "server_error"),
        (503, "temporarily_unavailable"),
    ] {
        let answer = post_form(&server, &format!("{FORM}&scope=s")).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error));
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    assert_eq!(
        post_form(&server, FORM).await.token(),
        "mock-access-token-1"
    );
    assert_eq!((server.token_requests(), server.tokens_issued()), (8, 1));
    assert_eq!(server.token_log()[0].scope(), Some("s"));
    assert_eq!(server.token_log()[0].status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn failures_can_have_retry_after() {
    let server = start().await;
    let too_many = StatusCode::TOO_MANY_REQUESTS;
    server.fail_token_requests_with_retry_after(1, too_many, secs(7));
    server.fail_token_requests_with_retry_after(1, too_many, Duration::from_millis(1200));
    server.fail_token_requests_with_retry_after(1, too_many, Duration::MAX);
    for seconds in ["7", "2", "18446744073709551615"] {
        let answer = post_form(&server, FORM).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (429, Some(seconds))
        );
    }
}

#[tokio::test]
async fn queued_responses_are_sent_unchanged() {
    let server = start().await;
    let response = Response::builder()
        .status(StatusCode::FOUND)
        .version(http::Version::HTTP_3)
        .header("Location", "http://127.0.0.1:1/elsewhere")
        .header("Content-Length", "999")
        .header("Transfer-Encoding", "chunked")
        .body("<html>")
        .unwrap();
    server.answer_token_requests(2, response);
    for _ in 0..2 {
        let answer = post_form(&server, FORM).await;
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (302, b"<html>".as_slice())
        );
        assert_eq!(
            answer.header("location"),
            Some("http://127.0.0.1:1/elsewhere")
        );
        assert_eq!(answer.header("content-length"), Some("6"));
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    assert_eq!(post_form(&server, FORM).await.status, 200);
}

#[tokio::test]
async fn every_status_can_be_queued() {
    let server = start().await;
    for code in 100..=999 {
        let status = StatusCode::from_u16(code).unwrap();
        server.fail_token_requests(1, status);
        let answer = post_form(&server, FORM).await;
        let expected = match code {
            101 => 101,
            100..200 => 500,
            _ => code,
        };
        assert_eq!(answer.status, expected);
    }
    assert_eq!(server.token_requests(), 900);
    assert_eq!(post_form(&server, FORM).await.status, 200);
}

#[tokio::test]
async fn queued_failures_outlast_an_outage() {
    let server = start().await;
    server.fail_token_requests(1, StatusCode::BAD_REQUEST);
    server.set_outage(true);
    for _ in 0..3 {
        let answer = post_form(&server, FORM).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, None));
    }
    server.set_outage(false);
    assert_eq!(post_form(&server, FORM).await.status, 400);
    assert_eq!(post_form(&server, FORM).await.status, 200);
}

#[tokio::test]
async fn a_token_is_issued_after_the_latency() {
    let latency = Duration::from_millis(80);
    let server = MockAuthServer::builder()
        .token_latency(latency)
        .start()
        .await
        .unwrap();
    let started = Instant::now();
    assert_eq!(post_form(&server, FORM).await.status, 200);
    assert!(started.elapsed() >= latency);

    // No token is issued for a client that disconnects during the wait.
    server.set_token_latency(secs(60));
    let disconnected = tokio::time::timeout(latency, post_form(&server, FORM)).await;
    assert!(disconnected.is_err());
    assert_eq!((server.token_requests(), server.tokens_issued()), (2, 1));
    assert_eq!(server.token_log().len(), 1);

    server.set_token_latency(Duration::ZERO);
    let started = Instant::now();
    post_form(&server, FORM).await;
    assert!(started.elapsed() < secs(30));
}

#[tokio::test]
async fn the_lifetime_counts_from_the_receipt_of_the_request() {
    let server = MockAuthServer::builder()
        .lifetime(Duration::from_millis(300))
        .token_latency(Duration::from_millis(400))
        .start()
        .await
        .unwrap();
    let token = post_form(&server, FORM).await.token();
    assert_eq!(get_api(&server, &token).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_paused_tokio_clock_does_not_affect_the_server() {
    let latency = Duration::from_millis(60);
    let server = MockAuthServer::builder()
        .token_latency(latency)
        .start()
        .await
        .unwrap();
    let started = Instant::now();
    let token = post_form(&server, FORM).await.token();
    assert!(started.elapsed() >= latency);
    tokio::time::advance(secs(10_000)).await;
    assert_eq!(get_api(&server, &token).await.status, 200);
}
