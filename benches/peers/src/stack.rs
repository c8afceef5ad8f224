//! The stacks around the peers: their HTTP clients, and the ends that need no socket.

pub(crate) mod reqwest;
pub(crate) mod tower;

use http::HeaderValue;

/// As long as the mock server's tokens.
pub(crate) const STATIC_TOKEN: &str = "mock-access-token-1";

/// Its header.
pub(crate) fn static_header() -> HeaderValue {
    let mut value = HeaderValue::from_static("Bearer mock-access-token-1");
    value.set_sensitive(true);
    value
}

/// Whether a canned API would answer 200.
pub(crate) fn carries_token(authorization: Option<&HeaderValue>) -> bool {
    authorization.is_some_and(|value| value.as_bytes().starts_with(b"Bearer mock-access-token-"))
}
