//! The little that this crate reads of JSON Web Tokens (RFC 7519). It verifies nothing.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

/// Returns the time in the `exp` claim (RFC 7519 §4.1.4), if `token` is a JWT that has one.
pub(crate) fn expiry(token: &str) -> Option<SystemTime> {
    let mut parts = token.split('.');
    let payload = parts.nth(1)?;
    // Header, payload, signature: five parts are encrypted, and cannot be read.
    if parts.count() != 1 {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    let since_epoch = Duration::try_from_secs_f64(claims.exp).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn exp_is_read_from_a_jwt_and_from_nothing_else() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(
            expiry(&token(r#"{"sub":"x","exp":1790000000}"#)),
            Some(at(1_790_000_000))
        );
        assert_eq!(expiry(&token(r#"{"exp":5e0}"#)), Some(at(5)));
        for unreadable in [
            "",
            "opaque",
            "a.b",
            "a.b.c",
            "a.b.c.d.e",
            &token("{}"),
            &token("[]"),
            &token(r#"{"exp":"1790000000"}"#),
            &token(r#"{"exp":-1}"#),
            &token(r#"{"exp":1e300}"#),
        ] {
            assert_eq!(expiry(unreadable), None, "{unreadable}");
        }
    }
}
