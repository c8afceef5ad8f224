//! What the peers go through: one module a scenario. Each returns numbers, and judges nothing.

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

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    /// To see that everything works; its numbers mean little.
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

/// What a peer did in a scenario.
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
    /// It has no such thing, for this reason.
    None(&'static str),
    /// The scenario could not be run.
    Failed(String),
}

impl<T> Row<T> {
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

/// Takes all peers through a scenario so many times. In each round all have their turn, each time
/// from another one on.
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
            let place = (first + turn) % peers.len();
            let peer = &*peers[place];
            if let (None, Ok(found)) = (peer.lacks(scenario), &mut samples[place]) {
                match on_new_runtime(round(peer)) {
                    Ok(sample) => found.push(sample),
                    Err(error) => samples[place] = Err(error.to_string()),
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

/// A runtime for each: nothing that one peer leaves running is there when the next is measured.
fn on_new_runtime<T>(run: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run)
}
