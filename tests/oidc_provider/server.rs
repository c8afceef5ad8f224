//! The server's process, and its control requests.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::installation::installation;

const START_LIMIT: Duration = Duration::from_secs(30);

/// An authorization server and a protected resource of its own, which end when this is dropped.
pub(crate) struct Server {
    pub(crate) token_url: String,
    pub(crate) api_url: String,
    control_url: String,
    client: reqwest::Client,
    /// Killed on drop; its stdin, which is in here too, tells it to end should that fail.
    _process: Child,
}

/// The line that the server prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    token_url: String,
    api_url: String,
    control_url: String,
}

/// What the server counted since the last reset. Control requests are not in it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) token_requests: usize,
    pub(crate) token_responses_ok: usize,
    /// Those with HTTP Basic client authentication.
    pub(crate) token_requests_basic: usize,
    pub(crate) api_requests: usize,
    pub(crate) api_unauthorized: usize,
}

impl Server {
    /// Starts one; `None` if these tests are to be skipped.
    pub(crate) async fn start() -> Option<Self> {
        let mut process = Command::new("node")
            .arg("server.mjs")
            .current_dir(installation()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        tokio::spawn(repeat(
            BufReader::new(process.stderr.take().unwrap()).lines(),
        ));
        let line = timeout(START_LIMIT, stdout.next_line())
            .await
            .expect("the server took too long to start")
            .unwrap()
            .expect("the server ended before it was ready");
        let Ready {
            token_url,
            api_url,
            control_url,
        } = serde_json::from_str(&line).unwrap();
        let client = reqwest::Client::new();
        Some(Self {
            token_url,
            api_url,
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

    /// Revokes all tokens; how many there were.
    pub(crate) async fn revoke_all(&self) -> u64 {
        self.post("revoke-all").await["revoked"].as_u64().unwrap()
    }

    async fn post(&self, action: &str) -> Value {
        let request = self.client.post(format!("{}/{action}", self.control_url));
        let response = request.send().await.unwrap().error_for_status().unwrap();
        response.json().await.unwrap()
    }
}

/// Passes the server's words on to whoever reads the output of a test that failed.
async fn repeat(mut stderr: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(line)) = stderr.next_line().await {
        eprintln!("server: {line}");
    }
}
