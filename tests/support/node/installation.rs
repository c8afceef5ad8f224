//! Installs a server's npm packages once, or returns the reason why they cannot be installed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs, io, process};

const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };
const OLDEST_NODE: (u32, u32) = (20, 19);
const FILES: [&str; 3] = ["package.json", "package-lock.json", "server.mjs"];

/// A server's folder in `tests/servers`, copied and installed when it is first needed.
pub(crate) struct Installation {
    server: &'static str,
    done: OnceLock<Result<PathBuf, String>>,
}

impl Installation {
    pub(crate) const fn new(server: &'static str) -> Self {
        Self {
            server,
            done: OnceLock::new(),
        }
    }

    /// Returns the folder to run `node server.mjs` in, or `None` if the server's tests must be
    /// skipped. In this case a notice has been printed.
    ///
    /// # Panics
    ///
    /// Panics instead of skipping if the environment variable `CI` is set.
    pub(crate) fn folder(&self) -> Option<&Path> {
        let Self { server, done } = self;
        let is_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
        let folder = done.get_or_init(|| {
            let folder = install(server);
            if let (Err(reason), false) = (&folder, is_ci) {
                notice(&format!("SKIPPED, all tests with {server}: {reason}"));
            }
            folder
        });
        match folder {
            Ok(folder) => Some(folder),
            Err(reason) if is_ci => panic!("not skipped because CI is set: {reason}"),
            Err(_) => None,
        }
    }
}

/// Prints a notice even if the test passes. The test harness captures `eprintln!`.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn install(server: &str) -> Result<PathBuf, String> {
    let node = version("node")?;
    let mut numbers = node
        .trim_start_matches('v')
        .split('.')
        .map_while(|it| it.parse().ok());
    let found = numbers.next().zip(numbers.next());
    if found.is_none_or(|found: (u32, u32)| found < OLDEST_NODE) {
        let (major, minor) = OLDEST_NODE;
        return Err(format!(
            "node is {node}, and {major}.{minor} or later is required"
        ));
    }
    version(NPM)?;

    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/servers")
        .join(server);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // The name contains a hash of the files, so an installed folder never changes.
    let mut hasher = DefaultHasher::new();
    for file in FILES {
        fs::read(source.join(file)).unwrap().hash(&mut hasher);
    }
    let folder = target.join(format!("{server}-{:016x}", hasher.finish()));
    if folder.join("node_modules").is_dir() {
        return Ok(folder);
    }

    // Installed under another name and then renamed, so that other test processes never see a part.
    let draft = target.join(format!("{server}-draft-{}", process::id()));
    let _ = fs::remove_dir_all(&draft);
    fs::create_dir_all(&draft).unwrap();
    for file in FILES {
        fs::copy(source.join(file), draft.join(file)).unwrap();
    }
    let installed = npm_ci(&draft);
    if installed.is_ok()
        && let Err(error) = fs::rename(&draft, &folder)
        && !folder.join("node_modules").is_dir()
    {
        panic!("cannot rename to {}, remove it: {error}", folder.display());
    }
    // It still exists if the installation failed or another process was faster.
    let _ = fs::remove_dir_all(&draft);
    installed.map(|()| folder)
}

fn npm_ci(folder: &Path) -> Result<(), String> {
    let output = Command::new(NPM)
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        // By default npm retries for minutes without a network.
        .args([
            "--fetch-retry-mintimeout=500",
            "--fetch-retry-maxtimeout=2000",
            "--fetch-timeout=30000",
        ])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("npm err"))
        .take(4)
        .collect();
    Err(format!(
        "`npm ci` failed ({}). Can it reach its registry? Its errors:\n{}",
        output.status,
        errors.join("\n")
    ))
}

fn version(program: &str) -> Result<String, String> {
    match Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => Err(format!("`{program} --version` failed ({})", output.status)),
        Err(error) => Err(format!("`{program}` cannot be started: {error}")),
    }
}
