//! Corners: shapes that serde would take, numbers beyond all bounds.

use super::*;

/// Rule 15: no JSON object, no token response.
#[test]
fn an_array_is_no_token_response() {
    for body in [r#"["a"]"#, r#"["a","Bearer",3600,"scope"]"#] {
        assert!(read(200, body).is_err(), "{body}");
    }
}

/// Rules 13 and 14: "where the response named a Retry-After".
#[test]
fn a_200_that_is_no_token_response_keeps_its_retry_after() {
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, "120".parse().unwrap());
    for body in [Some(&b"<html>Maintenance"[..]), Some(b"{}"), None] {
        let error = parse(OK, &headers, body).unwrap_err();
        assert_eq!(
            error.retry_after(),
            Some(Duration::from_secs(120)),
            "{body:?}"
        );
    }
}

/// Rule 4: the token is accepted all the same.
#[test]
fn a_number_beyond_all_bounds_costs_no_token() {
    let token = read(200, r#"{"access_token":"a","expires_in":1e400}"#).unwrap();
    assert_ne!(token.lifetime(), Lifetime::Unlimited);
}

/// Rule 4: garbage means the default life; a numeric string has digits.
#[test]
fn infinity_is_no_number() {
    for expires_in in [r#""inf""#, r#""Infinity""#, r#""+infinity""#] {
        assert_eq!(life(expires_in), Lifetime::Unspecified, "{expires_in}");
    }
}
