//! The entries of all token requests but the default one: bounded, least recently used out first.
//!
//! Shards of `RwLock<HashMap>`: a lookup takes a shared lock on one of them, which is exclusive only
//! while an entry is put in or taken out, never for a renewal.
//!
//! Measured by `benches/tenants.rs` (figures in `docs/performance.md`): `moka::sync::Cache` takes twice
//! as long and knows no entry that must stay. dashmap and papaya are faster as maps, but most of a
//! lookup's time goes by behind the map, and bounds and turns would have to be added to them as well.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter::repeat_with;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::cache::entry::Entry;
use crate::clock::Moment;
use crate::per_thread::parallelism;
use crate::token_request::TokenRequest;

/// For each thread that runs at once, so that two seldom meet at a lock. Not more: each shard has pages
/// of its own, and a lookup among many tenants is as fast as their addresses are found.
const SHARDS_PER_THREAD: usize = 4;
const MOST_SHARDS: usize = 64;

type Shard = HashMap<TokenRequest, Arc<Entry>, BuildHasherDefault<Prehashed>>;

/// Requests bring their hash along.
#[derive(Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

pub(crate) struct Tenants {
    /// As many as a power of two.
    shards: Box<[RwLock<Shard>]>,
    max_entries: usize,
    len: AtomicUsize,
    /// Orders entries by their last use. Moves on with each newcomer and each second, not with each
    /// use, which would make every lookup write to one line.
    turn: AtomicU64,
    /// The last second that moved it on.
    second: AtomicU64,
    /// One eviction at a time.
    eviction: Mutex<()>,
    /// At which length to look again for entries to evict.
    next_scan: AtomicUsize,
}

impl Tenants {
    pub(crate) fn new(max_entries: usize) -> Self {
        let shards = (SHARDS_PER_THREAD * parallelism()).next_power_of_two();
        let shards = repeat_with(RwLock::default).take(shards.min(MOST_SHARDS));
        Self {
            shards: shards.collect(),
            max_entries,
            len: AtomicUsize::new(0),
            turn: AtomicU64::new(0),
            second: AtomicU64::new(0),
            eviction: Mutex::new(()),
            next_scan: AtomicUsize::new(0),
        }
    }

    /// Calls `with` on the entry of `request`, if there is one.
    pub(crate) fn look_up<R>(
        &self,
        request: &TokenRequest,
        now: Moment,
        with: impl FnOnce(&Arc<Entry>) -> R,
    ) -> Option<R> {
        let shard = self
            .shard(request)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(request).map(|entry| {
            entry.used_at(self.turn(now));
            with(entry)
        })
    }

    /// The entry of `request`, a new one if there is none.
    pub(crate) fn entry(&self, request: &TokenRequest, now: Moment) -> Arc<Entry> {
        if let Some(entry) = self.look_up(request, now, Arc::clone) {
            return entry;
        }
        let mut shard = self
            .shard(request)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut added = false;
        let entry = Arc::clone(shard.entry(request.clone()).or_insert_with(|| {
            added = true;
            Arc::new(Entry::new(request.clone()))
        }));
        if added {
            // After all uses so far, before all that follow.
            entry.used_at(self.turn.fetch_add(2, Ordering::Relaxed) + 1);
        } else {
            entry.used_at(self.turn(now));
        }
        drop(shard);
        if added && self.len.fetch_add(1, Ordering::Relaxed) >= self.max_entries {
            self.evict(&entry);
        }
        entry
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Drops the least recently used entries once there are more than the bound allows, but none with
    /// a flight.
    ///
    /// Each time a sixteenth of them, so that the scan is paid for once in as many newcomers; and if
    /// too few could go, not again before there are a sixteenth more.
    fn evict(&self, newest: &Arc<Entry>) {
        let _one_at_a_time = self.eviction.lock().unwrap_or_else(PoisonError::into_inner);
        let len = self.len();
        if len <= self.max_entries || len < self.next_scan.load(Ordering::Relaxed) {
            return;
        }
        let wanted = len - (self.max_entries - self.max_entries / 16);
        let mut candidates: Vec<(u64, Arc<Entry>)> = Vec::with_capacity(len);
        for shard in &*self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            candidates.extend(
                shard
                    .values()
                    .filter(|it| !Arc::ptr_eq(it, newest))
                    .map(|it| (it.last_used.load(Ordering::Relaxed), Arc::clone(it))),
            );
        }
        candidates.sort_unstable_by_key(|(last_used, _)| *last_used);
        for (_, entry) in candidates
            .into_iter()
            .filter(|(_, it)| it.retire())
            .take(wanted)
        {
            let mut shard = self
                .shard(&entry.request)
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            shard.remove(&entry.request);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        let left = self.len();
        let next_scan = if left > self.max_entries {
            left + left / 16
        } else {
            0
        };
        self.next_scan.store(next_scan, Ordering::Relaxed);
    }

    fn turn(&self, now: Moment) -> u64 {
        let (second, last) = (
            now.monotonic().as_secs(),
            self.second.load(Ordering::Relaxed),
        );
        let moves_on = second > last
            && self
                .second
                .compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if moves_on {
            self.turn.fetch_add(2, Ordering::Relaxed) + 2
        } else {
            self.turn.load(Ordering::Relaxed)
        }
    }

    fn shard(&self, request: &TokenRequest) -> &RwLock<Shard> {
        // Neither the highest bits nor the lowest: the map has use for those.
        &self.shards[(request.hash_of_key() >> 32) as usize & (self.shards.len() - 1)]
    }
}

impl fmt::Debug for Tenants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants")
            .field("len", &self.len())
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// So many seconds after any moment.
    fn at(secs: u64) -> Moment {
        Moment::new(Duration::from_secs(secs), Duration::from_secs(secs))
    }

    fn request(name: &str) -> TokenRequest {
        TokenRequest::scope(name)
    }

    fn holds(tenants: &Tenants, name: &str) -> bool {
        // Not by `look_up`, which counts as a use.
        tenants
            .shard(&request(name))
            .read()
            .unwrap()
            .contains_key(&request(name))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let tenants = Tenants::new(3);
        for name in ["a", "b", "c", "b", "a"] {
            tenants.entry(&request(name), at(0));
        }
        tenants.entry(&request("d"), at(0));
        assert!(!holds(&tenants, "c"));
        tenants.entry(&request("a"), at(0));
        tenants.entry(&request("e"), at(0));
        assert!(!holds(&tenants, "b"));
        tenants.entry(&request("f"), at(0));
        assert!(!holds(&tenants, "d"), "not used since it came");
        assert!(["a", "e", "f"].iter().all(|name| holds(&tenants, name)));
        assert_eq!(tenants.len(), 3);
    }

    /// To the second, if there is no newcomer in between.
    #[test]
    fn the_least_recently_used_goes_first_without_newcomers_too() {
        let tenants = Tenants::new(3);
        for name in ["a", "b", "c"] {
            tenants.entry(&request(name), at(0));
        }
        for (second, name) in [(0, "a"), (0, "b"), (0, "c"), (1, "c"), (2, "a"), (3, "c")] {
            tenants.look_up(&request(name), at(second), |_| {});
        }
        tenants.entry(&request("d"), at(3));
        assert!(!holds(&tenants, "b"));
        tenants.entry(&request("e"), at(3));
        assert!(!holds(&tenants, "a"));
        assert!(["c", "d", "e"].iter().all(|name| holds(&tenants, name)));
    }

    #[test]
    fn a_sixteenth_makes_room_at_once() {
        let tenants = Tenants::new(64);
        for number in 0..64 {
            tenants.entry(&request(&number.to_string()), at(0));
        }
        assert_eq!(tenants.len(), 64);
        tenants.entry(&request("one more"), at(0));
        assert_eq!(tenants.len(), 60);
        assert!(!holds(&tenants, "4") && holds(&tenants, "5"));
    }

    #[test]
    fn one_entry_per_request() {
        let tenants = Tenants::new(10);
        let first = tenants.entry(&request("b a"), at(0));
        assert!(Arc::ptr_eq(&first, &tenants.entry(&request("a  b"), at(0))));
        assert_eq!(tenants.len(), 1);
    }

    #[test]
    fn a_bound_of_one_holds_the_newest() {
        let tenants = Tenants::new(1);
        for name in ["a", "b", "c"] {
            tenants.entry(&request(name), at(0));
            assert!(holds(&tenants, name));
            assert_eq!(tenants.len(), 1);
        }
    }
}
