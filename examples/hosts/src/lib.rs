//! Recipes for libraries that bring an HTTP client or a token callback of their own.
//!
//! Each module has one recipe of at most ten statements, and a test in which the API rejects a
//! revoked token and the host's call succeeds nevertheless. Copy the recipe that you need; this
//! package is not published.
//!
//! Most hosts are the real ones. Where a host is too heavy to build here, or is written in C, the
//! recipe implements a trait with the host's signatures, and says so.

pub mod amqp;
pub mod iceberg;
pub mod kafka;
pub mod kubernetes;
pub mod mcp;
pub mod object_storage;
pub mod telemetry;
pub mod token_grants;

#[cfg(test)]
mod testing;
