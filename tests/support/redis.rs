//! A Redis server of one's own, on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server that ends with this value.
pub(crate) struct RedisServer {
    port: u16,
    folder: PathBuf,
    args: Vec<String>,
    child: Option<Child>,
}

/// Returns true if the server is installed. Says so if not, or fails in CI, except on Windows, which
/// Redis does not support.
pub(crate) fn redis_is_installed() -> bool {
    let is_installed = ["redis-server", "redis-cli"].into_iter().all(|program| {
        let version = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    });
    if !is_installed {
        let note = "`redis-server` or `redis-cli` is missing: apt-get install redis-server";
        assert!(cfg!(windows) || std::env::var_os("CI").is_none(), "{note}");
        eprintln!("skipped: {note}");
    }
    is_installed
}

impl RedisServer {
    /// Starts a server on a free port, without a file of its data.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut server = Self::stopped(args);
        server.restart();
        server
    }

    /// Reserves a port for a server that is started later.
    pub(crate) fn stopped(args: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bearer-auth-redis-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            port,
            folder,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            child: None,
        }
    }

    /// Starts the server again on the same port, without its data.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let port = self.port.to_string();
        let args = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let child = Command::new("redis-server")
            .args(&self.args)
            .args(args)
            .arg("--dir")
            .arg(&self.folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "redis-server does not start"
            );
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal to the server: `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(status.unwrap().success());
    }

    #[allow(dead_code)] // Not every test needs it, nor the next two.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    #[allow(dead_code)]
    pub(crate) fn folder(&self) -> &PathBuf {
        &self.folder
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Runs a command and returns its raw answer.
    #[allow(dead_code)]
    pub(crate) fn command(&self, args: &[&str]) -> Vec<u8> {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &port])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success());
        output.stdout
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
