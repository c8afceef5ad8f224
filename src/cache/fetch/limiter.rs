//! The limit on concurrent fetches. Fetches beyond it queue in order of arrival.
//!
//! A fetch gets its slot before its task is spawned, from whoever frees one. A queued fetch
//! therefore depends on no runtime that may not be polled, and its time limit begins with its slot.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) struct FetchLimiter {
    state: Mutex<State>,
}

struct State {
    /// Negative while slow fetches that gave up their slots have not ended.
    free: isize,
    queue: VecDeque<Queued>,
    running: HashMap<u64, Running>,
    next_number: u64,
    /// A thread is starting queued fetches and will see slots that become free meanwhile.
    is_starting: bool,
}

/// A fetch that waits for a slot.
struct Queued {
    time_limit: Duration,
    abandon: Abandon,
    start: Box<dyn FnOnce(Slot) + Send>,
}

/// A fetch that holds a slot.
struct Running {
    /// When it is slow: it then makes room for others.
    slow_at: Instant,
    is_slow: bool,
    deadline: Instant,
    abandon: Abandon,
}

type Abandon = Arc<dyn Fn() + Send + Sync>;

/// The right to run one fetch. Dropped, it goes to the next in the queue.
pub(crate) struct Slot {
    number: u64,
    limiter: Arc<FetchLimiter>,
}

/// A fetch that has run for that long no longer counts against the limit.
const SLOW: Duration = Duration::from_secs(2);
/// The slots that a slow fetch gives up. If they all hang, more and more are let through, so that
/// the queue ends soon.
const SLOTS_OF_SLOW: isize = 4;

impl FetchLimiter {
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: isize::try_from(slots).unwrap_or(isize::MAX),
                queue: VecDeque::new(),
                running: HashMap::new(),
                next_number: 0,
                is_starting: false,
            }),
        })
    }

    /// Calls `start` with a slot, now or when one is free.
    ///
    /// `abandon` is called if the slot is held for longer than `time_limit` and another fetch needs
    /// it.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        time_limit: Duration,
        abandon: impl Fn() + Send + Sync + 'static,
        start: impl FnOnce(Slot) + Send + 'static,
    ) {
        let queued = Queued {
            time_limit,
            abandon: Arc::new(abandon),
            start: Box::new(start),
        };
        let mut state = self.lock();
        state.queue.push_back(queued);
        let is_full = state.free <= 0;
        drop(state);
        if is_full {
            // Not left to the callers that wait, whose own time limits may all be shorter.
            self.check(Instant::now());
        }
        self.start_queued();
    }

    /// Drops all queued fetches: no caller is left.
    pub(crate) fn close(&self) {
        let queue = mem::take(&mut self.lock().queue);
        drop(queue);
    }

    /// Returns the next time at which a queued fetch should [check](Self::check) the running ones.
    pub(crate) fn next_check(&self) -> Option<Instant> {
        let state = self.lock();
        let running = state.running.values();
        running
            .map(|it| if it.is_slow { it.deadline } else { it.slow_at })
            .min()
    }

    /// Makes room for queued fetches: slow fetches give up their slots, and overdue ones are
    /// abandoned, since their runtimes are not polled.
    pub(crate) fn check(self: &Arc<Self>, now: Instant) {
        let mut state = self.lock();
        let mut overdue = Vec::new();
        let mut given_up = 0;
        for running in state.running.values_mut() {
            if running.deadline < now {
                overdue.push(Arc::clone(&running.abandon));
            } else if !running.is_slow && running.slow_at <= now {
                running.is_slow = true;
                given_up += SLOTS_OF_SLOW;
            }
        }
        state.free = state.free.saturating_add(given_up);
        drop(state);
        for abandon in overdue {
            abandon();
        }
        if given_up > 0 {
            self.start_queued();
        }
    }

    /// Starts queued fetches while slots are free.
    ///
    /// A fetch can fail as it starts and free its slot from within. The loop that is running
    /// handles that, so the stack does not grow.
    fn start_queued(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.is_starting {
            return;
        }
        state.is_starting = true;
        drop(state);
        let reset = ResetStarting(self);
        while let Some((queued, number)) = self.next_queued() {
            // Without the lock: `start` spawns a task or drops one.
            (queued.start)(Slot {
                number,
                limiter: Arc::clone(self),
            });
        }
        mem::forget(reset);
    }

    /// Takes the next queued fetch and a slot for it. Ends the starting if there is none.
    fn next_queued(&self) -> Option<(Queued, u64)> {
        let mut state = self.lock();
        let queued = match state.free > 0 {
            true => state.queue.pop_front(),
            false => None,
        };
        let Some(queued) = queued else {
            state.is_starting = false;
            return None;
        };
        let number = state.next_number;
        state.next_number += 1;
        state.free -= 1;
        let now = Instant::now();
        let running = Running {
            slow_at: now + SLOW,
            is_slow: false,
            deadline: now + queued.time_limit,
            abandon: Arc::clone(&queued.abandon),
        };
        state.running.insert(number, running);
        Some((queued, number))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the limiter usable if the future of a source panics as it is dropped.
struct ResetStarting<'a>(&'a FetchLimiter);

impl Drop for ResetStarting<'_> {
    fn drop(&mut self) {
        self.0.lock().is_starting = false;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        let Some(running) = state.running.remove(&self.number) else {
            return;
        };
        state.free += match running.is_slow {
            true => 1 - SLOTS_OF_SLOW,
            false => 1,
        };
        drop(state);
        drop(running);
        self.limiter.start_queued();
    }
}
