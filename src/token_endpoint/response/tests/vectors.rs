//! The test cases of other projects.

use std::collections::BTreeMap;

use super::*;

/// The cases that this crate reads differently from their source, with the result in the notation
/// of [`shown`].
const DEPARTURES: &[(&str, &str)] = &[
    // An `expires_in` that cannot be read does not invalidate the token.
    ("go-expiry-false", "a token of unknown lifetime"),
    ("go-expiry-object", "a token of unknown lifetime"),
    ("go-expiry-zzz", "a token of unknown lifetime"),
    ("o4w-expires-date", "a token of unknown lifetime"),
    // The maximum lifetime is ten years.
    ("go-expiry-over-i32", "a token for 315360000 s"),
    // An absent `token_type` means Bearer.
    ("o4w-no-token-type", "a token of unknown lifetime"),
    // Any other type is an error.
    ("go-token-type-2", NOT_BEARER),
    ("go-token-type-3", NOT_BEARER),
    ("go-token-type-4", NOT_BEARER),
    ("go-token-type-5", NOT_BEARER),
    ("go-token-type-6", NOT_BEARER),
    ("oauthlib-full", NOT_BEARER),
    ("oauthlib-noscope", NOT_BEARER),
    ("oauthlib-noexpire", NOT_BEARER),
    ("oauthlib-expire-null", NOT_BEARER),
    ("azure-zero", NOT_BEARER),
    // A token response is JSON.
    ("go-form-body", NOT_JSON),
    ("oauthlib-urlencoded", NOT_JSON),
    ("oauthlib-urlencoded-error", NOT_JSON),
];
const NOT_BEARER: &str = "an error: the `token_type` is not Bearer (RFC 6750)";
const NOT_JSON: &str = "an error: the body is not a JSON object";

/// Every case is read as its source reads it, or is listed in `DEPARTURES` with the result.
///
/// The results agree if both are tokens or both are errors, and if token, header, scope, error
/// code, description and lifetime in seconds are the same, as far as the source states them.
#[test]
fn cases_of_other_projects() {
    let cases = include_str!("../../../../tests/vectors/token-responses.json");
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
    let mut departures: BTreeMap<_, _> = DEPARTURES.iter().copied().collect();
    assert_eq!(departures.len(), DEPARTURES.len(), "a case is listed twice");
    let mut problems = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let status = case["status"].as_u64().unwrap().try_into().unwrap();
        let result = read(status, case["body"].as_str().unwrap());
        let agrees = agree(&result, &case["expected"]);
        let ours = shown(&result);
        match departures.remove(id) {
            None if !agrees => problems.push(format!("{id} differs, but is not listed: {ours}")),
            Some(_) if agrees => problems.push(format!("{id} is listed, but agrees")),
            Some(listed) if listed != ours => {
                problems.push(format!("{id} is listed as {listed}, but is {ours}"));
            }
            _ => {}
        }
    }
    problems.extend(
        departures
            .keys()
            .map(|id| format!("{id} is listed, but there is no such case")),
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn agree(ours: &Result<AccessToken, TokenError>, expected: &Value) -> bool {
    let states = |name: &str, value: Option<&str>| {
        expected
            .get(name)
            .is_none_or(|expected| expected.as_str() == value)
    };
    match ours {
        Ok(token) => {
            let lifetime = match token.lifetime() {
                Lifetime::Limited(lifetime) => Some(lifetime.as_secs()),
                _ => None,
            };
            expected["ok"] == true
                && states("access_token", Some(token.expose_secret()))
                && states("authorization_header", token.authorization().to_str().ok())
                && states("scope", token.scope())
                && expected
                    .get("expires_in")
                    .is_none_or(|expected| expected.as_u64() == lifetime)
        }
        Err(error) => {
            expected["ok"] == false
                && states("error", error.oauth_error())
                && states("error_description", error.error_description())
        }
    }
}

/// Returns a short description of a result.
fn shown(result: &Result<AccessToken, TokenError>) -> String {
    match result {
        Ok(token) => match token.lifetime() {
            Lifetime::Limited(lifetime) => format!("a token for {} s", lifetime.as_secs()),
            _ => "a token of unknown lifetime".to_owned(),
        },
        Err(error) => match error.oauth_error() {
            Some(code) => format!("the error {code}"),
            None => format!("an error: {}", cause(error)),
        },
    }
}
