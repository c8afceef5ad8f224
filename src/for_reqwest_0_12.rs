//! The code for reqwest 0.12 and reqwest-middleware 0.4.
//!
//! The same files as in `for_reqwest_0_13.rs`.

use reqwest_0_12 as client;
#[cfg(feature = "reqwest-middleware-0-4")]
use reqwest_middleware_0_4 as client_middleware;

#[path = "policy/replay/reqwest.rs"]
pub(crate) mod body;
#[cfg(feature = "reqwest-middleware-0-4")]
#[path = "reqwest_middleware.rs"]
mod middleware;
#[path = "service/reqwest.rs"]
mod service;
// With both versions, the default client is that of 0.13.
#[cfg_attr(feature = "reqwest", allow(dead_code))]
#[cfg(feature = "client-credentials")]
#[path = "token_endpoint/transport/reqwest.rs"]
pub(crate) mod transport;
#[path = "exchange/reqwest.rs"]
mod views;
