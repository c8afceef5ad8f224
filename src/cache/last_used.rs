//! When something was used last.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// The turn at which something was used last. It is beside what is used: no place more in memory to
/// wait for.
pub(crate) struct LastUsed(AtomicU64);

impl LastUsed {
    pub(crate) fn never() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn turn(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Written to only if the turn has moved on since.
    #[inline]
    pub(crate) fn at(&self, turn: u64) {
        if self.turn() < turn {
            self.0.fetch_max(turn, Ordering::Relaxed);
        }
    }
}
