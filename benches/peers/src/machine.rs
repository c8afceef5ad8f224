//! The machine and the package versions of a run.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::peers::{BoxError, Peer};

/// The lock file that this binary was built with.
const LOCKFILE: &str = include_str!("../Cargo.lock");

/// Packages that several stacks use and whose versions affect the figures.
const COMMON: [&str; 6] = [
    "hyper",
    "hyper-util",
    "reqwest",
    "reqwest-middleware",
    "tokio",
    "tower",
];

#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) rustc: &'static str,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model
            .and_then(|line| line.split_once(':'))
            .map(|(_, name)| name.trim());
        Self {
            cpu: model.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            rustc: env!("RUSTC_VERSION"),
        }
    }
}

/// Returns the current date and time in UTC, to the second.
pub(crate) fn date() -> Result<String, BoxError> {
    let now = OffsetDateTime::now_utc();
    Ok(now.replace_nanosecond(0)?.format(&Rfc3339)?)
}

/// Returns the versions of the relevant packages from Cargo.lock, several if several are in use.
pub(crate) fn versions(peers: &[Box<dyn Peer>]) -> BTreeMap<&'static str, Vec<&'static str>> {
    let of_peers = peers
        .iter()
        .flat_map(|peer| peer.packages().iter().copied());
    let packages = of_peers.chain(COMMON);
    packages.map(|package| (package, locked(package))).collect()
}

fn locked(package: &str) -> Vec<&'static str> {
    let name = format!("name = \"{package}\"");
    let mut lines = LOCKFILE.lines();
    let mut versions = Vec::new();
    while let Some(line) = lines.next() {
        if line == name {
            let version = lines
                .next()
                .and_then(|line| line.strip_prefix("version = "));
            versions.extend(version.map(|version| version.trim_matches('"')));
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_version_of_each_package() {
        let versions = versions(&crate::peers::all());
        assert!(versions.len() > COMMON.len());
        for (package, versions) in versions {
            assert!(!versions.is_empty(), "{package} is not in Cargo.lock");
        }
    }
}
