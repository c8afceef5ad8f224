//! Recipes for libraries that bring an HTTP client or a token callback of their own.
//!
//! Each module has one recipe of at most ten lines (the trait's signatures not counted), and a test
//! in which the API rejects a revoked token and the host's call succeeds nevertheless. Copy the
//! recipe that you need; this package is not published.

pub mod iceberg;
pub mod kafka;
pub mod kubernetes;
pub mod object_storage;
pub mod telemetry;

#[cfg(test)]
mod testing;
