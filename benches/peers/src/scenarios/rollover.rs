//! A steady load over loopback while short-lived tokens are refreshed.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Row, Scale, Scenario, in_rounds};
use crate::peers::{Auth, BoxError, Peer};
use crate::server::{Api, Server};
use crate::stats::{Spread, percentile, rounded};

const REQUESTS_PER_SECOND: u32 = 500;
const TOKEN_LATENCY: Duration = Duration::from_millis(100);
const LIFETIME: Duration = Duration::from_secs(4);

/// A request that exceeds the run's median by more than this was delayed.
const DELAYED: Duration = Duration::from_millis(50);

/// The overhead of a token request in addition to its latency, and the inaccuracy of clocks.
const TOLERANCE: Duration = Duration::from_millis(10);

/// The time that one point of the plot covers.
const SLOT: Duration = Duration::from_millis(50);

#[derive(Serialize)]
pub(crate) struct Rollover {
    pub(crate) rounds: usize,
    /// In each round.
    pub(crate) requests: usize,
    pub(crate) seconds: u32,
    pub(crate) token_latency_ms: f64,
    pub(crate) token_lifetime_s: f64,
    pub(crate) median_ms: Spread,
    pub(crate) p99_ms: Spread,
    pub(crate) slowest_ms: Spread,
    /// Slower than the median by more than 50 ms, and begun while a token request was in progress.
    pub(crate) delayed: Spread,
    /// As slow, but begun at other times, because of other load on the machine.
    pub(crate) delayed_otherwise: Spread,
    /// The total of all rounds.
    pub(crate) not_answered_200: usize,
    /// Not counting the first token, which is fetched before the load starts.
    pub(crate) token_requests: Spread,
    /// The round with the median number of delayed requests, for the plot.
    pub(crate) plotted: Plotted,
}

#[derive(Default, Serialize)]
pub(crate) struct Plotted {
    pub(crate) slot_ms: f64,
    /// The slowest request that began in each slot, null if there is none.
    pub(crate) slowest_in_slot_ms: Vec<Option<f64>>,
    /// The times of the token requests, in seconds.
    pub(crate) token_requests_at_s: Vec<f64>,
}

struct Sample {
    median_ms: f64,
    p99_ms: f64,
    slowest_ms: f64,
    delayed: usize,
    delayed_otherwise: usize,
    not_answered_200: usize,
    plotted: Plotted,
}

pub(crate) fn measure(peers: &[Box<dyn Peer>], scale: Scale) -> Vec<Row<Rollover>> {
    let round = |peer| round(peer, scale);
    let conclude = |samples| conclude(samples, scale);
    in_rounds(peers, Scenario::Rollover, scale.of(3, 1), round, conclude)
}

fn seconds(scale: Scale) -> u32 {
    scale.of(10, 4)
}

async fn round(peer: &dyn Peer, scale: Scale) -> Result<Sample, BoxError> {
    let server = Server::start(Api::Loopback, LIFETIME, TOKEN_LATENCY).await?;
    let client = peer.connect(server.target(), Auth::Peer).await?;
    client.call().await?;

    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    let mut running = JoinSet::new();
    for _ in 0..seconds(scale) * REQUESTS_PER_SECOND {
        ticks.tick().await;
        let client = client.clone();
        running.spawn(async move {
            let began = Instant::now();
            let response = client.call().await;
            let ms = began.elapsed().as_secs_f64() * 1e3;
            Request {
                began: began - start,
                ms,
                ok: matches!(response, Ok(200)),
            }
        });
    }
    let requests = running.join_all().await;
    let at = server.token_requests_since(start);
    Ok(Sample::of(&requests, at, seconds(scale)))
}

struct Request {
    began: Duration,
    ms: f64,
    ok: bool,
}

impl Sample {
    fn of(requests: &[Request], token_requests_at_s: Vec<f64>, seconds: u32) -> Self {
        let slot_of = |at: Duration| (at.as_millis() / SLOT.as_millis()) as usize;
        let mut slowest_in_slot_ms =
            vec![None::<f64>; slot_of(Duration::from_secs(seconds.into()))];
        let mut times: Vec<_> = requests.iter().map(|request| request.ms).collect();
        times.sort_by(f64::total_cmp);
        let median_ms = percentile(&times, 50);
        let limit = median_ms + DELAYED.as_secs_f64() * 1e3;
        let (mut delayed, mut delayed_otherwise) = (0, 0);
        for Request { began, ms, .. } in requests {
            if *ms > limit && during_refresh(began.as_secs_f64(), &token_requests_at_s) {
                delayed += 1;
            } else if *ms > limit {
                delayed_otherwise += 1;
            }
            if let Some(slowest) = slowest_in_slot_ms.get_mut(slot_of(*began)) {
                *slowest = Some(rounded(slowest.unwrap_or_default().max(*ms)));
            }
        }
        Self {
            median_ms,
            p99_ms: percentile(&times, 99),
            slowest_ms: percentile(&times, 100),
            delayed,
            delayed_otherwise,
            not_answered_200: requests.iter().filter(|request| !request.ok).count(),
            plotted: Plotted {
                slot_ms: SLOT.as_secs_f64() * 1e3,
                slowest_in_slot_ms,
                token_requests_at_s,
            },
        }
    }
}

fn during_refresh(began: f64, token_requests_at_s: &[f64]) -> bool {
    let before = TOLERANCE.as_secs_f64();
    let after = (TOKEN_LATENCY + TOLERANCE).as_secs_f64();
    token_requests_at_s
        .iter()
        .any(|at| (at - before..at + after).contains(&began))
}

fn conclude(mut samples: Vec<Sample>, scale: Scale) -> Rollover {
    samples.sort_by_key(|sample| sample.delayed);
    let spread = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of));
    let mut rollover = Rollover {
        rounds: samples.len(),
        requests: (seconds(scale) * REQUESTS_PER_SECOND) as usize,
        seconds: seconds(scale),
        token_latency_ms: TOKEN_LATENCY.as_secs_f64() * 1e3,
        token_lifetime_s: LIFETIME.as_secs_f64(),
        median_ms: spread(|it| it.median_ms),
        p99_ms: spread(|it| it.p99_ms),
        slowest_ms: spread(|it| it.slowest_ms),
        delayed: spread(|it| it.delayed as f64),
        delayed_otherwise: spread(|it| it.delayed_otherwise as f64),
        not_answered_200: samples.iter().map(|it| it.not_answered_200).sum(),
        token_requests: spread(|it| it.plotted.token_requests_at_s.len() as f64),
        plotted: Plotted::default(),
    };
    let middle = samples.len() / 2;
    rollover.plotted = samples
        .into_iter()
        .nth(middle)
        .map(|it| it.plotted)
        .unwrap_or_default();
    rollover
}
