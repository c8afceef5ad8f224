//! Runs a server as a child process.

use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::installation::Installation;

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server, which is stopped when this is dropped.
pub(crate) struct Process {
    /// Killed on drop. Should that fail, the end of its stdin, which it owns, stops the server.
    _child: Child,
}

impl Process {
    /// Starts a server and parses the line that it prints when it is ready. Returns `None` if its
    /// tests must be skipped.
    pub(crate) async fn start<R: DeserializeOwned>(
        installation: &Installation,
    ) -> Option<(Self, R)> {
        let mut child = Command::new("node")
            .arg("server.mjs")
            .current_dir(installation.folder()?)
            // The server is copied to another folder, the certificates are not.
            .env(
                "TEST_TLS_FOLDER",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/tls"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::spawn(forward(
            BufReader::new(child.stderr.take().unwrap()).lines(),
        ));
        let line = timeout(START_LIMIT, stdout.next_line())
            .await
            .expect("the server took too long to start")
            .unwrap()
            .expect("the server ended before it was ready");
        Some((Self { _child: child }, serde_json::from_str(&line).unwrap()))
    }
}

/// Forwards the server's stderr to the output of the test.
async fn forward(mut stderr: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(line)) = stderr.next_line().await {
        eprintln!("server: {line}");
    }
}
