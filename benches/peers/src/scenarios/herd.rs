//! Concurrent callers without a token yet.
//!
//! Responses come without a socket, so that only the wait for the token is measured. The
//! measurement starts before the client is built, so that it includes a token that a peer fetches
//! ahead.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Row, Scale, Scenario, in_rounds};
use crate::peers::{Auth, BoxError, Peer};
use crate::server::{Api, Server};
use crate::stats::Spread;

const TOKEN_LATENCY: Duration = Duration::from_millis(50);

#[derive(Serialize)]
pub(crate) struct Herd {
    pub(crate) callers: usize,
    pub(crate) rounds: usize,
    pub(crate) token_latency_ms: f64,
    pub(crate) token_requests: Spread,
    /// The total of all rounds.
    pub(crate) not_answered_200: usize,
    /// The median caller of each round, relative to the token endpoint's latency.
    pub(crate) median_ratio: Spread,
    /// The slowest caller of each round, relative to the same.
    pub(crate) slowest_ratio: Spread,
}

struct Sample {
    token_requests: usize,
    not_answered_200: usize,
    ratios: Spread,
}

pub(crate) fn measure(peers: &[Box<dyn Peer>], scale: Scale) -> Vec<Row<Herd>> {
    measure_with(peers, scale.of((1_000, 15), (100, 2)))
}

/// Measures the same with so many callers that waking them takes a part of the time.
pub(crate) fn measure_large(peers: &[Box<dyn Peer>], scale: Scale) -> Vec<Row<Herd>> {
    measure_with(peers, scale.of((10_000, 15), (1_000, 2)))
}

fn measure_with(peers: &[Box<dyn Peer>], (callers, rounds): (usize, usize)) -> Vec<Row<Herd>> {
    in_rounds(
        peers,
        Scenario::Herd,
        rounds,
        |peer| round(peer, callers),
        |samples| Herd {
            callers,
            rounds,
            token_latency_ms: TOKEN_LATENCY.as_secs_f64() * 1e3,
            token_requests: Spread::of_counts(samples.iter().map(|it| it.token_requests)),
            not_answered_200: samples.iter().map(|it| it.not_answered_200).sum(),
            median_ratio: Spread::of(samples.iter().map(|it| it.ratios.median)),
            slowest_ratio: Spread::of(samples.iter().map(|it| it.ratios.most)),
        },
    )
}

async fn round(peer: &dyn Peer, callers: usize) -> Result<Sample, BoxError> {
    let server = Server::start(Api::Canned, Duration::from_secs(900), TOKEN_LATENCY).await?;
    let start = Instant::now();
    let client = peer.connect(server.target(), Auth::Peer).await?;
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let client = client.clone();
        running.spawn(async move { (client.call().await, start.elapsed()) });
    }
    let responses = running.join_all().await;
    let ratio = |took: &Duration| took.as_secs_f64() / TOKEN_LATENCY.as_secs_f64();
    Ok(Sample {
        token_requests: server.mock().token_requests(),
        not_answered_200: responses
            .iter()
            .filter(|(it, _)| !matches!(it, Ok(200)))
            .count(),
        ratios: Spread::of(responses.iter().map(|(_, took)| ratio(took))),
    })
}
