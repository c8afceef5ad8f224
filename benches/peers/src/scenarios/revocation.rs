//! Concurrent requests over loopback with a token that the server has just revoked.

use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Row, Scale, Scenario, in_rounds};
use crate::peers::{Auth, BoxError, Peer};
use crate::server::{Api, Server};
use crate::stats::Spread;

const CONCURRENT: usize = 100;
const TOKEN_LATENCY: Duration = Duration::from_millis(50);

/// Time for token requests that no caller waits for.
const AFTERMATH: Duration = Duration::from_millis(200);

#[derive(Serialize)]
pub(crate) struct Revocation {
    pub(crate) concurrent: usize,
    pub(crate) rounds: usize,
    pub(crate) token_latency_ms: f64,
    pub(crate) answered_200: Spread,
    /// Errors, and responses other than 200 and 401, in all rounds.
    pub(crate) errors: usize,
    pub(crate) token_requests: Spread,
    /// Requests that the API received.
    pub(crate) api_requests: Spread,
}

struct Sample {
    answered_200: usize,
    errors: usize,
    token_requests: usize,
    api_requests: usize,
}

pub(crate) fn measure(peers: &[Box<dyn Peer>], scale: Scale) -> Vec<Row<Revocation>> {
    let rounds = scale.of(15, 2);
    in_rounds(peers, Scenario::Revocation, rounds, round, |samples| {
        Revocation {
            concurrent: CONCURRENT,
            rounds,
            token_latency_ms: TOKEN_LATENCY.as_secs_f64() * 1e3,
            answered_200: Spread::of_counts(samples.iter().map(|it| it.answered_200)),
            errors: samples.iter().map(|it| it.errors).sum(),
            token_requests: Spread::of_counts(samples.iter().map(|it| it.token_requests)),
            api_requests: Spread::of_counts(samples.iter().map(|it| it.api_requests)),
        }
    })
}

async fn round(peer: &dyn Peer) -> Result<Sample, BoxError> {
    let server = Server::start(Api::Loopback, Duration::from_secs(900), TOKEN_LATENCY).await?;
    let client = peer.connect(server.target(), Auth::Peer).await?;
    client.call().await?;
    server.mock().revoke_all();
    let (token_requests, api_requests) = server.counts();

    let mut running = JoinSet::new();
    for _ in 0..CONCURRENT {
        let client = client.clone();
        running.spawn(async move { client.call().await.ok() });
    }
    let responses = running.join_all().await;
    tokio::time::sleep(AFTERMATH).await;

    let count = |status| {
        responses
            .iter()
            .filter(|response| **response == Some(status))
            .count()
    };
    let after = server.counts();
    Ok(Sample {
        answered_200: count(200),
        errors: CONCURRENT - count(200) - count(401),
        token_requests: after.0 - token_requests,
        api_requests: after.1 - api_requests,
    })
}
