//! A server's process.

use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::installation::Installation;

const START_LIMIT: Duration = Duration::from_secs(30);

/// A server that runs, and ends when this is dropped.
pub(crate) struct Process {
    /// Killed on drop; its stdin, which is in here too, tells it to end should that fail.
    _child: Child,
}

impl Process {
    /// Starts one, and reads the line that it prints when it is ready; `None` if its tests are to be
    /// skipped.
    pub(crate) async fn start<R: DeserializeOwned>(
        installation: &Installation,
    ) -> Option<(Self, R)> {
        let mut child = Command::new("node")
            .arg("server.mjs")
            .current_dir(installation.folder()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::spawn(repeat(BufReader::new(child.stderr.take().unwrap()).lines()));
        let line = timeout(START_LIMIT, stdout.next_line())
            .await
            .expect("the server took too long to start")
            .unwrap()
            .expect("the server ended before it was ready");
        Some((Self { _child: child }, serde_json::from_str(&line).unwrap()))
    }
}

/// Passes the server's words on to whoever reads the output of a test that failed.
async fn repeat(mut stderr: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(line)) = stderr.next_line().await {
        eprintln!("server: {line}");
    }
}
