//! What a peer adds to a request when it has a fresh token, without sockets.
//!
//! Each peer is measured against its own stack without it, one after the other on one thread. All
//! take turns, round by round, each time from another one on.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Outcome, Row, Scale, on_new_runtime};
use crate::peers::{BoxError, Client, Peer, What};
use crate::server::{Api, Server};
use crate::stats::Spread;

const VARIANTS: [What; 3] = [What::Bare, What::StaticHeader, What::Peer];

#[derive(Serialize)]
pub(crate) struct HotPath {
    pub(crate) rounds: usize,
    pub(crate) calls_per_round: u32,
    /// A call of the stack without anything.
    pub(crate) bare_ns: Spread,
    /// What a static header adds to that.
    pub(crate) static_header_added_ns: Spread,
    /// What the peer adds to that.
    pub(crate) added_ns: Spread,
    /// What the peer adds to the static header.
    pub(crate) over_static_header_ns: Spread,
}

/// The clients of one peer, and what each took in each round.
struct Subject {
    clients: Vec<Arc<dyn Client>>,
    nanoseconds: Vec<[f64; VARIANTS.len()]>,
}

pub(crate) fn measure(
    peers: &[Box<dyn Peer>],
    scale: Scale,
) -> Result<Vec<Row<HotPath>>, BoxError> {
    let (rounds, calls) = scale.of((1_001, 300), (21, 100));
    on_new_runtime(async {
        let lifetime = Duration::from_secs(3600);
        let server = Server::start(Api::Canned, lifetime, Duration::ZERO).await?;
        let mut subjects = Vec::new();
        for peer in peers {
            subjects.push(Subject::new(&**peer, &server).await?);
        }
        for round in 0..=rounds {
            for turn in 0..subjects.len() {
                let place = (round + turn) % subjects.len();
                subjects[place].take_turn(round, calls).await?;
            }
        }
        let rows = peers.iter().zip(&subjects).map(|(peer, subject)| Row {
            peer: peer.name(),
            outcome: Outcome::Measured(subject.conclude(calls)),
        });
        Ok(rows.collect())
    })
}

impl Subject {
    async fn new(peer: &dyn Peer, server: &Server) -> Result<Self, BoxError> {
        let mut clients = Vec::new();
        for what in VARIANTS {
            let mut target = server.target().clone();
            if what == What::Bare {
                target.api = Api::CannedOpen;
            }
            clients.push(peer.connect(&target, what).await?);
        }
        Ok(Self {
            clients,
            nanoseconds: Vec::new(),
        })
    }

    /// The first round, round 0, is for warming up.
    async fn take_turn(&mut self, round: usize, calls: u32) -> Result<(), BoxError> {
        let mut took = [0.0; VARIANTS.len()];
        for turn in 0..VARIANTS.len() {
            let place = (round + turn) % VARIANTS.len();
            let all = self.clients[place].repeat(calls).await?;
            took[place] = all.as_secs_f64() * 1e9 / f64::from(calls);
        }
        if round > 0 {
            self.nanoseconds.push(took);
        }
        Ok(())
    }

    fn conclude(&self, calls: u32) -> HotPath {
        let spread = |of: fn(&[f64; 3]) -> f64| Spread::of(self.nanoseconds.iter().map(of));
        HotPath {
            rounds: self.nanoseconds.len(),
            calls_per_round: calls,
            bare_ns: spread(|[bare, _, _]| *bare),
            static_header_added_ns: spread(|[bare, fixed, _]| fixed - bare),
            added_ns: spread(|[bare, _, peer]| peer - bare),
            over_static_header_ns: spread(|[_, fixed, peer]| peer - fixed),
        }
    }
}
