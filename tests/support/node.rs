//! Node.js servers of other projects: their installation, their processes, their responses.

pub(crate) mod installation;
pub(crate) mod process;

use serde_json::Value;

use super::stack::ApiResponse;

/// Parses the body of a response from a server's API, which is always JSON.
pub(crate) fn json(response: &ApiResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}
