//! The server and its control requests.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::support::node::installation::Installation;
use crate::support::node::process::Process;

static INSTALLATION: Installation = Installation::new("oidc-provider");

/// An authorization server and a protected API, which are stopped when this is dropped.
pub(crate) struct Server {
    pub(crate) issuer: String,
    /// The private keys of the clients in PEM, by the type of the key.
    pub(crate) keys: HashMap<String, String>,
    pub(crate) token_url: String,
    pub(crate) api_url: String,
    /// The origin of the token endpoint and the API for connections with a certificate.
    pub(crate) mtls_url: String,
    control_url: String,
    client: reqwest::Client,
    _process: Process,
}

/// The line that the server prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    issuer: String,
    keys: HashMap<String, String>,
    token_url: String,
    api_url: String,
    mtls_url: String,
    control_url: String,
}

/// The server's counters since the last reset, without control requests.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) token_requests: usize,
    pub(crate) token_responses_ok: usize,
    /// Token requests with HTTP Basic client authentication.
    pub(crate) token_requests_basic: usize,
    /// Token requests at the endpoint for connections with a certificate.
    pub(crate) token_requests_tls: usize,
    pub(crate) api_requests: usize,
    pub(crate) api_unauthorized: usize,
}

impl Server {
    /// Starts a server, or returns `None` if these tests must be skipped.
    pub(crate) async fn start() -> Option<Self> {
        let (process, ready) = Process::start(&INSTALLATION).await?;
        let Ready {
            issuer,
            keys,
            token_url,
            api_url,
            mtls_url,
            control_url,
        } = ready;
        let client = reqwest::Client::new();
        Some(Self {
            issuer,
            keys,
            token_url,
            api_url,
            mtls_url,
            control_url,
            client,
            _process: process,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api_url)
    }

    pub(crate) async fn counters(&self) -> Counters {
        let request = self.client.get(format!("{}/stats", self.control_url));
        request.send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn reset_counters(&self) {
        self.post("reset").await;
    }

    /// Revokes all tokens and returns their number.
    pub(crate) async fn revoke_all(&self) -> u64 {
        self.post("revoke-all").await["revoked"].as_u64().unwrap()
    }

    /// Returns a refresh token for a client, as after the login of a user.
    pub(crate) async fn log_in(&self, client: &str) -> String {
        let response = self.post(&format!("login/{client}")).await;
        response["refresh_token"].as_str().unwrap().to_owned()
    }

    /// Returns the reason for the last error of the token endpoint.
    pub(crate) async fn last_reason(&self) -> String {
        let request = self.client.get(format!("{}/last-reason", self.control_url));
        let report: Value = request.send().await.unwrap().json().await.unwrap();
        report["reason"].as_str().unwrap_or_default().to_owned()
    }

    async fn post(&self, action: &str) -> Value {
        let request = self.client.post(format!("{}/{action}", self.control_url));
        let response = request.send().await.unwrap().error_for_status().unwrap();
        response.json().await.unwrap()
    }
}
