//! Error responses of the token endpoint.

use std::time::SystemTime;

use super::*;

#[test]
fn kind_and_transience_follow_from_status_and_error_code() {
    use Kind::*;

    let (permanent, transient) = (false, true);
    for (status, code, kind, is_transient) in [
        // The code decides in a 4xx and in a 200.
        (400, "invalid_client", InvalidClient, permanent),
        (401, "invalid_client", InvalidClient, permanent),
        (400, "unauthorized_client", InvalidClient, permanent),
        (400, "invalid_scope", InvalidScope, permanent),
        (400, "invalid_target", InvalidScope, permanent),
        (400, "unsupported_grant_type", Refused, permanent),
        (400, "invalid_grant", Refused, permanent),
        (400, "invalid_request", Refused, permanent),
        (400, "", Refused, permanent),
        (403, "access_denied", Refused, permanent),
        (404, "", Refused, permanent),
        (418, "", Refused, permanent),
        (499, "", Refused, permanent),
        (400, "too_many_requests", Throttled, transient),
        (400, "slow_down", Throttled, transient),
        (400, "temporarily_unavailable", Unavailable, transient),
        (400, "server_error", Unavailable, transient),
        (400, "unknown_error", Unavailable, transient),
        (200, "server_error", Unavailable, transient),
        (200, "invalid_client", InvalidClient, permanent),
        (200, "unauthorized_client", InvalidClient, permanent),
        (200, "invalid_scope", InvalidScope, permanent),
        (200, "invalid_target", InvalidScope, permanent),
        (200, "unsupported_grant_type", Refused, permanent),
        (200, "slow_down", Throttled, transient),
        (200, "invalid_grant", InvalidResponse, transient),
        (200, "no such code", InvalidResponse, transient),
        // Otherwise the status decides, whatever the code is.
        (408, "invalid_client", Unavailable, transient),
        (408, "", Unavailable, transient),
        (429, "invalid_client", Throttled, transient),
        (429, "", Throttled, transient),
        (500, "invalid_client", Unavailable, transient),
        (500, "", Unavailable, transient),
        (502, "unauthorized_client", Unavailable, transient),
        (503, "invalid_scope", Unavailable, transient),
        (599, "unsupported_grant_type", Unavailable, transient),
        (302, "", Redirected, permanent),
        (307, "temporarily_unavailable", Redirected, permanent),
        (302, "server_error", Redirected, permanent),
        (399, "", Redirected, permanent),
        (101, "", InvalidResponse, transient),
        (600, "", InvalidResponse, transient),
    ] {
        let body = if code.is_empty() {
            json!({})
        } else {
            json!({ "error": code })
        };
        let error = read_error(status, body.to_string());
        let actual = (error.kind(), error.is_transient());
        let expected = if status == 200 && code.is_empty() {
            (InvalidResponse, transient)
        } else {
            (kind, is_transient)
        };
        assert_eq!(actual, expected, "{status} {code}");
        assert_eq!(error.status().unwrap().as_u16(), status);
    }
}

#[test]
fn error_response_needs_no_readable_body() {
    for body in [
        "",
        "<html>",
        "null",
        "[]",
        r#"{"error":{"code":401}}"#,
        r#"{"error":""}"#,
    ] {
        let error = read_error(401, body);
        assert_eq!(
            (error.kind(), error.oauth_error()),
            (Kind::Refused, None),
            "{body}"
        );
        assert_eq!(read_error(503, body).kind(), Kind::Unavailable, "{body}");
    }
}

#[test]
fn error_in_a_200_overrides_its_token() {
    let error = read_error(200, r#"{"access_token":"a","error":"invalid_client"}"#);
    assert_eq!(error.oauth_error(), Some("invalid_client"));
    for none in [r#""""#, "null", "0", "false"] {
        let body = format!(r#"{{"access_token":"a","error":{none}}}"#);
        assert!(read(200, body).is_ok(), "{none}");
    }
}

#[test]
fn error_code_is_kept_if_it_is_short_and_safe() {
    let code = |code: &str| {
        let error = read_error(
            400,
            json!({"error": code, "error_description": "d"}).to_string(),
        );
        assert_eq!(error.error_description(), Some("d"));
        error.oauth_error().map(str::to_owned)
    };
    let (longest, too_long) = ("x".repeat(64), "x".repeat(65));
    for safe in ["invalid_client", "A.b-9_", "x", &longest] {
        assert_eq!(code(safe).as_deref(), Some(safe));
    }
    for dropped in [
        "a b",
        "a\n",
        "a\u{1b}[31m",
        "a:b",
        "a/b",
        "<b>",
        "\u{e9}",
        &too_long,
    ] {
        assert_eq!(code(dropped), None, "{dropped:?}");
    }
}

#[test]
fn error_description_is_shown_only_by_its_accessor() {
    let error = read_error(
        401,
        r#"{"error":"invalid_client","error_description":"no client x1y2"}"#,
    );
    assert_eq!(error.error_description(), Some("no client x1y2"));
    let output = all_output(&error);
    assert!(!output.contains("x1y2"), "{output}");
    assert!(
        error.to_string().contains("(invalid_client, HTTP 401)"),
        "{error}"
    );
    assert_eq!(
        read_error(401, r#"{"error":"a"}"#).error_description(),
        None
    );
}

fn retry_after_of(status: u16, value: &[u8]) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, value.try_into().unwrap());
    let status = StatusCode::from_u16(status).unwrap();
    let error = parse(status, &headers, Some(br#"{"error":"slow_down"}"#)).unwrap_err();
    error.retry_after()
}

#[test]
fn retry_after_in_seconds_is_kept() {
    for status in [200, 302, 400, 401, 429, 500, 503] {
        assert_eq!(
            retry_after_of(status, b"120"),
            Some(Duration::from_secs(120)),
            "{status}"
        );
    }
    assert_eq!(retry_after_of(503, b"0"), Some(Duration::ZERO));
    assert_eq!(retry_after_of(503, b" 7 "), Some(Duration::from_secs(7)));
    assert_eq!(
        retry_after_of(503, b"99999999999999999999999"),
        Some(Duration::from_secs(u64::MAX))
    );
}

#[test]
fn retry_after_may_be_a_date() {
    let date = |time| httpdate::fmt_http_date(time).into_bytes();
    let in_an_hour = SystemTime::now() + Duration::from_secs(3_600);
    let wait = retry_after_of(503, &date(in_an_hour)).unwrap().as_secs();
    assert!((3_500..=3_600).contains(&wait), "{wait} s");
    let past = SystemTime::now() - Duration::from_secs(3_600);
    assert_eq!(retry_after_of(503, &date(past)), Some(Duration::ZERO));
    for form in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
    ] {
        assert_eq!(
            retry_after_of(503, form.as_bytes()),
            Some(Duration::ZERO),
            "{form}"
        );
    }
}

#[test]
fn retry_after_as_a_date_counts_from_the_date_of_the_response() {
    let response_time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let wait = |date: &[u8], until: SystemTime| {
        let headers = HeaderMap::from_iter([
            (DATE, date.try_into().unwrap()),
            (
                RETRY_AFTER,
                httpdate::fmt_http_date(until).try_into().unwrap(),
            ),
        ]);
        retry_after(&headers)
    };
    let date = httpdate::fmt_http_date(response_time).into_bytes();
    let later = response_time + Duration::from_secs(20);
    assert_eq!(wait(&date, later), Some(Duration::from_secs(20)));
    assert_eq!(
        wait(&date, response_time - Duration::from_secs(20)),
        Some(Duration::ZERO)
    );
    // The local clock stands in for a `Date` that cannot be read.
    for invalid in [&b"yesterday"[..], b"", b"\xFF"] {
        assert_eq!(wait(invalid, later), Some(Duration::ZERO));
        let in_an_hour = wait(invalid, SystemTime::now() + Duration::from_secs(3_600));
        assert!((3_500..=3_600).contains(&in_an_hour.unwrap().as_secs()));
    }
}

#[test]
fn any_other_retry_after_is_ignored() {
    for value in [
        &b""[..],
        b"-1",
        b"+1",
        b"1.5",
        b"1s",
        b"soon",
        b"1, 2",
        b"\xFF",
        b"1994-11-06",
    ] {
        assert_eq!(
            retry_after_of(503, value),
            None,
            "{}",
            String::from_utf8_lossy(value)
        );
    }
    assert_eq!(read_error(503, "").retry_after(), None);
}
