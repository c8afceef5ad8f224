//! Authorization servers of other projects, which run on Node.js (`tests/servers`).

pub(crate) mod installation;
pub(crate) mod process;

use serde_json::Value;

use super::stack::ApiResponse;

/// Parses the body of a response of a server's API, which is always JSON.
pub(crate) fn json_body(response: &ApiResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}
