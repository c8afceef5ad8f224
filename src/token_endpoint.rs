//! The token endpoint (RFC 6749 §3.2): what is sent there, how, and what comes back.

pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod transport;
