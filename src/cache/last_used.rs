//! The time of an entry's last use.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// The turn of the last use, see [`Tenants`](crate::cache::tenants::Tenants).
pub(crate) struct LastUsed(AtomicU64);

impl LastUsed {
    pub(crate) fn never() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn turn(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Records a use. Writes only if the turn has changed, so that readers share the cache line.
    #[inline]
    pub(crate) fn record(&self, turn: u64) {
        if self.turn() < turn {
            self.0.fetch_max(turn, Ordering::Relaxed);
        }
    }
}
