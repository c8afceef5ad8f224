//! The life of a token that is a JWT (RFC 7519), as its claims say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The times in a JWT's claims (RFC 7519 §4.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct JwtTimes {
    pub(crate) expires_at: SystemTime,
    // Only `FileTokenSource` uses it.
    #[cfg_attr(not(feature = "token-file"), allow(dead_code))]
    pub(crate) issued_at: Option<SystemTime>,
}

impl JwtTimes {
    /// Reads the times of a signed JWT (RFC 7515 §7.1). Returns `None` for any other token, and for
    /// one without `exp`.
    ///
    /// The signature is not verified: that is the work of those who accept the token.
    pub(crate) fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        let claims: Map<String, Value> = serde_json::from_slice(&claims).ok()?;
        let time = |name| time(claims.get(name)?.as_f64()?);
        let expires_at = time("exp")?;
        Some(Self {
            expires_at,
            issued_at: time("iat").filter(|issued_at| *issued_at < expires_at),
        })
    }
}

/// Returns the time of a `NumericDate` (RFC 7519 §2).
fn time(seconds: f64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn times_of_a_signed_jwt_are_read() {
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        for (claims, expires_at, issued_at) in [
            (r#"{"exp":900}"#, 900, None),
            (r#"{"iat":100,"exp":900,"sub":"x"}"#, 900, Some(100)),
            (r#"{"iat":100.0,"exp":9e2}"#, 900, Some(100)),
            (r#"{"iat":900,"exp":900}"#, 900, None),
            (r#"{"iat":-1,"exp":900}"#, 900, None),
            (r#"{"iat":"100","exp":900}"#, 900, None),
        ] {
            let times = JwtTimes {
                expires_at: at(expires_at),
                issued_at: issued_at.map(at),
            };
            assert_eq!(JwtTimes::read(&jwt(claims)), Some(times), "{claims}");
        }
    }

    #[test]
    fn other_tokens_have_no_times() {
        for token in [
            String::new(),
            "opaque".to_owned(),
            "a.b.c".to_owned(),
            "e30.e30.c2ln".to_owned(),
            format!("{}.d.e", jwt(r#"{"exp":900}"#)),
            jwt(r#"{"exp":"900"}"#),
            jwt(r#"{"exp":-900}"#),
            jwt(r#"{"exp":1e300}"#),
            jwt(r#"[900]"#),
        ] {
            assert_eq!(JwtTimes::read(&token), None, "{token}");
        }
    }
}
