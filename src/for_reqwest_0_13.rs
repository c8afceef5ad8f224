//! The code for reqwest 0.13 and reqwest-middleware 0.5.
//!
//! Each of these files is compiled once for each version. They import the version as
//! `super::client` and `super::client_middleware`.

use reqwest as client;
#[cfg(feature = "reqwest-middleware")]
use reqwest_middleware as client_middleware;

#[path = "policy/replay/reqwest.rs"]
pub(crate) mod body;
#[cfg(feature = "reqwest-middleware")]
#[path = "reqwest_middleware.rs"]
mod middleware;
#[path = "service/reqwest.rs"]
mod service;
#[cfg(feature = "client-credentials")]
#[path = "token_endpoint/transport/reqwest.rs"]
pub(crate) mod transport;
#[path = "exchange/reqwest.rs"]
mod views;
