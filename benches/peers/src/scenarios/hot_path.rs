//! The time that a peer adds to a request with a fresh token, without sockets.
//!
//! Each peer is compared with its own stack without the peer, in sequential calls on one thread.
//! The peers take turns, and each round starts with the next peer.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Outcome, Row, Scale, on_new_runtime};
use crate::peers::{Auth, BoxError, Client, Peer};
use crate::server::{Api, Server};
use crate::stats::Spread;

const VARIANTS: [Auth; 3] = [Auth::Bare, Auth::StaticHeader, Auth::Peer];

#[derive(Serialize)]
pub(crate) struct HotPath {
    pub(crate) rounds: usize,
    pub(crate) calls_per_round: u32,
    /// The time of a call in the bare stack.
    pub(crate) bare_ns: Spread,
    /// The time that a static header adds to the bare stack.
    pub(crate) static_header_added_ns: Spread,
    /// The time that the peer adds to the bare stack.
    pub(crate) added_ns: Spread,
    /// The difference between the peer and the static header.
    pub(crate) over_static_header_ns: Spread,
}

/// The clients of one peer and their times in each round.
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
                let index = (round + turn) % subjects.len();
                subjects[index].take_turn(round, calls).await?;
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
        for auth in VARIANTS {
            let mut target = server.target().clone();
            if auth == Auth::Bare {
                target.api = Api::CannedOpen;
            }
            clients.push(peer.connect(&target, auth).await?);
        }
        Ok(Self {
            clients,
            nanoseconds: Vec::new(),
        })
    }

    /// Measures one round. Round 0 is a warm-up and is discarded.
    async fn take_turn(&mut self, round: usize, calls: u32) -> Result<(), BoxError> {
        let mut nanos = [0.0; VARIANTS.len()];
        for turn in 0..VARIANTS.len() {
            let index = (round + turn) % VARIANTS.len();
            let total = self.clients[index].repeat(calls).await?;
            nanos[index] = total.as_secs_f64() * 1e9 / f64::from(calls);
        }
        if round > 0 {
            self.nanoseconds.push(nanos);
        }
        Ok(())
    }

    fn conclude(&self, calls: u32) -> HotPath {
        let spread = |of: fn(&[f64; 3]) -> f64| Spread::of(self.nanoseconds.iter().map(of));
        HotPath {
            rounds: self.nanoseconds.len(),
            calls_per_round: calls,
            bare_ns: spread(|[bare, _, _]| *bare),
            static_header_added_ns: spread(|[bare, header, _]| header - bare),
            added_ns: spread(|[bare, _, peer]| peer - bare),
            over_static_header_ns: spread(|[_, header, peer]| peer - header),
        }
    }
}
