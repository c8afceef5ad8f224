//! The scenarios, one module each. They return numbers without a verdict.

use std::future::Future;

use serde::Serialize;

use crate::peers::{BoxError, Peer};

pub(crate) mod cancel;
pub(crate) mod herd;
pub(crate) mod hot_path;
pub(crate) mod outage;
pub(crate) mod revocation;
pub(crate) mod rollover;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Herd,
    Rollover,
    Cancel,
    Outage,
    Revocation,
}

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    /// Shows that everything works. Its numbers are not meaningful.
    Quick,
}

impl Scale {
    pub(crate) fn of<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// The result of one peer in one scenario.
#[derive(Serialize)]
pub(crate) struct Row<T> {
    pub(crate) peer: &'static str,
    #[serde(flatten)]
    pub(crate) outcome: Outcome<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome<T> {
    Measured(T),
    /// The peer has nothing to measure, for this reason.
    None(&'static str),
    /// The scenario failed with this error.
    Failed(String),
}

impl<T> Row<T> {
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

/// Runs a scenario with all peers, `rounds` times. The peers take turns, and each round starts with
/// the next peer.
fn in_rounds<'a, S, T, F>(
    peers: &'a [Box<dyn Peer>],
    scenario: Scenario,
    rounds: usize,
    round: impl Fn(&'a dyn Peer) -> F,
    conclude: impl Fn(Vec<S>) -> T,
) -> Vec<Row<T>>
where
    F: Future<Output = Result<S, BoxError>>,
{
    let mut samples: Vec<_> = peers.iter().map(|_| Ok(Vec::new())).collect();
    for first in 0..rounds {
        for turn in 0..peers.len() {
            let index = (first + turn) % peers.len();
            let peer = &*peers[index];
            if let (None, Ok(collected)) = (peer.lacks(scenario), &mut samples[index]) {
                match on_new_runtime(round(peer)) {
                    Ok(sample) => collected.push(sample),
                    Err(error) => samples[index] = Err(error.to_string()),
                }
            }
        }
    }
    let rows = peers.iter().zip(samples).map(|(peer, samples)| Row {
        peer: peer.name(),
        outcome: match (peer.lacks(scenario), samples) {
            (Some(reason), _) => Outcome::None(reason),
            (None, Ok(samples)) => Outcome::Measured(conclude(samples)),
            (None, Err(error)) => Outcome::Failed(error),
        },
    });
    rows.collect()
}

/// Runs on a new runtime, so that no task of one peer runs while the next one is measured.
fn on_new_runtime<T>(run: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run)
}
