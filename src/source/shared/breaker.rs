//! The store behind a time limit and circuit breakers.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::store::{StoreError, TokenStore};

/// The number of failures in a row after which an operation is not tried.
const FAILURES: u32 = 3;
/// The time for which it is not, with up to as much again at random.
const PAUSE: Duration = Duration::from_millis(500);

/// A store that cannot delay its users: an operation fails after a time limit and, when several
/// have failed, at once.
pub(super) struct Guarded {
    store: Arc<dyn TokenStore>,
    limit: Mutex<Duration>,
    /// One for each [`Operation`].
    breakers: Mutex<[Breaker; 3]>,
    is_any_open: AtomicBool,
}

/// The operations that fail independently of each other: a store that is full can be read, and may
/// still have room for a lease.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Load,
    Lease,
    Swap,
}

#[derive(Default)]
struct Breaker {
    failures: u32,
    last_error: Option<StoreError>,
    /// No operation is tried before.
    paused_until: Option<Instant>,
}

/// The store cannot be used: the process works alone.
#[derive(Debug)]
pub(super) struct Unavailable;

impl Guarded {
    pub(super) fn new(store: Arc<dyn TokenStore>, limit: Duration) -> Self {
        Self {
            store,
            limit: Mutex::new(limit),
            breakers: Mutex::default(),
            is_any_open: AtomicBool::new(false),
        }
    }

    pub(super) fn set_limit(&self, limit: Duration) {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    fn limit(&self) -> Duration {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the store itself, for what needs no limit.
    pub(super) fn store(&self) -> &Arc<dyn TokenStore> {
        &self.store
    }

    /// Returns true unless the last operations of a kind have failed.
    pub(super) fn is_available(&self) -> bool {
        !self.is_any_open.load(Ordering::Relaxed)
    }

    /// Returns the last error of the store while it cannot be used.
    pub(super) fn outage(&self) -> Option<StoreError> {
        if self.is_available() {
            return None;
        }
        self.change(|breakers| {
            let open = breakers.iter().find(|it| it.is_open())?;
            open.last_error.clone()
        })
    }

    /// Runs an operation of the store.
    pub(super) async fn run<T>(
        &self,
        operation: Operation,
        future: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Unavailable> {
        if !self.admits(operation, Instant::now()) {
            return Err(Unavailable);
        }
        let limit = self.limit();
        let outcome = match timeout(limit, future).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::new(format!("no answer in {limit:?}"))),
        };
        let (outcome, error) = match outcome {
            Ok(value) => (Ok(value), None),
            Err(error) => (Err(Unavailable), Some(error)),
        };
        let now = Instant::now();
        self.change(|breakers| {
            breakers[operation as usize].record(error, now);
            let is_any_open = breakers.iter().any(Breaker::is_open);
            self.is_any_open.store(is_any_open, Ordering::Relaxed);
        });
        outcome
    }

    fn admits(&self, operation: Operation, now: Instant) -> bool {
        self.is_available() || self.change(|breakers| breakers[operation as usize].admits(now))
    }

    fn change<T>(&self, change: impl FnOnce(&mut [Breaker; 3]) -> T) -> T {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut breakers)
    }
}

impl Breaker {
    fn is_open(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Returns true if an operation may be tried. After a pause it is one, whose outcome decides.
    fn admits(&mut self, now: Instant) -> bool {
        match self.paused_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.paused_until = Some(now + pause());
                true
            }
            None => true,
        }
    }

    /// Records the end of an operation, and its error if it failed.
    fn record(&mut self, error: Option<StoreError>, now: Instant) {
        let Some(error) = error else {
            *self = Self::default();
            return;
        };
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        if self.failures >= FAILURES {
            self.paused_until = Some(now + pause());
        }
    }
}

fn pause() -> Duration {
    PAUSE + PAUSE.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::advance;

    use super::*;
    use crate::store::memory::InMemoryTokenStore;

    fn guarded() -> Guarded {
        let store = Arc::new(InMemoryTokenStore::new());
        Guarded::new(store, Duration::from_millis(50))
    }

    async fn fail(guarded: &Guarded) {
        fail_to(guarded, Operation::Load).await;
    }

    async fn fail_to(guarded: &Guarded, operation: Operation) {
        let failure = ready(Err::<(), _>(StoreError::new("down")));
        assert!(guarded.run(operation, failure).await.is_err());
    }

    async fn is_tried(guarded: &Guarded) -> bool {
        tries_to(guarded, Operation::Load).await
    }

    /// Returns true if an operation was tried.
    async fn tries_to(guarded: &Guarded, kind: Operation) -> bool {
        let tried = AtomicBool::new(false);
        let operation = async {
            tried.store(true, Ordering::Relaxed);
            Ok(())
        };
        let outcome = guarded.run(kind, operation).await;
        assert_eq!(outcome.is_ok(), tried.load(Ordering::Relaxed));
        outcome.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_open_it_for_at_most_a_second() {
        let guarded = guarded();
        fail(&guarded).await;
        fail(&guarded).await;
        assert!(is_tried(&guarded).await, "two do not");
        for _ in 0..3 {
            assert!(guarded.is_available());
            fail(&guarded).await;
        }
        assert!(!guarded.is_available());
        assert!(!is_tried(&guarded).await);
        advance(Duration::from_millis(499)).await;
        assert!(!is_tried(&guarded).await);
        advance(Duration::from_millis(502)).await;
        assert!(is_tried(&guarded).await);
        assert!(guarded.is_available());
    }

    #[tokio::test(start_paused = true)]
    async fn one_operation_probes_it() {
        let guarded = guarded();
        for _ in 0..3 {
            fail(&guarded).await;
        }
        advance(Duration::from_secs(1)).await;
        let probe = guarded.run(Operation::Load, pending::<Result<(), StoreError>>());
        let meanwhile = async {
            tokio::task::yield_now().await;
            is_tried(&guarded).await
        };
        let (probe, tried_meanwhile) = tokio::join!(probe, meanwhile);
        assert!(probe.is_err());
        assert!(!tried_meanwhile);
        assert!(!is_tried(&guarded).await, "the probe failed");
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_takes_at_most_its_limit() {
        let guarded = guarded();
        let start = Instant::now();
        let outcome = guarded
            .run(Operation::Load, pending::<Result<(), StoreError>>())
            .await;
        assert!(outcome.is_err());
        assert_eq!(start.elapsed(), Duration::from_millis(50));
    }

    /// Every fetch reads before it writes.
    #[tokio::test(start_paused = true)]
    async fn operations_that_succeed_do_not_hide_that_others_fail() {
        let (load, lease, swap) = (Operation::Load, Operation::Lease, Operation::Swap);
        for (failing, working) in [(lease, load), (swap, load), (swap, lease)] {
            let guarded = guarded();
            for _ in 0..3 {
                assert!(guarded.is_available());
                assert!(tries_to(&guarded, working).await);
                fail_to(&guarded, failing).await;
            }
            assert!(!guarded.is_available());
            assert!(guarded.outage().is_some());
            assert!(!tries_to(&guarded, failing).await);
            assert!(tries_to(&guarded, working).await);
            assert!(
                !guarded.is_available(),
                "only a success of its kind ends it"
            );
            advance(Duration::from_secs(1)).await;
            assert!(tries_to(&guarded, failing).await);
            assert!(guarded.is_available());
            assert!(guarded.outage().is_none());
        }
    }
}
