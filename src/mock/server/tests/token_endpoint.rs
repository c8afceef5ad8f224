//! Tests of the token endpoint: tokens, malformed requests, client authentication and records.

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::mock::server::ClientAuthenticationSeen;

#[tokio::test]
async fn tokens_are_numbered() {
    let server = start().await;
    let first = post_form(&server, FORM).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    assert_eq!(
        first.json(),
        json!({"access_token": "mock-access-token-1", "token_type": "Bearer", "expires_in": 900})
    );
    let second = post_form(&server, &format!("{FORM}&scope=tenant%2F42+read")).await;
    assert_eq!(second.json()["access_token"], "mock-access-token-2");
    assert_eq!(second.json()["scope"], "tenant/42 read");
    assert_eq!((server.token_requests(), server.tokens_issued()), (2, 2));
}

#[tokio::test]
async fn lifetimes_can_be_whole_or_fractional() {
    let server = MockAuthServer::builder()
        .lifetime(secs(60))
        .start()
        .await
        .unwrap();
    assert_eq!(
        post_form(&server, FORM).await.json()["expires_in"],
        json!(60)
    );
    server.set_lifetime(Duration::from_millis(2500));
    assert_eq!(
        post_form(&server, FORM).await.json()["expires_in"],
        json!(2.5)
    );
    server.set_lifetime(Duration::MAX);
    let token = post_form(&server, FORM).await.token();
    assert_eq!(get_api(&server, &token).await.status, 200);
}

#[tokio::test]
async fn tokens_can_be_padded() {
    let server = MockAuthServer::builder()
        .token_len(1000)
        .start()
        .await
        .unwrap();
    let token = post_form(&server, FORM).await.token();
    assert_eq!(token.len(), 1000);
    assert!(token.starts_with("mock-access-token-1."));
    assert_eq!(get_api(&server, &token).await.status, 200);
    assert_eq!(get_api(&server, "mock-access-token-1").await.status, 401);

    let server = MockAuthServer::builder()
        .token_len(usize::MAX)
        .start()
        .await
        .unwrap();
    let token = post_form(&server, FORM).await.token();
    assert_eq!(token.len(), 64 * 1024);
    assert_eq!(get_api(&server, &token).await.status, 200);
}

#[tokio::test]
async fn only_post_is_allowed() {
    let server = start().await;
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let answer = call(&server, method, "/token", &[], b"").await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("POST")),
            "{method}"
        );
    }
    assert_eq!((server.token_requests(), server.tokens_issued()), (4, 0));
}

#[tokio::test]
async fn malformed_requests_are_errors() {
    let server = start().await;
    let form = |form: &str| form.as_bytes().to_vec();
    let cases = [
        (form(""), 400, "invalid_request"),
        (
            form("client_id=mock-client&client_secret=mock-secret"),
            400,
            "invalid_request",
        ),
        (
            form(&FORM.replace("client_credentials", "")),
            400,
            "invalid_request",
        ),
        (
            form(&FORM.replace("client_credentials", "password")),
            400,
            "unsupported_grant_type",
        ),
        (
            form(&format!("{FORM}&scope=a&scope=b")),
            400,
            "invalid_request",
        ),
        (
            form(&format!("{FORM}&client_secret=mock-secret")),
            400,
            "invalid_request",
        ),
        (
            form(&format!("{FORM}&pad={}", "x".repeat(70_000))),
            413,
            "invalid_request",
        ),
        (b"\xff\xfe&=%&%zz".to_vec(), 400, "invalid_request"),
    ];
    for (body, status, code) in cases {
        let answer = call(&server, "POST", "/token", &[FORM_TYPE], &body).await;
        let shown = String::from_utf8_lossy(&body)
            .chars()
            .take(80)
            .collect::<String>();
        assert_eq!(
            (answer.status, answer.error()),
            (status, code.to_owned()),
            "{shown}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for content_type in [None, Some("application/json"), Some("text/plain")] {
        let headers: Vec<_> = content_type
            .map(|value| ("Content-Type", value))
            .into_iter()
            .collect();
        let answer = call(&server, "POST", "/token", &headers, FORM.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.error()),
            (400, "invalid_request".to_owned())
        );
    }
    assert_eq!(server.tokens_issued(), 0);
}

#[tokio::test]
async fn content_type_parameters_and_repeated_resources_are_accepted() {
    let server = start().await;
    let content_type = (
        "content-type",
        "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
    );
    let form = format!("{FORM}&resource=https%3A%2F%2Fa&resource=b&empty=");
    let accept = ("Accept", "application/json");
    let answer = call(
        &server,
        "POST",
        "/token",
        &[content_type, accept],
        form.as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 200);

    let log = server.token_log();
    let params: Vec<_> = log[0].params().collect();
    assert_eq!(
        params,
        [
            ("grant_type", "client_credentials"),
            ("client_id", "mock-client"),
            ("resource", "https://a"),
            ("resource", "b"),
            ("empty", ""),
        ]
    );
    assert_eq!(log[0].param("resource"), Some("https://a"));
    assert_eq!(log[0].param("client_secret"), None);
    assert_eq!(log[0].accept(), Some("application/json"));
}

#[tokio::test]
async fn clients_authenticate_by_form() {
    let server = MockAuthServer::builder()
        .client("a b", "s&c=r+t:%")
        .start()
        .await
        .unwrap();
    let form = "grant_type=client_credentials&client_id=a%20b&client_secret=s%26c%3Dr%2Bt%3A%25";
    assert_eq!(post_form(&server, form).await.status, 200);
    for wrong in [
        "grant_type=client_credentials",
        "grant_type=client_credentials&client_id=a+b",
        "grant_type=client_credentials&client_id=a+b&client_secret=no",
        "grant_type=client_credentials&client_id=b&client_secret=s%26c%3Dr%2Bt%3A%25",
    ] {
        let answer = post_form(&server, wrong).await;
        assert_eq!(
            (answer.status, answer.error()),
            (401, "invalid_client".to_owned()),
            "{wrong}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Basic realm=\"token\"")
        );
    }
    let seen: Vec<_> = server
        .token_log()
        .iter()
        .map(TokenRecord::client_authentication)
        .collect();
    use ClientAuthenticationSeen::{None, Post};
    assert_eq!(seen, [Post, None, Post, Post, Post]);
}

#[tokio::test]
async fn an_empty_secret_can_be_omitted() {
    let server = MockAuthServer::builder()
        .client("open", "")
        .start()
        .await
        .unwrap();
    let form = "grant_type=client_credentials&client_id=open";
    assert_eq!(post_form(&server, form).await.status, 200);
    assert_eq!(
        post_form(&server, &format!("{form}&client_secret="))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn clients_authenticate_by_basic_with_form_encoding() {
    let server = MockAuthServer::builder()
        .client("a b", "s&c=r+t:%")
        .start()
        .await
        .unwrap();
    for good in ["a%20b:s%26c%3Dr%2Bt%3A%25", "a+b:s&c=r%2Bt:%25"] {
        assert_eq!(post_basic(&server, good).await.status, 200, "{good}");
    }
    for wrong in [
        "a b:s&c=r+t:%",
        "a%20b",
        "",
        ":",
        "a%20b:no",
        "b:s%26c%3Dr%2Bt%3A%25",
    ] {
        let answer = post_basic(&server, wrong).await;
        assert_eq!(
            (answer.status, answer.error()),
            (401, "invalid_client".to_owned()),
            "{wrong}"
        );
    }
    for log in server.token_log() {
        assert_eq!(log.client_authentication(), ClientAuthenticationSeen::Basic);
    }
}

#[tokio::test]
async fn clients_authenticate_by_basic_without_form_encoding() {
    let builder = MockAuthServer::builder().client("a b", "s&c=r+t:%41");
    let server = builder.raw_basic(true).start().await.unwrap();
    assert_eq!(post_basic(&server, "a b:s&c=r+t:%41").await.status, 200);
    assert_eq!(
        post_basic(&server, "a%20b:s%26c%3Dr%2Bt%3A%2541")
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn two_client_authentications_are_an_error() {
    let server = start().await;
    let basic = format!("Basic {}", STANDARD.encode("mock-client:mock-secret"));
    let grant = "grant_type=client_credentials";
    let twice = [
        FORM_TYPE,
        ("Authorization", &basic),
        ("Authorization", &basic),
    ];
    let once = &twice[..2];
    let bearer = [FORM_TYPE, ("Authorization", "Bearer mock-access-token-1")];
    let junk = [FORM_TYPE, ("Authorization", "Basic %%%")];
    let named = format!("{grant}&client_id=mock-client");
    let misnamed = format!("{grant}&client_id=other");
    use ClientAuthenticationSeen::{Basic, Both, Other};
    for (headers, form, status, seen) in [
        (once, grant, 200, Basic),
        (once, &named, 200, Basic),
        (once, &misnamed, 401, Basic),
        (once, FORM, 400, Both),
        (&twice, grant, 400, Basic),
        (&bearer, FORM, 400, Both),
        (&bearer, grant, 401, Other),
        (&junk, grant, 401, Basic),
    ] {
        let answer = call(&server, "POST", "/token", headers, form.as_bytes()).await;
        assert_eq!(answer.status, status, "{headers:?} {form}");
        assert_eq!(
            server.token_log().pop().unwrap().client_authentication(),
            seen
        );
    }
}

#[tokio::test]
async fn token_requests_are_recorded() {
    let server = start().await;
    post_form(&server, &format!("{FORM}&scope=tenant%2F7")).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    post_form(&server, "grant_type=client_credentials&scope=").await;
    let log = server.token_log();
    assert_eq!(log.len(), 2);
    assert_eq!(log[0].scope(), Some("tenant/7"));
    assert_eq!(
        (log[0].status(), log[0].token_number()),
        (StatusCode::OK, Some(1))
    );
    assert_eq!(log[1].scope(), None);
    assert_eq!(
        (log[1].status(), log[1].token_number()),
        (StatusCode::UNAUTHORIZED, None)
    );
    assert!(log[1].at() >= log[0].at() + Duration::from_millis(20));
}
