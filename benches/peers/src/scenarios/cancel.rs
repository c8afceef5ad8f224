//! The caller that fetches is dropped while others wait for its token.
//!
//! Responses come without a socket, as in the herd scenario.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::{Row, Scale, Scenario, in_rounds};
use crate::peers::{Auth, BoxError, Peer};
use crate::server::{Api, Server};
use crate::stats::Spread;

const TOKEN_LATENCY: Duration = Duration::from_millis(50);
const OTHERS: usize = 100;

/// The time after which the first caller is dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(10);

/// The time after which a waiting caller counts as failed.
const FAILED_AFTER: Duration = Duration::from_secs(10);

#[derive(Serialize)]
pub(crate) struct Cancel {
    pub(crate) others: usize,
    pub(crate) rounds: usize,
    pub(crate) token_latency_ms: f64,
    /// The number of the other callers that got a 200.
    pub(crate) answered_200: Spread,
    pub(crate) token_requests: Spread,
    /// The slowest of the other callers in each round, in ms since the first call.
    pub(crate) slowest_ms: Spread,
}

struct Sample {
    answered_200: usize,
    token_requests: usize,
    slowest: Duration,
}

pub(crate) fn measure(peers: &[Box<dyn Peer>], scale: Scale) -> Vec<Row<Cancel>> {
    let rounds = scale.of(15, 2);
    in_rounds(peers, Scenario::Cancel, rounds, round, |samples| Cancel {
        others: OTHERS,
        rounds,
        token_latency_ms: TOKEN_LATENCY.as_secs_f64() * 1e3,
        answered_200: Spread::of_counts(samples.iter().map(|it| it.answered_200)),
        token_requests: Spread::of_counts(samples.iter().map(|it| it.token_requests)),
        slowest_ms: Spread::of(samples.iter().map(|it| it.slowest.as_secs_f64() * 1e3)),
    })
}

async fn round(peer: &dyn Peer) -> Result<Sample, BoxError> {
    let server = Server::start(Api::Canned, Duration::from_secs(900), TOKEN_LATENCY).await?;
    let client = peer.connect(server.target(), Auth::Peer).await?;

    let start = Instant::now();
    let first = {
        let client = client.clone();
        tokio::spawn(async move { client.call().await })
    };
    while server.mock().token_requests() == 0 && start.elapsed() < FAILED_AFTER {
        sleep(Duration::from_millis(1)).await;
    }
    let mut others = JoinSet::new();
    for _ in 0..OTHERS {
        let client = client.clone();
        others.spawn(async move {
            let response = timeout(FAILED_AFTER, client.call()).await;
            (matches!(response, Ok(Ok(200))), start.elapsed())
        });
    }
    sleep_until((start + DROPPED_AFTER).into()).await;
    first.abort();

    let responses = others.join_all().await;
    Ok(Sample {
        answered_200: responses.iter().filter(|(ok, _)| *ok).count(),
        token_requests: server.mock().token_requests(),
        slowest: responses
            .iter()
            .map(|(_, took)| *took)
            .max()
            .unwrap_or_default(),
    })
}
