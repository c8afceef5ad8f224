//! Tests of response parsing. This file has literal cases of token responses; the modules have edge
//! cases, error responses, properties, and the test cases of other projects.

use std::error::Error;

use serde_json::json;

use super::*;
use crate::error::TokenErrorKind as Kind;
use crate::token::Lifetime;

mod edge_cases;
mod errors;
mod properties;
mod vectors;

const OK: StatusCode = StatusCode::OK;

fn read(status: u16, body: impl AsRef<[u8]>) -> Result<AccessToken, TokenError> {
    let status = StatusCode::from_u16(status).unwrap();
    parse(status, &HeaderMap::new(), Some(body.as_ref()))
}

fn read_error(status: u16, body: impl AsRef<[u8]>) -> TokenError {
    read(status, body).unwrap_err()
}

/// Returns the lifetime of a token with this `expires_in`. The token is valid with any value.
fn lifetime_of(expires_in: &str) -> Lifetime {
    let body = format!(r#"{{"access_token":"a","token_type":"Bearer","expires_in":{expires_in}}}"#);
    let token = read(200, body).unwrap();
    assert_eq!(token.expose_secret(), "a", "{expires_in}");
    token.lifetime()
}

fn limited(secs: f64) -> Lifetime {
    Lifetime::Limited(Duration::from_secs_f64(secs))
}

/// Returns `Display` and `Debug` of an error and of all its causes.
fn all_output(error: &TokenError) -> String {
    let mut output = String::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        output += &format!("{error}\n{error:?}\n{error:#?}\n");
        next = error.source();
    }
    output
}

fn cause(error: &TokenError) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn token_response_becomes_a_token() {
    let token = read(
        200,
        r#" {"access_token": "2Yot.nF~Z/+=", "token_type": "Bearer", "expires_in": 3600,
            "refresh_token": "unused", "id_token": null, "ext": {"a": [1, "b"]}} "#,
    )
    .unwrap();
    assert_eq!(token.expose_secret(), "2Yot.nF~Z/+=");
    assert_eq!(token.authorization(), "Bearer 2Yot.nF~Z/+=");
    assert_eq!(token.lifetime(), limited(3_600.0));
    assert_eq!(token.scope(), None);
}

#[test]
fn any_success_status_and_a_byte_order_mark_are_accepted() {
    let body = r#"{"access_token":"a"}"#;
    for status in [200, 201, 203] {
        assert_eq!(read(status, body).unwrap().expose_secret(), "a");
    }
    let marked = read(200, format!("\u{feff}{body}")).unwrap();
    assert_eq!(marked.expose_secret(), "a");
}

#[test]
fn positive_expires_in_is_used_up_to_ten_years() {
    let ten_years = 315_360_000.0;
    for (expires_in, secs) in [
        ("3600", 3_600.0),
        ("1", 1.0),
        ("3600.5", 3_600.5),
        ("3.6e3", 3_600.0),
        ("0.25", 0.25),
        (r#""3600""#, 3_600.0),
        (r#""3600.5""#, 3_600.5),
        (r#"" 3600 ""#, 3_600.0),
        ("315360000", ten_years),
        ("315360001", ten_years),
        ("2147483648", ten_years),
        ("1e12", ten_years),
        ("1e300", ten_years),
        (r#""1e12""#, ten_years),
        ("18446744073709551615", ten_years),
        ("99999999999999999999999", ten_years),
    ] {
        assert_eq!(lifetime_of(expires_in), limited(secs), "{expires_in}");
    }
}

#[test]
fn any_other_expires_in_is_ignored() {
    let plain = "0 -0 0.0 -1 -3600.5 -1e12 1e-300 null true false {} {\"s\":3600} [] [3600]";
    let quoted = "| |0|-3600|NaN|zzz|3600s|3,600|0x10|2100-01-01T00:00:00Z".split('|');
    let quoted = quoted
        .map(|text| json!(text).to_string())
        .collect::<Vec<_>>();
    for expires_in in plain.split(' ').chain(quoted.iter().map(String::as_str)) {
        assert_eq!(
            lifetime_of(expires_in),
            Lifetime::Unspecified,
            "{expires_in}"
        );
    }
    let without = read(200, r#"{"access_token":"a"}"#).unwrap();
    assert_eq!(without.lifetime(), Lifetime::Unspecified);
}

#[test]
fn granted_scope_is_kept() {
    let scope = |members: &str| {
        let token = read(200, format!(r#"{{"access_token":"a"{members}}}"#)).unwrap();
        token.scope().map(str::to_owned)
    };
    assert_eq!(scope(r#","scope":"read""#).as_deref(), Some("read"));
    assert_eq!(
        scope(r#","scope":"read write:all""#).as_deref(),
        Some("read write:all")
    );
    for unusable in [
        "",
        r#","scope":null"#,
        r#","scope":["read"]"#,
        r#","scope":1"#,
    ] {
        assert_eq!(scope(unusable), None, "{unusable}");
    }
}

#[test]
fn token_type_is_absent_or_bearer_in_any_case() {
    for token_type in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let body = json!({"access_token": "a", "token_type": token_type}).to_string();
        assert_eq!(read(200, body).unwrap().expose_secret(), "a");
    }
    assert!(read(200, r#"{"access_token":"a","token_type":null}"#).is_ok());
    for token_type in [
        r#""""#,
        r#""DPoP""#,
        r#""mac""#,
        r#""Bearer ""#,
        "1",
        "{}",
        r#"["Bearer"]"#,
    ] {
        let body = format!(r#"{{"access_token":"a","token_type":{token_type}}}"#);
        let error = read_error(200, body);
        assert_eq!(
            (error.kind(), error.is_transient()),
            (Kind::InvalidResponse, true)
        );
        assert_eq!(
            cause(&error),
            "the `token_type` is not Bearer (RFC 6750)",
            "{token_type}"
        );
    }
}

#[test]
fn invalid_200_is_a_transient_error() {
    let not_json = "the body is not a JSON object in UTF-8";
    let no_token = "the body has no `access_token` that is a string";
    let unsendable = "the `access_token` is not one or more of the bytes 0x21 to 0x7E";
    for (body, text) in [
        (&b""[..], "the body is empty"),
        (b" \r\n", "the body is empty"),
        (b"\xEF\xBB\xBF", "the body is empty"),
        (b"<!DOCTYPE html><title>Maintenance</title>", not_json),
        (b"access_token=a&token_type=bearer", not_json),
        (b"{\"access_token\":\"a\"", not_json),
        (b"{\"access_token\":\"a\"} {}", not_json),
        (b"{\"access_token\":\"\xFF\"}", not_json),
        (b"{\0\"\0a\0", not_json),
        (b"null", not_json),
        (b"\"a\"", not_json),
        (b"42", not_json),
        (b"{}", no_token),
        (b"[]", "the body "),
        (b"{\"token_type\":\"Bearer\",\"expires_in\":60}", no_token),
        (b"{\"access_token\":null}", no_token),
        (b"{\"access_token\":123}", no_token),
        (b"{\"access_token\":{\"value\":\"a\"}}", no_token),
        (b"{\"Access_Token\":\"a\"}", no_token),
        (b"{\"data\":{\"access_token\":\"a\"}}", no_token),
        (b"{\"access_token\":\"\"}", unsendable),
        (b"{\"access_token\":\"a b\"}", unsendable),
        (b"{\"access_token\":\"a\\n\"}", unsendable),
        (b"{\"access_token\":\"a\\r\\nX: y\"}", unsendable),
        (b"{\"access_token\":\"\\u007f\"}", unsendable),
        (b"{\"access_token\":\"\\u00e9\"}", unsendable),
        (b"{\"access_token\":\"\\u0000\"}", unsendable),
    ] {
        let error = read_error(200, body);
        let actual = (
            error.kind(),
            error.is_transient(),
            error.status(),
            error.oauth_error(),
        );
        let shown = String::from_utf8_lossy(body);
        assert_eq!(
            actual,
            (Kind::InvalidResponse, true, Some(OK), None),
            "{shown}"
        );
        assert!(
            cause(&error).starts_with(text),
            "{shown}: {}",
            cause(&error)
        );
    }
}

#[test]
fn too_long_body_is_an_error() {
    let error = parse(OK, &HeaderMap::new(), None).unwrap_err();
    assert_eq!(
        (error.kind(), error.is_transient()),
        (Kind::InvalidResponse, true)
    );
    assert_eq!(cause(&error), "the body is longer than 262144 bytes");
    let error = parse(StatusCode::UNAUTHORIZED, &HeaderMap::new(), None).unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (Kind::Refused, false));
}

#[test]
fn debug_of_a_token_does_not_show_its_value() {
    let token = read(200, r#"{"access_token":"x1y2","expires_in":60}"#).unwrap();
    assert!(!format!("{token:?} {token:#?}").contains("x1y2"));
}
