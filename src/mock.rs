//! Mocks for tests: a token source that needs no server, and a server on loopback.

#[cfg(feature = "mock-server")]
pub(crate) mod server;
#[cfg(feature = "mock")]
pub(crate) mod source;
