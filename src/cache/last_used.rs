//! The time of an entry's first and last use.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// The turns of the first and of the last use, see [`Tenants`](crate::cache::tenants::Tenants).
pub(crate) struct LastUsed {
    first: AtomicU64,
    last: AtomicU64,
}

impl LastUsed {
    pub(crate) fn never() -> Self {
        Self {
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Returns the turn of the first use, which no other entry has.
    pub(crate) fn first_turn(&self) -> u64 {
        self.first.load(Ordering::Relaxed)
    }

    pub(crate) fn turn(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Records the first use.
    pub(crate) fn record_first(&self, turn: u64) {
        self.first.store(turn, Ordering::Relaxed);
        self.record(turn);
    }

    /// Records a use. Writes only if the turn has changed, so that readers share the cache line.
    #[inline]
    pub(crate) fn record(&self, turn: u64) {
        if self.turn() < turn {
            self.last.fetch_max(turn, Ordering::Relaxed);
        }
    }
}
