//! Edge cases: shapes that serde would accept, and numbers out of any range.

use super::*;

// serde would read an array as the members in order.
#[test]
fn array_is_not_a_token_response() {
    for body in [r#"["a"]"#, r#"["a","Bearer",3600,"scope"]"#] {
        assert!(read(200, body).is_err(), "{body}");
    }
}

// The pause is at least as long as `Retry-After`, whatever the status is.
#[test]
fn invalid_200_keeps_its_retry_after() {
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

// An invalid `expires_in` does not invalidate the token.
#[test]
fn token_with_an_out_of_range_expires_in_is_accepted() {
    let token = read(200, r#"{"access_token":"a","expires_in":1e400}"#).unwrap();
    assert_ne!(token.lifetime(), Lifetime::Unlimited);
}

// Rust's own parser would accept these as infinite.
#[test]
fn infinity_is_not_a_number() {
    for expires_in in [r#""inf""#, r#""Infinity""#, r#""+infinity""#] {
        assert_eq!(
            lifetime_of(expires_in),
            Lifetime::Unspecified,
            "{expires_in}"
        );
    }
}
