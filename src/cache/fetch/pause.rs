//! The timer that tells observers of the end of a pause.

use tokio::task::AbortHandle;

use crate::cache::state::FetchId;

/// A pause whose end no observer knows of. Dropped, it stops the timer.
pub(crate) struct PauseTimer {
    /// The fetch that failed.
    fetch: FetchId,
    timer: Option<AbortHandle>,
}

impl PauseTimer {
    pub(crate) fn new(fetch: FetchId) -> Self {
        Self { fetch, timer: None }
    }

    /// Returns true if the pause follows this fetch.
    pub(crate) fn is_after(&self, fetch: FetchId) -> bool {
        self.fetch == fetch
    }

    pub(crate) fn set_timer(&mut self, timer: AbortHandle) {
        self.timer = Some(timer);
    }
}

impl Drop for PauseTimer {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}
