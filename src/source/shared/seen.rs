//! The tokens of which this process knows something that the store may have lost.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::source::shared::alone::AlonePause;
use crate::source::shared::timed::TimedToken;
use crate::store::{Lease, StoreKey};

/// The number of tokens in each half. The older half is dropped when the newer one is full.
const HALF: usize = 5_000;
/// The number of epochs of a token. Each restart of the store without its data begins one.
const EPOCHS: usize = 4;

/// A bounded map, which keeps those that were used last.
#[derive(Default)]
pub(super) struct Seen(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    newer: HashMap<StoreKey, Known>,
    older: HashMap<StoreKey, Known>,
}

#[derive(Default)]
struct Known {
    /// The highest fence of each epoch.
    leases: Vec<Lease>,
    /// The last token.
    token: Option<TimedToken>,
    /// The last failure without the store.
    pause: Option<AlonePause>,
}

impl Seen {
    /// Returns true if a later lease of the same epoch was seen.
    pub(super) fn is_old(&self, key: &StoreKey, lease: Lease) -> bool {
        let mut halves = self.lock();
        let mut leases = halves.get(key).leases.iter();
        leases.any(|it| it.epoch == lease.epoch && it.fence > lease.fence)
    }

    /// Notes the lease under which a record was written.
    pub(super) fn record_lease(&self, key: &StoreKey, lease: Lease) {
        let mut halves = self.lock();
        let leases = &mut halves.get(key).leases;
        match leases.iter_mut().find(|it| it.epoch == lease.epoch) {
            Some(it) => it.fence = it.fence.max(lease.fence),
            None => {
                leases.truncate(EPOCHS - 1);
                leases.insert(0, lease);
            }
        }
    }

    /// Notes the token that this process uses.
    pub(super) fn record_token(&self, key: &StoreKey, token: &TimedToken) {
        self.lock().get(key).token = Some(token.clone());
    }

    /// Returns the token that this process used last.
    pub(super) fn token(&self, key: &StoreKey) -> Option<TimedToken> {
        self.lock().get(key).token.clone()
    }

    /// Notes a failure without the store.
    pub(super) fn record_pause(&self, key: &StoreKey, pause: AlonePause) {
        self.lock().get(key).pause = Some(pause);
    }

    /// Returns the last failure without the store, unless there was a token since then.
    pub(super) fn pause(&self, key: &StoreKey) -> Option<AlonePause> {
        self.lock().get(key).pause.clone()
    }

    /// Notes that there is a token.
    pub(super) fn end_pause(&self, key: &StoreKey) {
        self.lock().get(key).pause = None;
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Halves {
    fn get(&mut self, key: &StoreKey) -> &mut Known {
        if self.newer.len() >= HALF && !self.newer.contains_key(key) {
            self.older = std::mem::take(&mut self.newer);
        }
        let older = &mut self.older;
        self.newer
            .entry(key.clone())
            .or_insert_with(|| older.remove(key).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> StoreKey {
        StoreKey::new([0; 16], (number as u128).to_be_bytes())
    }

    #[test]
    fn fences_are_ordered_within_an_epoch_only() {
        let seen = Seen::default();
        seen.record_lease(&key(1), Lease::new([1; 16], 7));
        seen.record_lease(&key(1), Lease::new([1; 16], 5));
        seen.record_lease(&key(1), Lease::new([2; 16], 1));
        assert!(seen.is_old(&key(1), Lease::new([1; 16], 6)));
        assert!(!seen.is_old(&key(1), Lease::new([1; 16], 7)));
        assert!(!seen.is_old(&key(1), Lease::new([2; 16], 1)));
        assert!(!seen.is_old(&key(1), Lease::new([3; 16], 0)));
        assert!(!seen.is_old(&key(2), Lease::new([1; 16], 6)));
    }

    #[test]
    fn the_number_of_tokens_is_bounded() {
        let seen = Seen::default();
        for number in 0..10 * HALF {
            seen.record_lease(&key(number), Lease::new([1; 16], 7));
            // Used throughout, so it is kept.
            seen.record_lease(&key(0), Lease::new([1; 16], 7));
        }
        let halves = seen.lock();
        assert!(halves.newer.len() + halves.older.len() <= 2 * HALF);
        drop(halves);
        assert!(seen.is_old(&key(0), Lease::new([1; 16], 6)));
        assert!(!seen.is_old(&key(1), Lease::new([1; 16], 6)), "forgotten");
    }
}
