//! The results of a run, as written to `results.json`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::machine::{self, Machine};
use crate::peers::{self, BoxError};
use crate::scenarios::cancel::{self, Cancel};
use crate::scenarios::herd::{self, Herd};
use crate::scenarios::hot_path::{self, HotPath};
use crate::scenarios::outage::{self, Outage};
use crate::scenarios::revocation::{self, Revocation};
use crate::scenarios::rollover::{self, Rollover};
use crate::scenarios::{Row, Scale};

#[derive(Serialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    /// True for a quick run, whose numbers are not meaningful.
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    /// From Cargo.lock.
    pub(crate) versions: BTreeMap<&'static str, Vec<&'static str>>,
    pub(crate) peers: Vec<PeerDescription>,
    pub(crate) herd: Vec<Row<Herd>>,
    pub(crate) large_herd: Vec<Row<Herd>>,
    /// The last row is the load without tokens.
    pub(crate) rollover: Vec<Row<Rollover>>,
    pub(crate) cancel: Vec<Row<Cancel>>,
    pub(crate) outage: Vec<Row<Outage>>,
    pub(crate) revocation: Vec<Row<Revocation>>,
    pub(crate) hot_path: Vec<Row<HotPath>>,
}

/// The description of a peer.
#[derive(Serialize)]
pub(crate) struct PeerDescription {
    pub(crate) name: &'static str,
    pub(crate) stack: &'static str,
    pub(crate) packages: &'static [&'static str],
}

impl Results {
    pub(crate) fn measure(scale: Scale) -> Result<Self, BoxError> {
        let peers = peers::all();
        let date = machine::date()?;

        announce("hot path");
        let hot_path = hot_path::measure(&peers::for_hot_path(), scale)?;
        announce("herd");
        let herd = herd::measure(&peers, scale);
        announce("large herd");
        let large_herd = herd::measure_large(&peers, scale);
        announce("cancel");
        let cancel = cancel::measure(&peers, scale);
        announce("revocation");
        let revocation = revocation::measure(&peers, scale);
        announce("rollover");
        let rollover = rollover::measure(&peers::for_rollover(), scale);
        announce("outage");
        let outage = outage::measure(&peers, scale);

        let described = peers.iter().map(|peer| PeerDescription {
            name: peer.name(),
            stack: peer.stack(),
            packages: peer.packages(),
        });
        Ok(Self {
            date,
            quick: scale == Scale::Quick,
            machine: Machine::this(),
            versions: machine::versions(&peers),
            peers: described.collect(),
            herd,
            large_herd,
            rollover,
            cancel,
            outage,
            revocation,
            hot_path,
        })
    }

    /// Returns true if a scenario failed with any peer.
    pub(crate) fn has_failures(&self) -> bool {
        fn any<T>(rows: &[Row<T>]) -> bool {
            rows.iter().any(Row::has_failed)
        }
        any(&self.herd)
            || any(&self.large_herd)
            || any(&self.rollover)
            || any(&self.cancel)
            || any(&self.outage)
            || any(&self.revocation)
            || any(&self.hot_path)
    }
}

/// Returns JSON with one line per field, and each list of numbers on one line.
pub(crate) fn to_json(results: &Results) -> Result<Vec<u8>, BoxError> {
    let mut json = Vec::new();
    let formatter = ListsOnOneLine(PrettyFormatter::new());
    results.serialize(&mut Serializer::with_formatter(&mut json, formatter))?;
    json.push(b'\n');
    Ok(json)
}

fn announce(scenario: &str) {
    eprintln!("measuring: {scenario}");
}

/// Formats objects as serde_json does, and lists without line breaks.
struct ListsOnOneLine<'a>(PrettyFormatter<'a>);

impl Formatter for ListsOnOneLine<'_> {
    fn begin_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object(to)
    }

    fn end_object<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object(to)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(to, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object_value(to)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object_value(to)
    }
}
