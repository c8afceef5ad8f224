//! The entries of all token requests but the default one: bounded, least recently used out first.
//!
//! Shards of `RwLock<HashMap>`: a lookup takes a shared lock on one of them, which is exclusive only
//! while an entry is put in or taken out, never for a renewal.
//!
//! Measured by `benches/tenants.rs` (figures in `docs/performance.md`): among many tenants a lookup is as
//! fast as its places in memory are found, of which there are two, the map's and the token's.
//! `moka::sync::Cache` alone takes three times as long as a whole lookup here, and knows no entry that must
//! stay. dashmap alone is as fast as these maps; bounds and turns would have to be added to it, and more
//! crates would come into the core.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter::repeat_with;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::cache::cached_token::CachedToken;
use crate::cache::entry::Entry;
use crate::cache::per_thread::parallelism;
use crate::cache::published::Published;
use crate::clock::Moment;
use crate::token::request::TokenRequest;

/// For each thread that runs at once, so that two seldom meet at a lock. Not more: each shard has pages
/// of its own, and a lookup among many tenants is as fast as their addresses are found.
const SHARDS_PER_THREAD: usize = 4;
const MOST_SHARDS: usize = 64;

type Shard = HashMap<TokenRequest, Tenant, BuildHasherDefault<Prehashed>>;

/// What a lookup needs, in the map itself and of half a cache line with its key: the entry would be
/// one more place in memory to wait for.
struct Tenant {
    published: Published,
    entry: Arc<Entry>,
}

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

    /// Calls `with` on the current token of `request` if nothing but using it is to be done.
    #[inline]
    pub(crate) fn if_in_order<R>(
        &self,
        request: &TokenRequest,
        now: Moment,
        with: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        self.look_up(request, |tenant| {
            tenant.published.if_in_order(now, |current| {
                current.last_used.at(self.turn(now));
                with(current)
            })
        })
        .flatten()
    }

    /// The entry of `request`, if there is one.
    pub(crate) fn get(&self, request: &TokenRequest, now: Moment) -> Option<Arc<Entry>> {
        let entry = self.look_up(request, |tenant| Arc::clone(&tenant.entry));
        entry.inspect(|it| it.last_used.at(self.turn(now)))
    }

    /// The entry of `request`, a new one if there is none.
    pub(crate) fn entry(self: &Arc<Self>, request: &TokenRequest, now: Moment) -> Arc<Entry> {
        if let Some(entry) = self.get(request, now) {
            return entry;
        }
        let mut shard = self
            .shard(request)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut added = false;
        let tenant = shard.entry(request.clone()).or_insert_with(|| {
            added = true;
            Tenant {
                published: Published::empty(),
                entry: Arc::new(Entry::among(self, request.clone())),
            }
        });
        let entry = Arc::clone(&tenant.entry);
        entry.last_used.at(if added {
            // After all uses so far, before all that follow.
            self.turn.fetch_add(2, Ordering::Relaxed) + 1
        } else {
            self.turn(now)
        });
        drop(shard);
        if added && self.len.fetch_add(1, Ordering::Relaxed) >= self.max_entries {
            self.evict(Some(&entry));
        }
        entry
    }

    /// Shows lookups what the entry's state has as current, unless the entry has been dropped from here.
    pub(crate) fn publish(&self, entry: &Entry, current: Option<&Arc<CachedToken>>) {
        let shard = self
            .shard(&entry.request)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = shard.get(&entry.request)
            && ptr::eq(&*tenant.entry, entry)
        {
            // The uses of a token are kept with it; what takes its place knows of none.
            entry.last_used.at(tenant.published.last_used());
            tenant.published.publish(current);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// A flight has ended: its entry can go, if there are too many.
    pub(crate) fn make_room(&self) {
        if self.len() > self.max_entries {
            // It counts as a newcomer does.
            let _ = self
                .next_scan
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| at.checked_sub(1));
            self.evict(None);
        }
    }

    /// Drops the least recently used entries once there are more than the bound allows, but none with
    /// a flight.
    ///
    /// Each time a sixteenth of them, so that the scan is paid for once in as many newcomers. If too few
    /// could go, not again before there are more that can: a sixteenth of what is too much.
    fn evict(&self, newest: Option<&Arc<Entry>>) {
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
                    .filter(|it| newest.is_none_or(|newest| !Arc::ptr_eq(&it.entry, newest)))
                    .map(|it| (it.last_used(), Arc::clone(&it.entry))),
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
            left + (left - self.max_entries) / 16
        } else {
            0
        };
        self.next_scan.store(next_scan, Ordering::Relaxed);
    }

    #[inline]
    fn look_up<R>(&self, request: &TokenRequest, with: impl FnOnce(&Tenant) -> R) -> Option<R> {
        let shard = self
            .shard(request)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(request).map(with)
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

impl Tenant {
    /// By a lookup, or by a caller for whom there was none in order.
    fn last_used(&self) -> u64 {
        self.published.last_used().max(self.entry.last_used.turn())
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
mod tests;
