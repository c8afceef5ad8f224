//! The token endpoint answers 503 at once, while callers go on, until after the token has expired.
//!
//! The outage begins when the first token has just been issued: some peers can't be built without
//! one. It ends 5 s after that token's end. Then callers go on until one is answered 200.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Row, Scale, Scenario, in_rounds};
use crate::peers::{BoxError, Peer, What};
use crate::server::{Api, Server};
use crate::stats::Spread;

const CALLERS_PER_SECOND: u32 = 200;
const LIFETIME: Duration = Duration::from_secs(4);

/// When it counts as not healed.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(40);

#[derive(Serialize)]
pub(crate) struct Outage {
    pub(crate) rounds: usize,
    pub(crate) callers_per_second: u32,
    pub(crate) seconds: f64,
    /// From then on, in seconds after the outage began, there is no token.
    pub(crate) token_expired_at_s: f64,
    /// From the beginning of the outage to its end.
    pub(crate) token_requests: Spread,
    /// The same, after the token's end alone.
    pub(crate) token_requests_without_token: Spread,
    /// Of the callers in the outage.
    pub(crate) answered_200: Spread,
    pub(crate) answered_401: Spread,
    /// Errors, and other answers.
    pub(crate) errors: Spread,
    /// Of the callers that began in the outage.
    pub(crate) slowest_ms: Spread,
    /// From the end of the outage to the first 200, where that was within 40 s.
    pub(crate) healed_after_s: Spread,
    /// Rounds in which it was not.
    pub(crate) not_healed: usize,
    /// When token requests came, in seconds after the outage began, in the round with the median
    /// number of them.
    pub(crate) token_requests_at_s: Vec<f64>,
}

struct Sample {
    token_requests: usize,
    token_requests_without_token: usize,
    answered_200: usize,
    answered_401: usize,
    errors: usize,
    slowest: Duration,
    healed_after: Option<Duration>,
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

/// One call.
struct Answer {
    began: Instant,
    ended: Instant,
    status: Option<u16>,
}

async fn round(peer: &dyn Peer, length: Duration) -> Result<Sample, BoxError> {
    let server = Server::start(Api::Loopback, LIFETIME, Duration::ZERO).await?;
    let client = peer.connect(server.target(), What::Peer).await?;
    let status = client.call().await?;
    if status != 200 {
        return Err(format!("answered {status} with the first token").into());
    }

    server.mock().set_outage(true);
    let start = Instant::now();
    let end = start + length;
    let mut over = false;
    let mut healed = None;
    let mut answers = Vec::new();
    let mut running = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLERS_PER_SECOND);
    while healed.is_none() && start.elapsed() < length + GIVEN_UP_AFTER {
        ticks.tick().await;
        if !over && Instant::now() >= end {
            server.mock().set_outage(false);
            over = true;
        }
        let client = client.clone();
        running.spawn(async move {
            let began = Instant::now();
            let status = client.call().await.ok();
            Answer {
                began,
                ended: Instant::now(),
                status,
            }
        });
        while let Some(answer) = running.try_join_next() {
            let answer = answer?;
            if answer.status == Some(200) && answer.ended >= end {
                healed.get_or_insert(answer.ended);
            }
            answers.push(answer);
        }
    }
    answers.extend(running.join_all().await);

    let at = server.token_requests_since(start);
    let (lifetime, length) = (LIFETIME.as_secs_f64(), length.as_secs_f64());
    let between = |from| at.iter().filter(|at| (from..length).contains(*at)).count();
    let in_outage = || answers.iter().filter(|answer| answer.began < end);
    let count = |status| {
        in_outage()
            .filter(|answer| answer.status == Some(status))
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
        healed_after: healed.map(|healed| healed - end),
        token_requests_at_s: at,
    })
}

fn conclude(mut samples: Vec<Sample>, length: Duration) -> Outage {
    samples.sort_by_key(|sample| sample.token_requests);
    let counts = |of: fn(&Sample) -> usize| Spread::of_counts(samples.iter().map(of));
    let healed = samples
        .iter()
        .filter_map(|it| Some(it.healed_after?.as_secs_f64()));
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
        healed_after_s: Spread::of(healed),
        not_healed: samples
            .iter()
            .filter(|it| it.healed_after.is_none())
            .count(),
        token_requests_at_s: Vec::new(),
    };
    let middle = samples.len() / 2;
    if let Some(sample) = samples.into_iter().nth(middle) {
        outage.token_requests_at_s = sample.token_requests_at_s;
    }
    outage
}
