use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::record::{ApiLog, KEPT_BODIES, KEPT_RECORDS, TokenLog};
use super::tokens::Tokens;
use super::{
    ApiRecord, ClientAuthenticationSeen, MockAuthServer, MockAuthServerBuilder, TokenRecord,
};

const FORM: &str = "grant_type=client_credentials&client_id=mock-client&client_secret=mock-secret";

// ---- What a test has in hand ----

#[tokio::test]
async fn names_its_urls_and_its_client() {
    let server = start().await;
    let port = server.origin().strip_prefix("http://127.0.0.1:").unwrap();
    assert!(port.parse::<u16>().unwrap() > 0);
    assert_eq!(server.token_url(), format!("{}/token", server.origin()));
    assert_eq!(server.api_url(), format!("{}/api", server.origin()));
    assert_eq!(server.client_id(), "mock-client");
    assert_eq!(server.client_secret(), "mock-secret");
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let builder = MockAuthServer::builder().client("some-client", "hush");
    assert!(!format!("{builder:?}").contains("hush"));
    let server = builder.start().await.unwrap();
    assert!(format!("{server:?}").contains("some-client"));
    assert!(!format!("{server:?}").contains("hush"));

    let form = "grant_type=client_credentials&client_id=some-client&client_secret=hush&other=hush";
    assert_eq!(post_form(&server, form).await.status, 200);
    call(
        &server,
        "PUT",
        "/upload/x?signature=hush",
        &[("Authorization", "hush")],
        b"hush",
    )
    .await;
    assert!(!format!("{:?}", server.token_log()).contains("hush"));
    assert!(!format!("{:?}", server.api_log()).contains("hush"));
}

#[test]
fn handles_cross_threads() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<MockAuthServer>();
    assert_send_sync::<MockAuthServerBuilder>();
    assert_send_sync::<TokenRecord>();
    assert_send_sync::<ApiRecord>();
}

// ---- The token endpoint ----

#[tokio::test]
async fn issues_numbered_tokens() {
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
async fn sends_lifetimes_whole_or_fractional() {
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
async fn pads_tokens() {
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
async fn takes_the_post_method_only() {
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
async fn refuses_malformed_requests() {
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
async fn takes_content_type_parameters_and_repeated_resources() {
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
async fn authenticates_the_client_by_form() {
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
async fn authenticates_a_client_without_a_secret() {
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
async fn authenticates_the_client_by_basic_form_decoded() {
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
async fn authenticates_the_client_by_raw_basic_if_asked() {
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
async fn refuses_two_client_authentications() {
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
async fn records_token_requests() {
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

// ---- The token endpoint's faults ----

#[tokio::test]
async fn fails_the_next_token_requests() {
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
async fn names_a_retry_after_if_asked() {
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
async fn answers_as_a_test_wrote_it() {
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
async fn survives_any_status() {
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
async fn an_outage_uses_up_no_failures() {
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
async fn the_token_endpoint_waits_before_it_issues() {
    let latency = Duration::from_millis(80);
    let server = MockAuthServer::builder()
        .token_latency(latency)
        .start()
        .await
        .unwrap();
    let started = Instant::now();
    assert_eq!(post_form(&server, FORM).await.status, 200);
    assert!(started.elapsed() >= latency);

    // A client that hangs up gets no token.
    server.set_token_latency(secs(60));
    let hung_up = tokio::time::timeout(latency, post_form(&server, FORM)).await;
    assert!(hung_up.is_err());
    assert_eq!((server.token_requests(), server.tokens_issued()), (2, 1));
    assert_eq!(server.token_log().len(), 1);

    server.set_token_latency(Duration::ZERO);
    let started = Instant::now();
    post_form(&server, FORM).await;
    assert!(started.elapsed() < secs(30));
}

#[tokio::test]
async fn a_life_counts_from_the_receipt_of_the_request() {
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
async fn a_paused_clock_changes_nothing() {
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

// ---- The API ----

#[tokio::test]
async fn the_api_takes_a_good_token() {
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
async fn the_api_challenges() {
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
async fn the_api_refuses_what_expired_or_was_revoked() {
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
async fn a_short_life_ends() {
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
async fn the_api_refuses_everything_if_asked() {
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
async fn the_api_judges_before_it_waits() {
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
async fn redirects_where_it_is_told() {
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
async fn uploads_need_no_token_and_tell_of_one() {
    let server = start().await;
    for (headers, carried) in [
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
            ("/upload/a", carried)
        );
    }
    assert_eq!((server.api_requests(), server.api_unauthorized()), (2, 0));
}

#[tokio::test]
async fn other_paths_are_unknown() {
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
async fn reads_bodies_to_the_end() {
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
async fn refuses_bodies_that_are_too_long() {
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
async fn a_client_that_breaks_off_is_counted_but_not_recorded() {
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

// ---- Connections ----

#[tokio::test]
async fn keeps_connections_alive() {
    let server = start().await;
    let token = post_form(&server, FORM).await.token();
    let mut stream = connect(&server).await;
    for _ in 0..50 {
        let request =
            format!("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 200);
    }
    assert_eq!(server.api_requests(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stands_many_connections_at_once() {
    // Far more would need a higher limit of descriptors than is usual.
    let (clients, rounds) = (200, 5);
    let server = start().await;
    let token = post_form(&server, FORM).await.token();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let address = server.origin().strip_prefix("http://").unwrap().to_owned();
        let request =
            format!("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        tasks.spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
            for _ in 0..rounds {
                stream.write_all(request.as_bytes()).await.unwrap();
                assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 200);
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(server.api_requests(), clients * rounds);
    assert_eq!(server.api_log().len(), clients * rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_fetches_get_tokens_of_their_own() {
    let server = start().await;
    let mut tasks = JoinSet::new();
    for tenant in 0..50 {
        let address = server.origin().strip_prefix("http://").unwrap().to_owned();
        tasks.spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
            let form = format!("{FORM}&scope=tenant/{tenant}");
            stream
                .write_all(&raw("POST", "/token", &[FORM_TYPE], form.as_bytes()))
                .await
                .unwrap();
            let answer = read_answer(&mut stream, false).await.unwrap();
            assert_eq!(answer.json()["scope"], format!("tenant/{tenant}"));
            answer.token()
        });
    }
    let tokens: HashSet<_> = tasks.join_all().await.into_iter().collect();
    assert_eq!((tokens.len(), server.tokens_issued()), (50, 50));
}

#[tokio::test]
async fn shutdown_closes_port_and_connections() {
    let server = MockAuthServer::builder()
        .api_latency(secs(60))
        .start()
        .await
        .unwrap();
    let address = server.origin().strip_prefix("http://").unwrap().to_owned();
    let mut idle = connect(&server).await;
    let mut busy = connect(&server).await;
    busy.write_all(b"GET /upload HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    wait_until(|| server.api_requests() == 1).await;
    server.shutdown().await;
    assert!(read_answer(&mut idle, false).await.is_err());
    assert!(read_answer(&mut busy, false).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn dropping_it_closes_port_and_connections() {
    let server = start().await;
    let address = server.origin().strip_prefix("http://").unwrap().to_owned();
    let mut idle = connect(&server).await;
    drop(server);
    assert!(read_answer(&mut idle, false).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_start_that_is_dropped_leaves_nothing_behind() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;
    for _ in 0..20 {
        let mut start = pin!(MockAuthServer::start());
        // The drop that follows waits for the thread: it hangs if the thread doesn't stop.
        let _ = start
            .as_mut()
            .poll(&mut Context::from_waker(std::task::Waker::noop()));
    }
}

#[tokio::test]
async fn servers_do_not_share_tokens() {
    let (one, other) = (start().await, start().await);
    post_form(&one, FORM).await;
    assert_eq!(get_api(&other, "mock-access-token-1").await.status, 401);
}

// ---- Bounds of what is kept ----

#[test]
fn live_tokens_are_never_forgotten() {
    let mut tokens = Tokens::new(0);
    let now = Instant::now();
    let (_, oldest) = tokens.issue(now, secs(900), None);
    for _ in 0..100_100 {
        tokens.issue(now, secs(1), None);
    }
    assert!(tokens.look_up(&oldest, now).unwrap().valid);

    let later = now + secs(1000);
    let (number, newest) = tokens.issue(later, secs(900), None);
    assert_eq!((number, tokens.issued()), (100_102, 100_102));
    let forgotten = tokens.look_up(&oldest, later).unwrap();
    assert_eq!((forgotten.number, forgotten.valid), (1, false));
    assert!(tokens.look_up(&newest, later).unwrap().valid);
    tokens.revoke_all();
    assert!(!tokens.look_up(&newest, later).unwrap().valid);
}

#[test]
fn the_token_log_drops_its_oldest() {
    let mut log = TokenLog::default();
    for number in 0..KEPT_RECORDS + 3 {
        log.push(TokenRecord {
            at: Duration::ZERO,
            status: StatusCode::OK,
            client_authentication: ClientAuthenticationSeen::None,
            scope: None,
            params: [].into(),
            accept: None,
            token_number: Some(number),
        });
    }
    let kept = log.to_vec();
    assert_eq!(
        (kept.len(), kept[0].token_number()),
        (KEPT_RECORDS, Some(3))
    );
}

#[test]
fn the_api_log_drops_its_oldest_bodies_and_records() {
    let record = |body: &bytes::Bytes| ApiRecord {
        at: Duration::ZERO,
        method: Method::GET,
        path: "/api".into(),
        query: None,
        status: StatusCode::OK,
        has_authorization: false,
        token_number: None,
        scope: None,
        body_len: body.len(),
        body: Some(body.clone()),
    };
    let mut log = ApiLog::default();
    let body = bytes::Bytes::from(vec![0; KEPT_BODIES / 4]);
    for _ in 0..6 {
        log.push(record(&body));
    }
    let bodies = |log: &ApiLog| -> Vec<bool> {
        log.to_vec()
            .iter()
            .map(|record| record.body().is_some())
            .collect()
    };
    assert_eq!(bodies(&log), [false, false, true, true, true, true]);

    let small = bytes::Bytes::from_static(b"x");
    for _ in 0..KEPT_RECORDS - 1 {
        log.push(record(&small));
    }
    let kept = bodies(&log);
    assert_eq!(kept.len(), KEPT_RECORDS);
    // The first small one cost the third large one its body; the first five records went.
    assert!(kept.iter().all(|body| *body));
}

// ---- A client that hides nothing ----

const FORM_TYPE: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn token(&self) -> String {
        self.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

async fn start() -> MockAuthServer {
    MockAuthServer::start().await.unwrap()
}

async fn post_form(server: &MockAuthServer, form: &str) -> Answer {
    call(server, "POST", "/token", &[FORM_TYPE], form.as_bytes()).await
}

async fn post_basic(server: &MockAuthServer, credentials: &str) -> Answer {
    let basic = format!("basic {}", STANDARD.encode(credentials));
    let headers = [FORM_TYPE, ("Authorization", basic.as_str())];
    call(
        server,
        "POST",
        "/token",
        &headers,
        b"grant_type=client_credentials",
    )
    .await
}

async fn get_api(server: &MockAuthServer, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    call(server, "GET", "/api", &[("Authorization", &bearer)], b"").await
}

async fn call(
    server: &MockAuthServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    try_call(server, method, path, headers, body).await.unwrap()
}

async fn try_call(
    server: &MockAuthServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = connect(server).await;
    stream.write_all(&raw(method, path, headers, body)).await?;
    read_answer(&mut stream, method == "HEAD").await
}

fn raw(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    [request.as_bytes(), body].concat()
}

async fn connect(server: &MockAuthServer) -> BufReader<TcpStream> {
    let address = server.origin().strip_prefix("http://").unwrap();
    BufReader::new(TcpStream::connect(address).await.unwrap())
}

async fn read_answer(stream: &mut BufReader<TcpStream>, head_only: bool) -> io::Result<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let mut answer = Answer {
        status: status.ok_or(io::ErrorKind::UnexpectedEof)?,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        answer
            .headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = answer
        .header("content-length")
        .map_or(0, |value| value.parse().unwrap());
    if !head_only {
        answer.body = vec![0; length];
        stream.read_exact(&mut answer.body).await?;
    }
    Ok(answer)
}

async fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
