//! A fetch without the store, because that cannot be used.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::TokenError;
use crate::observe::Observers;
use crate::source::context::FetchContext;
use crate::source::shared::Shared;
use crate::source::shared::breaker::Unavailable;
use crate::source::shared::identity::TokenName;
use crate::source::shared::lease::HeldLease;
use crate::source::shared::process::{HOLDER_SHARE, pause_after, poll};
use crate::source::shared::record::{Opened, Record, is_shared};
use crate::source::shared::timed::TimedToken;
use crate::source::shared::view::View;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// The time for which a failed fetch waits for the store, which is tried again after 0.5 to 1 s.
const WAIT_FOR_STORE: Duration = Duration::from_millis(1_200);

/// The times after which a new token is offered to the store, each with up to half as much at
/// random: when an operation was slow, and when the breaker was open.
const OFFERS_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The longest time for which a cache leaves this source alone. The pause of the token endpoint may
/// be longer, but another process may have a token by then.
pub(super) const LONGEST_CACHE_PAUSE: Duration = Duration::from_secs(1);

/// The pause after a fetch that failed without the store.
#[derive(Clone)]
pub(super) struct AlonePause {
    pub(super) until: Instant,
    pub(super) failures: u32,
    pub(super) error: TokenError,
}

impl AlonePause {
    /// Returns the rest of the pause, unless it is over.
    pub(super) fn remaining(&self) -> Option<Duration> {
        let remaining = self.until.saturating_duration_since(Instant::now());
        (!remaining.is_zero()).then_some(remaining)
    }
}

impl Shared {
    /// Fetches for this process alone. If that fails, the store may have a token by then.
    ///
    /// The token endpoint is left alone for the whole pause, but the cache asks again sooner:
    /// otherwise callers would fail although the store is back and has a token.
    pub(super) async fn fetch_alone(
        self: &Arc<Self>,
        name: &TokenName,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        let last = self.seen.pause(&name.key);
        if let Some(pause) = &last
            && let Some(remaining) = pause.remaining()
        {
            let remaining = remaining.min(LONGEST_CACHE_PAUSE);
            return Err(pause.error.clone().paused(remaining));
        }
        let span = context.deadline().saturating_duration_since(Instant::now());
        let limit = span.mul_f64(HOLDER_SHARE);
        let context = context.clone().with_deadline(Instant::now() + limit);
        let fetch = self.try_to_fetch(request, &context);
        let fetched = timeout_at(context.deadline(), fetch).await;
        let error = match fetched.unwrap_or_else(|_| Err(TokenError::timeout(limit))) {
            Ok((token, timed)) => {
                self.seen.end_pause(&name.key);
                if let Some(timed) = timed {
                    self.seen.record_token(&name.key, &timed);
                    self.offer_later(name, timed, &context);
                }
                return Ok(token);
            }
            Err(error) => error,
        };
        if let Some(token) = self.look_again(name, &context).await {
            return Ok(token);
        }
        if !is_shared(error.kind()) {
            return Err(error);
        }
        let failures = last.map_or(0, |pause| pause.failures);
        let (pause, failures) = pause_after(&error, failures);
        let until = Instant::now() + pause;
        let known = AlonePause {
            until,
            failures,
            error: error.clone(),
        };
        self.seen.record_pause(&name.key, known);
        Err(error.with_exact_pause(pause.min(LONGEST_CACHE_PAUSE)))
    }

    /// Returns the token of the store, as soon as that answers.
    async fn look_again(&self, name: &TokenName, context: &FetchContext) -> Option<AccessToken> {
        let until = Instant::now() + WAIT_FOR_STORE;
        loop {
            match self.load(name, context).await {
                Ok(view) => return view.instead_of_a_fetch(context),
                Err(_) if Instant::now() >= until => return None,
                Err(_) => sleep(poll()).await,
            }
        }
    }

    /// Puts a new token into the store when that may be back, for the processes that have none.
    fn offer_later(self: &Arc<Self>, name: &TokenName, token: TimedToken, context: &FetchContext) {
        let (shared, name) = (Arc::clone(self), name.clone());
        // Without the observers: their cache may be gone by then.
        let context = context.clone().with_observers(&Observers::default());
        // Without a runtime, other processes fetch for themselves.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // If both fail, nobody is worse off than before.
                for wait in OFFERS_AFTER {
                    sleep(wait.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
                    if shared.offer(&name, &token, &context).await.is_ok() {
                        return;
                    }
                }
            });
        }
    }

    async fn offer(
        &self,
        name: &TokenName,
        token: &TimedToken,
        context: &FetchContext,
    ) -> Result<(), Unavailable> {
        let is_needed = |view: &View| match view.usable(context) {
            Some(stored) => token.outlives(stored),
            None => true,
        };
        if !is_needed(&self.load(name, context).await?) {
            return Ok(());
        }
        let Some(lease) = HeldLease::acquire(&self.store, &name.key).await? else {
            return Ok(());
        };
        // Another process may have stored one in between.
        let view = self.load(name, context).await?;
        let mut record = match &view.opened {
            Opened::Record(record, _) if !record.is_unshared => Record::clone(record),
            Opened::Nothing => Record::default(),
            Opened::Record(..) | Opened::Foreign => return Ok(()),
        };
        if is_needed(&view) {
            // A pause stays: it may have begun after this token was fetched.
            record.token = Some(token.shared(&view.clock));
            self.store_record(name, &record, &view, &lease).await;
        }
        Ok(())
    }
}
