//! Properties of any response.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// A text that can be a token, but not an error code, so that no error may show it.
const MARKER: &str = "do<not>log";

/// Generates members of a token response, well-formed or not, with the marker anywhere.
fn marked() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        MARKER.to_owned(),
        format!("{MARKER} "),
        format!("\n{MARKER}"),
        format!("invalid_client{MARKER}"),
    ]);
    let value = prop_oneof![
        4 => text.prop_map(Value::String),
        1 => Just(json!([MARKER])),
        1 => Just(json!({ MARKER: MARKER })),
        1 => Just(Value::Null),
    ];
    let names = [
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "error",
        "error_description",
    ];
    let name = prop::sample::select([names.as_slice(), &[MARKER]].concat());
    btree_map(name, value, 0..7).prop_map(|members| {
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    })
}

/// Generates bodies that resemble a token response.
fn plausible_body() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        "[ -~]{0,8}".prop_map(|text| json!(text)),
        any::<String>().prop_map(|text| json!(text)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        Just(json!("bearer")),
        Just(json!(null)),
        Just(json!([{}])),
    ];
    (value.clone(), value.clone(), value.clone(), value).prop_map(|(token, kind, lifetime, scope)| {
        let kind = if kind.is_number() {
            json!("Bearer")
        } else {
            kind
        };
        json!({"access_token": token, "token_type": kind, "expires_in": lifetime, "scope": scope})
            .to_string()
            .into_bytes()
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        1 => vec(prop::sample::select(br#"{}[]":,0-e.\ "#.as_slice()), 0..60),
        2 => plausible_body(),
        1 => (plausible_body(), any::<Index>(), any::<u8>()).prop_map(|(mut body, at, byte)| {
            let at = at.index(body.len());
            body[at] = byte;
            body
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_response_is_a_valid_token_or_an_error(
        status in prop_oneof![3 => Just(200_u16), 1 => 100..1_000_u16],
        body in any_bytes(),
        retry_after in vec(any::<u8>(), 0..20),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = retry_after.try_into() {
            headers.insert(RETRY_AFTER, value);
        }
        let status = StatusCode::from_u16(status).unwrap();
        if let Ok(token) = parse(status, &headers, Some(&body)) {
            prop_assert!(status.is_success());
            let value = token.expose_secret();
            prop_assert!(!value.is_empty() && value.bytes().all(|byte| (0x21..=0x7E).contains(&byte)));
            match token.lifetime() {
                Lifetime::Unspecified => {}
                Lifetime::Limited(lifetime) => {
                    prop_assert!(!lifetime.is_zero() && lifetime <= Duration::from_secs(315_360_000));
                }
                Lifetime::Ended => {}
                Lifetime::Unlimited => prop_assert!(false, "no response sets this"),
            }
        }
    }

    #[test]
    fn no_error_shows_the_body(
        status in prop_oneof![1 => Just(200_u16), 1 => 100..1_000_u16],
        members in marked(),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut body = members.to_string();
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        match read(status, &body) {
            Ok(token) => prop_assert!(token.expose_secret().contains(MARKER)),
            Err(error) => {
                let output = all_output(&error);
                prop_assert!(!output.contains(MARKER), "{}", output);
            }
        }
    }
}
