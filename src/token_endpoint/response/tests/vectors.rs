//! The cases of other projects.

use std::collections::BTreeMap;

use super::*;

/// Our reading of the cases in which we differ from their source, in the notation of [`shown`].
const DEPARTURES: &[(&str, &str)] = &[
    // A life that can't be read never costs the token.
    ("go-expiry-false", "a token that names no life"),
    ("go-expiry-object", "a token that names no life"),
    ("go-expiry-zzz", "a token that names no life"),
    ("o4w-expires-date", "a token that names no life"),
    // The longest life is ten years.
    ("go-expiry-over-i32", "a token for 315360000 s"),
    // No `token_type` means Bearer.
    ("o4w-no-token-type", "a token that names no life"),
    // Any other type is refused.
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
    ("go-form-body", NO_JSON),
    ("oauthlib-urlencoded", NO_JSON),
    ("oauthlib-urlencoded-error", NO_JSON),
];
const NOT_BEARER: &str = "an error: the `token_type` is not Bearer (RFC 6750)";
const NO_JSON: &str = "an error: the body is not a JSON object in UTF-8";

/// Every case agrees with its source or is a departure that says how we read it.
///
/// The two agree if one makes a token of it and so does the other; and if, as far as the source
/// says, token, header, scope, code and description are the same, and lives are to the second.
#[test]
fn cases_of_other_projects() {
    let cases = include_str!("../../../../tests/vectors/token-responses.json");
    let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
    let mut departures: BTreeMap<_, _> = DEPARTURES.iter().copied().collect();
    assert_eq!(departures.len(), DEPARTURES.len(), "a case is listed twice");
    let mut wrong = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let status = case["status"].as_u64().unwrap().try_into().unwrap();
        let result = read(status, case["body"].as_str().unwrap());
        let agrees = agree(&result, &case["expected"]);
        let ours = shown(&result);
        match departures.remove(id) {
            None if !agrees => wrong.push(format!("{id} is not listed, but we read {ours}")),
            Some(_) if agrees => wrong.push(format!("{id} is listed, but agrees")),
            Some(listed) if listed != ours => {
                wrong.push(format!("{id} is listed as {listed}, but we read {ours}"));
            }
            _ => {}
        }
    }
    wrong.extend(
        departures
            .keys()
            .map(|id| format!("{id} is listed, but no case")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn agree(ours: &Result<AccessToken, TokenError>, expected: &Value) -> bool {
    let told = |name: &str, value: Option<&str>| {
        expected
            .get(name)
            .is_none_or(|expected| expected.as_str() == value)
    };
    match ours {
        Ok(token) => {
            let life = match token.lifetime() {
                Lifetime::Limited(life) => Some(life.as_secs()),
                _ => None,
            };
            expected["ok"] == true
                && told("access_token", Some(token.expose_secret()))
                && told("authorization_header", token.authorization().to_str().ok())
                && told("scope", token.scope())
                && expected
                    .get("expires_in")
                    .is_none_or(|expected| expected.as_u64() == life)
        }
        Err(error) => {
            expected["ok"] == false
                && told("error", error.oauth_error())
                && told("error_description", error.error_description())
        }
    }
}

/// A result in a phrase.
fn shown(result: &Result<AccessToken, TokenError>) -> String {
    match result {
        Ok(token) => match token.lifetime() {
            Lifetime::Limited(life) => format!("a token for {} s", life.as_secs()),
            _ => "a token that names no life".to_owned(),
        },
        Err(error) => match error.oauth_error() {
            Some(code) => format!("the error {code}"),
            None => format!("an error: {}", cause(error)),
        },
    }
}
