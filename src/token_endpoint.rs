//! The client's side of the token endpoint (RFC 6749 §3.2): the token request, its transport, and
//! the response.

pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod transport;
pub(crate) mod try_limit;
