//! Node, and a server's packages: found and installed once, or a reason why not.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs, io, process};

const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };
const OLDEST_NODE: (u32, u32) = (20, 19);
const FILES: [&str; 3] = ["package.json", "package-lock.json", "server.mjs"];

/// One server's folder here, copied and installed when it is first asked for.
pub(crate) struct Installation {
    server: &'static str,
    done: OnceLock<Result<PathBuf, String>>,
}

impl Installation {
    /// Of the server in the folder of this name.
    pub(crate) const fn of(server: &'static str) -> Self {
        Self {
            server,
            done: OnceLock::new(),
        }
    }

    /// The folder from which `node server.mjs` works; `None` if the server's tests are to be
    /// skipped, which has then been said.
    ///
    /// # Panics
    ///
    /// If there is no such folder and the environment says `CI`: nothing is skipped there.
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
            Err(reason) if is_ci => panic!("CI is set, so this is no reason to skip: {reason}"),
            Err(_) => None,
        }
    }
}

/// Says something about a test that passes. Not by `eprintln!`: the test harness keeps that to itself.
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
            "node is {node}, and {major}.{minor} is the oldest that will do"
        ));
    }
    version(NPM)?;

    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/servers")
        .join(server);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Named by what it is made of: never changed once it is there, and made anew by any change.
    let mut hasher = DefaultHasher::new();
    for file in FILES {
        fs::read(source.join(file)).unwrap().hash(&mut hasher);
    }
    let folder = target.join(format!("{server}-{:016x}", hasher.finish()));
    if folder.join("node_modules").is_dir() {
        return Ok(folder);
    }

    // Made aside, so that other test processes see all of it or nothing.
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
        panic!(
            "{} can't be put in place, remove it: {error}",
            folder.display()
        );
    }
    // Still there if it failed, or if another process was first.
    let _ = fs::remove_dir_all(&draft);
    installed.map(|()| folder)
}

fn npm_ci(folder: &Path) -> Result<(), String> {
    let output = Command::new(NPM)
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        // Without a network its usual patience is minutes.
        .args([
            "--fetch-retry-mintimeout=500",
            "--fetch-retry-maxtimeout=2000",
            "--fetch-timeout=30000",
        ])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm can't be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let told: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("npm err"))
        .take(4)
        .collect();
    Err(format!(
        "`npm ci` failed ({}). Can it reach its registry? It said:\n{}",
        output.status,
        told.join("\n")
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
        Err(error) => Err(format!(
            "there is no `{program}` that can be started: {error}"
        )),
    }
}
