//! The stacks around the peers: HTTP clients, and stand-ins for them without sockets.

pub(crate) mod reqwest;
pub(crate) mod tower;

use http::HeaderValue;

/// A token as long as those of the mock server.
pub(crate) const STATIC_TOKEN: &str = "mock-access-token-1";

/// Returns the header value with that token.
pub(crate) fn static_header() -> HeaderValue {
    let mut value = HeaderValue::from_static("Bearer mock-access-token-1");
    value.set_sensitive(true);
    value
}

/// Returns true if the canned API responds with 200 to this header.
pub(crate) fn carries_token(authorization: Option<&HeaderValue>) -> bool {
    authorization.is_some_and(|value| value.as_bytes().starts_with(b"Bearer mock-access-token-"))
}
