//! The limit on fetches that are under way at once: flights beyond it queue, first come first served.
//!
//! A flight gets its slot before its task is spawned, by whoever gives one back. A queued flight
//! therefore holds nothing on a runtime that may not be driven, and its limit begins with its slot.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use crate::cache::entry::Entry;
use crate::cache::fetch::Departure;
use crate::cache::state::FlightId;

pub(crate) struct Slots {
    state: Mutex<State>,
}

struct State {
    free: usize,
    queue: VecDeque<Departure>,
    taken: HashMap<u64, Taken>,
    next_number: u64,
    /// Somebody is at work on the queue, and will see what has become free meanwhile.
    is_draining: bool,
}

/// Who has a slot, and how long at most.
pub(crate) struct Taken {
    entry: Weak<Entry>,
    flight: FlightId,
    deadline: Instant,
}

/// The right to fetch. Dropped, it goes to the next in the queue.
pub(crate) struct Slot {
    number: u64,
    slots: Arc<Slots>,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: limit,
                queue: VecDeque::new(),
                taken: HashMap::new(),
                next_number: 0,
                is_draining: false,
            }),
        })
    }

    /// Lets this flight depart, now or when it is its turn.
    pub(crate) fn enqueue(self: &Arc<Self>, departure: Departure) {
        let mut state = self.lock();
        state.queue.push_back(departure);
        let is_full = state.free == 0;
        drop(state);
        if is_full {
            // Not left to those who wait, who may all have shorter limits than a flight has.
            self.reap(Instant::now());
        }
        self.drain();
    }

    /// Drops those in the queue: nobody is left whom a token could reach.
    pub(crate) fn close(&self) {
        let queue = mem::take(&mut self.lock().queue);
        drop(queue);
    }

    /// When the first of those who have a slot should long have ended.
    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.lock().taken.values().map(|taken| taken.deadline).min()
    }

    /// Gives up the flights that should long have ended: nobody drives them, and they hold up those
    /// who queue.
    pub(crate) fn reap(&self, now: Instant) {
        let is_overdue = |taken: &&Taken| taken.deadline < now;
        let overdue: Vec<_> = self
            .lock()
            .taken
            .values()
            .filter(is_overdue)
            .map(|taken| (taken.entry.clone(), taken.flight))
            .collect();
        for (entry, flight) in overdue {
            if let Some(entry) = entry.upgrade() {
                entry.abandon(flight);
            }
        }
    }

    /// Lets as many flights depart as there are slots free.
    ///
    /// A departure can fail at once and give its slot back from within: that is left to the loop
    /// which is running already, rather than to the stack.
    fn drain(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.is_draining {
            return;
        }
        state.is_draining = true;
        while state.free > 0
            && let Some(departure) = state.queue.pop_front()
        {
            let number = state.next_number;
            state.next_number += 1;
            state.free -= 1;
            let taken = departure.taken();
            state.taken.insert(number, taken);
            // Not under the lock: it spawns a task, or drops one.
            drop(state);
            departure.depart(Slot {
                number,
                slots: Arc::clone(self),
            });
            state = self.lock();
        }
        state.is_draining = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    pub(crate) fn new(entry: Weak<Entry>, flight: FlightId, deadline: Instant) -> Self {
        Self {
            entry,
            flight,
            deadline,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.lock();
        state.taken.remove(&self.number);
        state.free += 1;
        drop(state);
        self.slots.drain();
    }
}
