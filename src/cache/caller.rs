//! A caller that needs a token, from its first look at the cache to the end of its wait.

use std::num::NonZeroU64;
use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::TokenCache;
use crate::cache::cached_token::CachedToken;
use crate::cache::entry::Joined;
use crate::cache::fetch::waiter::{Wait, Waited};
use crate::error::TokenError;
use crate::observe::{Event, WaitOutcome};
use crate::token::request::TokenRequest;

/// A caller. Dropped while it waits, it emits that its wait has ended.
pub(super) struct Caller<'a> {
    cache: &'a TokenCache,
    request: &'a TokenRequest,
    wait: Wait,
    is_waiting: bool,
}

impl<'a> Caller<'a> {
    /// Creates a caller for which a token of the generation `rejected` is of no use.
    pub(super) fn new(
        cache: &'a TokenCache,
        request: &'a TokenRequest,
        rejected: Option<u64>,
    ) -> Self {
        Self {
            cache,
            request,
            wait: Wait {
                since: Instant::now(),
                // Generations begin at 1.
                rejected: rejected.and_then(NonZeroU64::new),
            },
            is_waiting: false,
        }
    }

    /// Returns the token: at once, or when its fetch has finished.
    pub(super) async fn acquire(&mut self) -> Result<Arc<CachedToken>, TokenError> {
        // One fetch of the caller's own, and another if that was lost with its runtime.
        let mut starts_left = 2_u32;
        let result = loop {
            let rejected = self.wait.rejected.map(NonZeroU64::get);
            let mut waiter = match self.cache.join(self.request, rejected, &mut starts_left) {
                Ok(Joined::Token(token)) => break Ok(token),
                Ok(Joined::Waiter(waiter)) => waiter,
                Err(error) => break Err(error),
            };
            self.is_waiting = true;
            match waiter.wait(&self.cache.shared.fetcher, &self.wait).await {
                Ok(Waited::Finished(token)) => break Ok(token),
                Ok(Waited::Discarded) => starts_left = 2,
                Ok(Waited::Lost) => {}
                Err(error) => break Err(error),
            }
        };
        let result = result.map_err(|error| error.with_token_request(self.request));
        self.end_wait(match &result {
            Ok(_) => WaitOutcome::Token,
            Err(error) => WaitOutcome::Failed(error),
        });
        result
    }

    fn end_wait(&mut self, outcome: WaitOutcome<'_>) {
        if self.is_waiting {
            self.is_waiting = false;
            self.cache.observers().emit(|| Event::WaitEnded {
                token_request: self.request,
                outcome,
                duration: self.wait.since.elapsed(),
            });
        }
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.end_wait(WaitOutcome::Cancelled);
    }
}
