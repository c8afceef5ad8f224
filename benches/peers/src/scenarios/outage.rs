//! The token endpoint responds with 503 under a steady load, until after the token has expired.
//!
//! The outage starts right after the first token was issued, since some peers cannot be built
//! without one. It ends 5 s after that token has expired. The load continues until a caller gets a
//! 200.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Row, Scale, Scenario, in_rounds};
use crate::peers::{Auth, BoxError, Peer};
use crate::server::{Api, Server};
use crate::stats::Spread;

const CALLERS_PER_SECOND: u32 = 200;
const LIFETIME: Duration = Duration::from_secs(4);

/// The time after the outage at which a peer counts as not recovered.
const RECOVERY_LIMIT: Duration = Duration::from_secs(40);

#[derive(Serialize)]
pub(crate) struct Outage {
    pub(crate) rounds: usize,
    pub(crate) callers_per_second: u32,
    pub(crate) seconds: f64,
    /// The expiry of the first token, in seconds since the outage began.
    pub(crate) token_expired_at_s: f64,
    /// The number during the outage.
    pub(crate) token_requests: Spread,
    /// The number during the outage after the token has expired.
    pub(crate) token_requests_without_token: Spread,
    /// The number of calls during the outage with this response.
    pub(crate) answered_200: Spread,
    pub(crate) answered_401: Spread,
    /// Errors and other responses.
    pub(crate) errors: Spread,
    /// The slowest call that began during the outage.
    pub(crate) slowest_ms: Spread,
    /// The time from the end of the outage to the first 200, in rounds in which this took at most
    /// 40 s.
    pub(crate) recovered_after_s: Spread,
    /// The number of other rounds.
    pub(crate) not_recovered: usize,
    /// The times of the token requests, in seconds since the outage began, in the round with the
    /// median number of them.
    pub(crate) token_requests_at_s: Vec<f64>,
}

struct Sample {
    token_requests: usize,
    token_requests_without_token: usize,
    answered_200: usize,
    answered_401: usize,
    errors: usize,
    slowest: Duration,
    recovered_after: Option<Duration>,
    token_requests_at_s: Vec<f64>,
}

pub(crate) fn measure(peers: &[Box<dyn Peer>], scale: Scale) -> Vec<Row<Outage>> {
    let rounds = scale.of(3, 1);
    let length = LIFETIME + scale.of(Duration::from_secs(5), Duration::from_secs(2));
    let round = |peer| round(peer, length);
    in_rounds(peers, Scenario::Outage, rounds, round, |samples| {
        conclude(samples, length)
    })
}

/// One finished call.
struct Response {
    began: Instant,
    ended: Instant,
    status: Option<u16>,
}

async fn round(peer: &dyn Peer, length: Duration) -> Result<Sample, BoxError> {
    let server = Server::start(Api::Loopback, LIFETIME, Duration::ZERO).await?;
    let client = peer.connect(server.target(), Auth::Peer).await?;
    let status = client.call().await?;
    if status != 200 {
        return Err(format!("unexpected status {status} with the first token").into());
    }

    server.mock().set_outage(true);
    let start = Instant::now();
    let end = start + length;
    let mut over = false;
    let mut recovered = None;
    let mut responses = Vec::new();
    let mut running = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLERS_PER_SECOND);
    while recovered.is_none() && start.elapsed() < length + RECOVERY_LIMIT {
        ticks.tick().await;
        if !over && Instant::now() >= end {
            server.mock().set_outage(false);
            over = true;
        }
        let client = client.clone();
        running.spawn(async move {
            let began = Instant::now();
            let status = client.call().await.ok();
            Response {
                began,
                ended: Instant::now(),
                status,
            }
        });
        while let Some(response) = running.try_join_next() {
            let response = response?;
            if response.status == Some(200) && response.ended >= end {
                recovered.get_or_insert(response.ended);
            }
            responses.push(response);
        }
    }
    responses.extend(running.join_all().await);

    let at = server.token_requests_since(start);
    let (lifetime, length) = (LIFETIME.as_secs_f64(), length.as_secs_f64());
    let between = |from| at.iter().filter(|at| (from..length).contains(*at)).count();
    let in_outage = || responses.iter().filter(|response| response.began < end);
    let count = |status| {
        in_outage()
            .filter(|response| response.status == Some(status))
            .count()
    };
    Ok(Sample {
        token_requests: between(0.0),
        token_requests_without_token: between(lifetime),
        answered_200: count(200),
        answered_401: count(401),
        errors: in_outage().count() - count(200) - count(401),
        slowest: in_outage()
            .map(|it| it.ended - it.began)
            .max()
            .unwrap_or_default(),
        recovered_after: recovered.map(|recovered| recovered - end),
        token_requests_at_s: at,
    })
}

fn conclude(mut samples: Vec<Sample>, length: Duration) -> Outage {
    samples.sort_by_key(|sample| sample.token_requests);
    let counts = |of: fn(&Sample) -> usize| Spread::of_counts(samples.iter().map(of));
    let recovered = samples
        .iter()
        .filter_map(|it| Some(it.recovered_after?.as_secs_f64()));
    let mut outage = Outage {
        rounds: samples.len(),
        callers_per_second: CALLERS_PER_SECOND,
        seconds: length.as_secs_f64(),
        token_expired_at_s: LIFETIME.as_secs_f64(),
        token_requests: counts(|it| it.token_requests),
        token_requests_without_token: counts(|it| it.token_requests_without_token),
        answered_200: counts(|it| it.answered_200),
        answered_401: counts(|it| it.answered_401),
        errors: counts(|it| it.errors),
        slowest_ms: Spread::of(samples.iter().map(|it| it.slowest.as_secs_f64() * 1e3)),
        recovered_after_s: Spread::of(recovered),
        not_recovered: samples
            .iter()
            .filter(|it| it.recovered_after.is_none())
            .count(),
        token_requests_at_s: Vec::new(),
    };
    let middle = samples.len() / 2;
    if let Some(sample) = samples.into_iter().nth(middle) {
        outage.token_requests_at_s = sample.token_requests_at_s;
    }
    outage
}
