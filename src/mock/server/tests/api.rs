//! Tests of the API: valid and invalid tokens, redirects, uploads and records.

use std::time::Instant;

use http::{Method, StatusCode};
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_valid_token_is_accepted() {
    let server = start().await;
    let token = post_form(&server, FORM).await.token();
    let answer = get_api(&server, &token).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"ok": true, "scope": null}))
    );
    assert_eq!(answer.header("x-mock-body-length"), Some("0"));

    let scoped = post_form(&server, &format!("{FORM}&scope=tenant/7"))
        .await
        .token();
    let bearer = format!("bEARER {scoped}");
    let headers = [("Authorization", bearer.as_str())];
    let answer = call(&server, "PATCH", "/api/a/b?c=d", &headers, b"12345").await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"ok": true, "scope": "tenant/7"}))
    );
    assert_eq!(answer.header("x-mock-body-length"), Some("5"));
    assert_eq!((server.api_requests(), server.api_unauthorized()), (2, 0));

    let log = server.api_log();
    assert_eq!(
        (log[0].method(), log[0].path(), log[0].query()),
        (&Method::GET, "/api", None)
    );
    assert_eq!((log[0].token_number(), log[0].scope()), (Some(1), None));
    assert_eq!(log[1].method(), Method::PATCH);
    assert_eq!((log[1].path(), log[1].query()), ("/api/a/b", Some("c=d")));
    assert_eq!(
        (log[1].token_number(), log[1].scope()),
        (Some(2), Some("tenant/7"))
    );
    assert_eq!(
        (log[1].body_len(), log[1].body()),
        (5, Some(b"12345".as_slice()))
    );
    assert!(log[1].has_authorization());
    assert_eq!(log[1].status(), StatusCode::OK);
    assert!(log[0].at() <= log[1].at());
}

#[tokio::test]
async fn missing_and_invalid_tokens_get_a_challenge() {
    const BARE: &str = "Bearer realm=\"mock\"";
    const INVALID_TOKEN: &str = "Bearer realm=\"mock\", error=\"invalid_token\"";
    const INVALID_REQUEST: &str = "Bearer realm=\"mock\", error=\"invalid_request\"";
    let server = start().await;
    post_form(&server, FORM).await;
    let good = ("Authorization", "Bearer mock-access-token-1");
    let basic = ("Authorization", "Basic Zm9vOmJhcg==");
    for (headers, status, challenge) in [
        (&[][..], 401, BARE),
        (&[basic], 401, BARE),
        (&[("Authorization", "Bearer")], 401, INVALID_TOKEN),
        (&[("Authorization", "Bearer x")], 401, INVALID_TOKEN),
        (&[("Authorization", "Bearer \u{e9}")], 401, INVALID_TOKEN),
        (
            &[("Authorization", "Bearer mock-access-token-0")],
            401,
            INVALID_TOKEN,
        ),
        (
            &[("Authorization", "Bearer mock-access-token-2")],
            401,
            INVALID_TOKEN,
        ),
        (
            &[("Authorization", "Bearer mock-access-token-01")],
            401,
            INVALID_TOKEN,
        ),
        (
            &[("Authorization", "Bearer mock-access-token-+1")],
            401,
            INVALID_TOKEN,
        ),
        (
            &[("Authorization", "Bearer mock-access-token-1.x")],
            401,
            INVALID_TOKEN,
        ),
        (
            &[(
                "Authorization",
                "Bearer mock-access-token-99999999999999999999",
            )],
            401,
            INVALID_TOKEN,
        ),
        (&[good, good], 400, INVALID_REQUEST),
        (&[good, basic], 400, INVALID_REQUEST),
    ] {
        let answer = call(&server, "POST", "/api/x", headers, b"abc").await;
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(
            answer.header("www-authenticate"),
            Some(challenge),
            "{headers:?}"
        );
        assert_eq!(answer.header("x-mock-body-length"), Some("3"));
        let record = server.api_log().pop().unwrap();
        assert_eq!(record.status(), status);
        assert_eq!(record.has_authorization(), !headers.is_empty());
        assert_eq!(record.token_number(), None);
    }
    assert_eq!((server.api_requests(), server.api_unauthorized()), (13, 11));
}

#[tokio::test]
async fn expired_and_revoked_tokens_are_rejected() {
    let server = start().await;
    server.set_lifetime(Duration::ZERO);
    let expired = post_form(&server, FORM).await.token();
    server.set_lifetime(secs(900));
    let revoked = post_form(&server, &format!("{FORM}&scope=a")).await.token();
    assert_eq!(get_api(&server, &expired).await.status, 401);
    assert_eq!(get_api(&server, &revoked).await.status, 200);

    server.revoke_all();
    let answer = get_api(&server, &revoked).await;
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .contains("invalid_token")
    );
    assert_eq!(server.api_log()[2].scope(), Some("a"));
    assert_eq!(server.api_log()[2].token_number(), Some(2));

    let a = post_form(&server, &format!("{FORM}&scope=a")).await.token();
    let b = post_form(&server, &format!("{FORM}&scope=b")).await.token();
    assert_eq!(get_api(&server, &a).await.status, 200);
    server.revoke_scope("a");
    assert_eq!(get_api(&server, &a).await.status, 401);
    assert_eq!(get_api(&server, &b).await.status, 200);
    assert_eq!((server.api_requests(), server.api_unauthorized()), (6, 3));
}

#[tokio::test]
async fn the_server_says_which_tokens_its_api_would_accept() {
    let server = start().await;
    server.set_lifetime(Duration::ZERO);
    let expired = post_form(&server, FORM).await.token();
    server.set_lifetime(secs(900));
    let revoked = post_form(&server, FORM).await.token();
    server.revoke_all();
    let valid = post_form(&server, FORM).await.token();
    for token in ["", "foreign", &expired, &revoked, &format!("{valid}0")] {
        assert!(!server.accepts(token), "{token}");
    }
    assert!(server.accepts(&valid));
    server.refuse_all(true);
    assert!(!server.accepts(&valid));
    assert_eq!(server.api_requests(), 0);
}

#[tokio::test]
async fn a_token_expires_in_real_time() {
    let server = MockAuthServer::builder()
        .lifetime(secs(1))
        .start()
        .await
        .unwrap();
    let asked = Instant::now();
    let token = post_form(&server, FORM).await.token();
    let received = Instant::now();
    loop {
        let sent = Instant::now();
        let status = get_api(&server, &token).await.status;
        if received.elapsed() < secs(1) && asked.elapsed() < secs(1) {
            assert_eq!(status, 200);
        }
        if sent > received + secs(1) {
            assert_eq!(status, 401);
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn refuse_all_rejects_every_token() {
    let server = start().await;
    let token = post_form(&server, FORM).await.token();
    server.refuse_all(true);
    for answer in [
        get_api(&server, &token).await,
        call(&server, "GET", "/api/x", &[], b"").await,
    ] {
        assert_eq!(answer.status, 401);
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .contains("invalid_token")
        );
    }
    assert_eq!(call(&server, "PUT", "/upload", &[], b"").await.status, 200);
    server.refuse_all(false);
    assert_eq!(get_api(&server, &token).await.status, 200);
}

#[tokio::test]
async fn a_token_is_checked_before_the_latency() {
    let server = MockAuthServer::builder()
        .api_latency(Duration::from_millis(150))
        .start()
        .await
        .unwrap();
    let token = post_form(&server, FORM).await.token();
    let started = Instant::now();
    let (answer, ()) = tokio::join!(get_api(&server, &token), async {
        while server.api_log().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.revoke_all();
    });
    assert_eq!(answer.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(150));
    server.set_api_latency(Duration::ZERO);
    assert_eq!(get_api(&server, &token).await.status, 401);
}

#[tokio::test]
async fn redirects_go_to_the_given_url() {
    let server = start().await;
    let to = "http://127.0.0.1:1/api?x=1&y=2";
    let path = "/api/redirect?a=b&to=http%3A%2F%2F127.0.0.1%3A1%2Fapi%3Fx%3D1%26y%3D2";
    let answer = call(
        &server,
        "POST",
        path,
        &[("Authorization", "Bearer x")],
        b"body",
    )
    .await;
    assert_eq!((answer.status, answer.header("location")), (307, Some(to)));
    for path in [
        "/api/redirect",
        "/api/redirect?to=a%0D%0Ab",
        "/api/redirect?from=x",
    ] {
        assert_eq!(
            call(&server, "GET", path, &[], b"").await.status,
            400,
            "{path}"
        );
    }
    assert_eq!(server.api_log()[0].status(), 307);
    assert!(server.api_log()[0].has_authorization());
}

#[tokio::test]
async fn uploads_need_no_token_and_record_one() {
    let server = start().await;
    for (headers, has_authorization) in [
        (&[][..], false),
        (&[("Authorization", "Bearer x")][..], true),
    ] {
        let answer = call(&server, "PUT", "/upload/a?signature=1", headers, b"data").await;
        assert_eq!(
            (answer.status, answer.header("x-mock-body-length")),
            (200, Some("4"))
        );
        let record = server.api_log().pop().unwrap();
        assert_eq!(
            (record.path(), record.has_authorization()),
            ("/upload/a", has_authorization)
        );
    }
    assert_eq!((server.api_requests(), server.api_unauthorized()), (2, 0));
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let server = start().await;
    for path in ["/", "/apis", "/uploads", "/token/", "/tokens", "*"] {
        let method = if path == "*" { "OPTIONS" } else { "GET" };
        assert_eq!(
            call(&server, method, path, &[], b"").await.status,
            404,
            "{path}"
        );
    }
    assert_eq!((server.api_requests(), server.token_requests()), (0, 0));
}

#[tokio::test]
async fn whole_bodies_are_read() {
    let server = start().await;
    let small = vec![b'a'; 1024 * 1024];
    let large = vec![b'b'; 3 * 1024 * 1024 + 1];
    for body in [&small, &large] {
        let answer = call(&server, "POST", "/upload", &[], body).await;
        assert_eq!(
            answer.header("x-mock-body-length").unwrap(),
            body.len().to_string()
        );
    }
    let log = server.api_log();
    assert_eq!(log[0].body(), Some(small.as_slice()));
    assert_eq!((log[1].body(), log[1].body_len()), (None, large.len()));

    let mut stream = connect(&server).await;
    let request = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 200);
    assert_eq!(server.api_log()[2].body(), Some(b"abcde".as_slice()));
}

#[tokio::test]
async fn bodies_that_are_too_long_are_rejected() {
    let server = start().await;
    let mut stream = connect(&server).await;
    let max = 64 * 1024 * 1024;
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        max + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![0; 1024 * 1024];
    for _ in 0..64 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"x").await.unwrap();
    assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 413);
    let record = server.api_log().pop().unwrap();
    assert_eq!((record.body_len(), record.body()), (max + 1, None));
}

#[tokio::test]
async fn a_request_cut_short_is_counted_but_not_recorded() {
    let server = start().await;
    let mut stream = connect(&server).await;
    let request = b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
    stream.write_all(request).await.unwrap();
    wait_until(|| server.api_requests() == 1).await;
    drop(stream);
    assert_eq!(call(&server, "PUT", "/upload", &[], b"").await.status, 200);
    assert_eq!(server.api_requests(), 2);
    assert_eq!(server.api_log().len(), 1);
}
