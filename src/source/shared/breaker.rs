//! The store behind a time limit and a circuit breaker.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::store::{StoreError, TokenStore};

/// The number of failures in a row after which the store is left alone.
const FAILURES: u32 = 3;
/// The time for which it is, with up to as much again at random.
const PAUSE: Duration = Duration::from_millis(500);

/// A store that cannot delay its users: an operation fails after a time limit and, when several
/// have failed, at once.
pub(super) struct Guarded {
    store: Arc<dyn TokenStore>,
    limit: Mutex<Duration>,
    state: Mutex<State>,
    is_open: AtomicBool,
}

#[derive(Default)]
struct State {
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
            state: Mutex::default(),
            is_open: AtomicBool::new(false),
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

    /// Returns true unless the last operations have failed.
    pub(super) fn is_available(&self) -> bool {
        !self.is_open.load(Ordering::Relaxed)
    }

    /// Returns the last error of the store while it cannot be used.
    pub(super) fn outage(&self) -> Option<StoreError> {
        if self.is_available() {
            return None;
        }
        self.change(|state| state.last_error.clone())
    }

    /// Runs an operation of the store.
    pub(super) async fn run<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Unavailable> {
        if !self.admits(Instant::now()) {
            return Err(Unavailable);
        }
        let limit = self.limit();
        let outcome = match timeout(limit, operation).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::new(format!("no answer in {limit:?}"))),
        };
        let (outcome, error) = match outcome {
            Ok(value) => (Ok(value), None),
            Err(error) => (Err(Unavailable), Some(error)),
        };
        self.record(error, Instant::now());
        outcome
    }

    /// Returns true if an operation may be tried. After a pause it is one, whose outcome decides.
    fn admits(&self, now: Instant) -> bool {
        if self.is_available() {
            return true;
        }
        self.change(|state| match state.paused_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.paused_until = Some(now + pause());
                true
            }
            None => true,
        })
    }

    /// Records the end of an operation, and its error if it failed.
    fn record(&self, error: Option<StoreError>, now: Instant) {
        self.change(|state| {
            match error {
                None => *state = State::default(),
                Some(error) => {
                    state.failures = state.failures.saturating_add(1);
                    state.last_error = Some(error);
                    if state.failures >= FAILURES {
                        state.paused_until = Some(now + pause());
                    }
                }
            }
            let is_open = state.paused_until.is_some();
            self.is_open.store(is_open, Ordering::Relaxed);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state)
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
        let failure = ready(Err::<(), _>(StoreError::new("down")));
        assert!(guarded.run(failure).await.is_err());
    }

    /// Returns true if an operation was tried.
    async fn is_tried(guarded: &Guarded) -> bool {
        let tried = AtomicBool::new(false);
        let operation = async {
            tried.store(true, Ordering::Relaxed);
            Ok(())
        };
        let outcome = guarded.run(operation).await;
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
        let probe = guarded.run(pending::<Result<(), StoreError>>());
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
        let outcome = guarded.run(pending::<Result<(), StoreError>>()).await;
        assert!(outcome.is_err());
        assert_eq!(start.elapsed(), Duration::from_millis(50));
    }
}
