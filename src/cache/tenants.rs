//! The entries of all token requests but the default one. Their number is bounded: the least
//! recently used is evicted first.
//!
//! Shards of `RwLock<HashMap>`. A lookup takes a shared lock on one shard; only adding or evicting
//! an entry takes it exclusively, never a refresh.
//!
//! `docs/performance.md` compares lookups with `moka`, `dashmap` and `papaya`: none of them knows
//! entries that must stay, and each would add crates to the core.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter::repeat_with;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, Weak};
use std::time::Duration;

use crate::cache::cached_token::CachedToken;
use crate::cache::entry::{Entry, OnFetchEnd};
use crate::cache::per_thread::parallelism;
use crate::clock::Moment;
use crate::observe::{Event, Observers};
use crate::token::request::TokenRequest;

use self::by_use::{ByUse, Candidate};

mod by_use;

/// Enough that two threads seldom meet at a lock. Each shard has pages of its own, so more would
/// make lookups among many tenants slower.
const SHARDS_PER_THREAD: usize = 4;
const MAX_SHARDS: usize = 64;
/// The most entries that a caller looks at to evict some.
const MAX_SCAN: usize = 64;

type Shard = HashMap<TokenRequest, Arc<Entry>, BuildHasherDefault<Prehashed>>;

/// Passes on the hash that a request carries.
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
    /// Their number is a power of two.
    shards: Box<[RwLock<Shard>]>,
    max_entries: usize,
    len: AtomicUsize,
    /// Orders entries by their last use. It advances with each new entry and each second rather
    /// than with each use, which would make every lookup write to one cache line.
    turn: AtomicU64,
    /// The last second that advanced the turn.
    second: AtomicU64,
    /// All entries, ordered by a use that is at most as recent as their last one.
    by_use: Mutex<ByUse>,
    /// Given to each entry.
    on_fetch_end: OnFetchEnd,
    observers: Observers,
}

impl Tenants {
    pub(crate) fn new(max_entries: usize, observers: Observers) -> Arc<Self> {
        let shards = (SHARDS_PER_THREAD * parallelism()).next_power_of_two();
        let shards = repeat_with(RwLock::default).take(shards.min(MAX_SHARDS));
        Arc::new_cyclic(|tenants: &Weak<Self>| {
            let tenants = Weak::clone(tenants);
            Self {
                shards: shards.collect(),
                max_entries,
                len: AtomicUsize::new(0),
                turn: AtomicU64::new(0),
                second: AtomicU64::new(0),
                by_use: Mutex::default(),
                observers,
                on_fetch_end: Arc::new(move || {
                    if let Some(tenants) = tenants.upgrade() {
                        tenants.make_room();
                    }
                }),
            }
        })
    }

    /// Calls `f` with the current token of `request` if it is usable without starting a refresh.
    #[inline]
    pub(crate) fn if_usable<R>(
        &self,
        request: &TokenRequest,
        now: Moment,
        f: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        self.look_up(request, |entry| {
            entry.if_usable(now, |token| {
                entry.last_used.record(self.turn(now));
                f(token)
            })
        })
        .flatten()
    }

    /// Returns the entry of `request`, if there is one, without noting a use of it.
    pub(crate) fn find(&self, request: &TokenRequest) -> Option<Arc<Entry>> {
        self.look_up(request, Arc::clone)
    }

    /// Returns the entry of `request`, if there is one.
    ///
    /// As long as the caller holds it, the entry is not evicted.
    pub(crate) fn get(&self, request: &TokenRequest, now: Moment) -> Option<Arc<Entry>> {
        let entry = self.find(request)?;
        entry.last_used.record(self.turn(now));
        Some(entry)
    }

    /// Returns the entry of `request`, which is created if there is none.
    ///
    /// As long as the caller holds it, the entry is not evicted.
    pub(crate) fn entry(&self, request: &TokenRequest, now: Moment) -> Arc<Entry> {
        if let Some(entry) = self.get(request, now) {
            return entry;
        }
        let turn = self.turn(now);
        let mut shard = self.write(request);
        let mut added = false;
        let entry = shard.entry(request.clone()).or_insert_with(|| {
            added = true;
            let on_fetch_end = Arc::clone(&self.on_fetch_end);
            Arc::new(Entry::new(request.clone(), Some(on_fetch_end)))
        });
        let entry = Arc::clone(entry);
        if added {
            // After all uses so far, before all that follow.
            let first = self.turn.fetch_add(2, Ordering::Relaxed) + 1;
            entry.last_used.record_first(first);
        } else {
            entry.last_used.record(turn);
        }
        let used = entry.last_used.turn();
        drop(shard);
        if added {
            let entries = self.len.fetch_add(1, Ordering::Relaxed) + 1;
            let candidate = Candidate {
                used,
                request: request.clone(),
            };
            self.by_use().push(candidate);
            self.observers.emit(|| Event::EntryAdded {
                token_request: request,
                entries,
            });
            self.make_room();
        }
        entry
    }

    /// Returns the entry of `request`, after removing it if nobody else uses it.
    pub(crate) fn take(&self, request: &TokenRequest) -> Option<Arc<Entry>> {
        let mut shard = self.write(request);
        if Arc::strong_count(shard.get(request)?) > 1 {
            return shard.get(request).cloned();
        }
        let entry = shard.remove(request)?;
        drop(shard);
        let entries = self.len.fetch_sub(1, Ordering::Relaxed).saturating_sub(1);
        self.sort_out(&mut self.by_use());
        self.observers.emit(|| Event::EntryEvicted {
            token_request: request,
            entries,
        });
        Some(entry)
    }

    /// Returns all entries.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &*self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.values().cloned());
        }
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Evicts the least recently used entries while there are more than the bound. Looks at no more
    /// than [`MAX_SCAN`] of them; the next caller goes on.
    ///
    /// An entry stays if it is in use or has a fetch in progress and, up to twice the bound, if it
    /// has a pause or a rejection that must not be forgotten.
    fn make_room(&self) {
        if self.len() <= self.max_entries {
            return;
        }
        let mut evicted = Vec::new();
        self.evict_excess(&mut evicted);
        for (entry, entries) in evicted {
            let token_request = &entry.request;
            if entry.forget_pause() {
                self.observers.emit(|| Event::PauseEnded { token_request });
            }
            self.observers.emit(|| Event::EntryEvicted {
                token_request,
                entries,
            });
        }
    }

    /// Moves evicted entries to `evicted`, each with the number of those that are left.
    fn evict_excess(&self, evicted: &mut Vec<(Arc<Entry>, usize)>) {
        let mut by_use = self.by_use();
        self.sort_out(&mut by_use);
        for _ in 0..MAX_SCAN {
            if self.len() <= self.max_entries {
                return;
            }
            let Some(mut candidate) = by_use.pop() else {
                return;
            };
            match self.last_use(&candidate) {
                // It is in the heap by an older use.
                Some(used) if used > candidate.used => candidate.used = used,
                // Behind all others, so that those are looked at too.
                Some(_) => match self.evict(&candidate.request) {
                    Some(entry) => {
                        evicted.push(entry);
                        continue;
                    }
                    None => candidate.used = self.turn.load(Ordering::Relaxed),
                },
                // It was removed.
                None => continue,
            }
            by_use.push(candidate);
        }
    }

    /// Returns the turn of the last use of a candidate, unless its entry was removed.
    fn last_use(&self, candidate: &Candidate) -> Option<u64> {
        self.look_up(&candidate.request, |entry| {
            let used = entry.last_used.turn();
            // Otherwise the entry is a later one of the same request, with its own candidate.
            (entry.last_used.first_turn() <= candidate.used).then_some(used)
        })
        .flatten()
    }

    fn sort_out(&self, by_use: &mut ByUse) {
        by_use.sort_out(self.len(), MAX_SCAN, |it| self.last_use(it).is_some());
    }

    /// Evicts the entry of `request` if it may be. Returns it, and the number of those that are
    /// left.
    fn evict(&self, request: &TokenRequest) -> Option<(Arc<Entry>, usize)> {
        let force = self.len() > self.max_entries.saturating_mul(2);
        let second = Duration::from_secs(self.second.load(Ordering::Relaxed));
        let now = Moment::by_monotonic(second);
        let mut shard = self.write(request);
        // The lock keeps the entry from being handed out meanwhile.
        let may_go = shard.get(request).is_some_and(|entry| {
            Arc::strong_count(entry) == 1 && entry.prepare_eviction(now, force)
        });
        let evicted = may_go.then(|| shard.remove(request)).flatten()?;
        drop(shard);
        let before = self.len.fetch_sub(1, Ordering::Relaxed);
        Some((evicted, before.saturating_sub(1)))
    }

    fn by_use(&self) -> MutexGuard<'_, ByUse> {
        self.by_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn look_up<R>(&self, request: &TokenRequest, f: impl FnOnce(&Arc<Entry>) -> R) -> Option<R> {
        let shard = self
            .shard(request)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(request).map(f)
    }

    fn write(&self, request: &TokenRequest) -> RwLockWriteGuard<'_, Shard> {
        self.shard(request)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current turn, after advancing it if a second has passed.
    fn turn(&self, now: Moment) -> u64 {
        let (second, last) = (
            now.monotonic().as_secs(),
            self.second.load(Ordering::Relaxed),
        );
        let advances = second > last
            && self
                .second
                .compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if advances {
            self.turn.fetch_add(2, Ordering::Relaxed) + 2
        } else {
            self.turn.load(Ordering::Relaxed)
        }
    }

    fn shard(&self, request: &TokenRequest) -> &RwLock<Shard> {
        // The map uses the highest and the lowest bits.
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
mod tests;
