//! The client's side of the token endpoint (RFC 6749 §3.2), the same for every grant.
//!
//! ```text
//! Grant ─▶ TokenEndpoint ─▶ Authentication ─▶ Form ─▶ Transport ─▶ response
//! (fields)                  (credentials)
//! ```
//!
//! A grant is its fields of the form. Authentication adds the client's credentials, the transport
//! sends the request, and `response` reads a token or a typed error from the answer.

pub(crate) mod assertion;
pub(crate) mod authentication;
pub(crate) mod builder;
pub(crate) mod client;
pub(crate) mod credential_file;
pub(crate) mod discovery;
pub(crate) mod form;
pub(crate) mod response;
pub(crate) mod secret_file;
pub(crate) mod transport;
pub(crate) mod try_limit;
pub(crate) mod url;
