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

/// Generates values that no member should have, as a server may write them.
fn bad_value() -> impl Strategy<Value = Vec<u8>> {
    let values: &[&[u8]] = &[
        b"null",
        b"{}",
        b"[[{\"error\":\"x\",\"access_token\":\"x\"}]]",
        b"1e400",
        b"-99999999999999999999999999999999",
        b"NaN",
        b"-Infinity",
        b"undefined",
        b"'x'",
        b"\"\"",
        b"\"\\ud800\"",
        b"\"\\udc00\\ud800\"",
        b"\"\\ud83d\\u0041\"",
        b"\"\\u12\"",
        b"\"\\x41\"",
        b"\"\xE9\"",
        b"\"\xFF\xFE\x00A\"",
        b"\"line\nbreak\t\x00\"",
    ];
    let text = vec(any::<u8>(), 0..12).prop_map(|mut text| {
        text.retain(|byte| !b"\"\\".contains(byte));
        [b"\"", &text[..], b"\""].concat()
    });
    prop_oneof![
        3 => prop::sample::select(values).prop_map(<[u8]>::to_vec),
        1 => text,
    ]
}

/// Generates members with bad values, each with a name from `names` or one that is not read.
fn bad_members(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let other: &[&[u8]] = &[
        b"x",
        b"",
        b"\xE9",
        b"\\ud800",
        b"error\xFF",
        b"Access_Token",
    ];
    let known = names.iter().map(|name| name.as_bytes());
    let name = prop::sample::select(known.chain(other.iter().copied()).collect::<Vec<_>>());
    let member =
        (name, bad_value()).prop_map(|(name, value)| [b"\"", name, b"\":", &value[..]].concat());
    vec(member, 0..6)
}

/// Returns an object with these members, in an order of choice.
fn object(mut members: Vec<Vec<u8>>, order: &[Index]) -> Vec<u8> {
    for (at, other) in order.iter().enumerate().take(members.len()) {
        let other = other.index(members.len());
        members.swap(at, other);
    }
    [b"{", &members.join(&b" , "[..])[..], b"}"].concat()
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
                Lifetime::Unspecified | Lifetime::Ended => {}
                Lifetime::Limited(lifetime) => {
                    prop_assert!(!lifetime.is_zero() && lifetime <= Duration::from_secs(315_360_000));
                }
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

    #[test]
    fn bad_members_never_hide_the_token(
        bad in bad_members(&["scope", "expires_in", "error_description"]),
        order in vec(any::<Index>(), 8),
    ) {
        let mut members = bad;
        members.push(br#""access_token":"t1""#.to_vec());
        members.push(br#""token_type":"bearer""#.to_vec());
        let body = object(members, &order);
        let token = read(200, &body);
        let shown = String::from_utf8_lossy(&body);
        let token = token.map_err(|error| TestCaseError::fail(format!("{shown}: {error:?}")))?;
        prop_assert_eq!(token.expose_secret(), "t1");
    }

    #[test]
    fn bad_members_never_hide_the_error_code(
        status in prop::sample::select(vec![200, 400, 401]),
        bad in bad_members(&["access_token", "token_type", "scope", "expires_in",
            "error_description"]),
        order in vec(any::<Index>(), 8),
    ) {
        let mut members = bad;
        members.push(br#""error":"invalid_client""#.to_vec());
        let body = object(members, &order);
        let error = read_error(status, &body);
        let shown = String::from_utf8_lossy(&body);
        prop_assert_eq!(error.oauth_error(), Some("invalid_client"), "{}", shown);
        prop_assert_eq!(error.kind(), Kind::InvalidClient);
    }

    #[test]
    fn of_repeated_members_the_last_one_counts(
        tokens in vec("[!#-\\[\\]-~]{1,9}", 1..4),
        scopes in vec(any::<String>(), 1..4),
        lives in vec(1..1_000_u32, 1..4),
        order in vec(any::<Index>(), 9),
    ) {
        let mut members = Vec::new();
        members.extend(tokens.iter().map(|it| ("access_token", json!(it))));
        members.extend(scopes.iter().map(|it| ("scope", json!(it))));
        members.extend(lives.iter().map(|it| ("expires_in", json!(it))));
        for (at, other) in order.iter().enumerate().take(members.len()) {
            let other = other.index(members.len());
            members.swap(at, other);
        }
        let last = |name| members.iter().rfind(|member| member.0 == name).unwrap().1.clone();
        let body: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let token = read(200, format!("{{{}}}", body.join(","))).unwrap();
        prop_assert_eq!(json!(token.expose_secret()), last("access_token"));
        prop_assert_eq!(json!(token.scope().unwrap()), last("scope"));
        let life = last("expires_in").as_f64().unwrap();
        prop_assert_eq!(token.lifetime(), limited(life));
    }

    /// Valid JSON means the same after the repair, in any notation of its strings.
    #[test]
    fn valid_json_is_read_unchanged(text in any::<String>(), is_escaped in any::<bool>()) {
        let written = if is_escaped {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<String>())
        } else {
            json!(text).to_string()
        };
        let body = format!(r#"{{"access_token":"a","scope":{written}}}"#);
        let token = read(200, body).unwrap();
        prop_assert_eq!(token.scope(), Some(&*text));
    }
}
