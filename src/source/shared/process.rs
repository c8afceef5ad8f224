//! The steps of one fetch in one process: adopt what the store has, or fetch under the lease, or
//! wait for the process that does.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::clock::wall_now;
use crate::error::TokenError;
use crate::source::TRY_WAITS;
use crate::source::context::{FetchContext, FetchReason};
use crate::source::shared::SharedTokenSource;
use crate::source::shared::breaker::Unavailable;
use crate::source::shared::identity::TokenName;
use crate::source::shared::lease::HeldLease;
use crate::source::shared::record::{Opened, Record, SharedPause, is_shared};
use crate::source::shared::timed::{StoreClock, TimedToken};
use crate::store::StoreTime;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// The parts of a fetch's time in which the holder of the lease has to finish, and for which others
/// wait for it. In the rest, they fetch alone. The holder gives up first, so that the others find
/// its pause rather than all asking a token endpoint that hangs.
const HOLDER_SHARE: f64 = 0.8;
const WAITER_SHARE: f64 = 0.85;

/// Those who wait look at the record after a random time in this range, if nobody wakes them.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// The pause after the first failure; it doubles up to the longest. The same as in a cache.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// The time for which the number of failures is known after a pause.
const FAILURES_KEPT: Duration = Duration::from_secs(120);

/// The time for which a token that never expires is in the store.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);
/// The time for which the store says that a token cannot be shared.
const UNSHARED: Duration = Duration::from_secs(60);

/// A token or the error of the token endpoint, unless the store cannot be used.
type Outcome = Result<Result<AccessToken, TokenError>, Unavailable>;

/// A record as it was loaded.
struct View {
    /// The bytes in the store, which a new record replaces.
    bytes: Option<Vec<u8>>,
    opened: Opened,
    clock: StoreClock,
    /// The token, if it has not expired.
    token: Option<TimedToken>,
}

/// The conclusion from a record.
enum Answer {
    Token(AccessToken),
    Failure(TokenError),
    /// The store is no help with this token.
    Alone,
    Fetch,
}

impl SharedTokenSource {
    pub(super) async fn fetch_shared(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Outcome {
        let name = self.names.of(request);
        let start = Instant::now();
        let span = context.deadline().saturating_duration_since(start);
        let wait_until = start + span.mul_f64(WAITER_SHARE);
        loop {
            let view = self.load(&name, context).await?;
            match view.answer(context) {
                Answer::Token(token) => return Ok(Ok(token)),
                Answer::Failure(error) => return Ok(Err(error)),
                Answer::Alone => return Err(Unavailable),
                Answer::Fetch => {}
            }
            match HeldLease::acquire(&self.store, &name.key).await? {
                Some(lease) => return self.lead(&name, request, context, lease).await,
                None => match view.usable_meanwhile(context) {
                    Some(token) => return Ok(Ok(token)),
                    // The store, or whoever has the lease, cannot be trusted any longer.
                    None if Instant::now() >= wait_until => return Err(Unavailable),
                    None => self.wait(&name).await,
                },
            }
        }
    }

    /// Goes on as the one process that has the lease.
    async fn lead(
        &self,
        name: &TokenName,
        request: &TokenRequest,
        context: &FetchContext,
        lease: HeldLease,
    ) -> Outcome {
        // Another process may have finished in between.
        let view = self.load(name, context).await?;
        match view.answer(context) {
            Answer::Token(token) => return Ok(Ok(token)),
            Answer::Failure(error) => return Ok(Err(error)),
            Answer::Alone => return Err(Unavailable),
            Answer::Fetch => {}
        }
        let mut record = match &view.opened {
            Opened::Record(record, _) => Record::clone(record),
            Opened::Nothing | Opened::Foreign => {
                // The store has lost what this process still knows.
                if let Some(known) = self.known(name, context) {
                    let record = Record {
                        token: Some(known.shared(&view.clock)),
                        ..Record::default()
                    };
                    self.store_record(name, &record, &view, &lease).await;
                    return Ok(Ok(known.for_cache()));
                }
                Record::default()
            }
        };
        if let Some(token) = view.spaced(&record, context) {
            record.spacing = record.spacing.doubled();
            self.store_record(name, &record, &view, &lease).await;
            return Ok(Ok(token));
        }

        let span = context.deadline().saturating_duration_since(Instant::now());
        let limit = span.mul_f64(HOLDER_SHARE);
        let context = context.clone().with_deadline(Instant::now() + limit);
        let fetch = self.try_to_fetch(request, &context);
        let fetch = lease.extended_during(&self.store, timeout_at(context.deadline(), fetch));
        let fetched = fetch.await;
        let now = view.clock.at(Instant::now());
        record.spacing = match context.rejected() {
            Some(_) => record.spacing.after_rejection(now),
            None => record.spacing.after_refresh(now),
        };
        match fetched.unwrap_or_else(|_| Err(TokenError::timeout(limit))) {
            Ok((token, None)) => {
                record.is_unshared = true;
                (record.token, record.pause) = (None, None);
                self.store_record(name, &record, &view, &lease).await;
                Ok(Ok(token))
            }
            Ok((_, Some(token))) => {
                self.seen.record_token(&name.key, &token);
                record.token = Some(token.shared(&view.clock));
                record.pause = None;
                self.store_record(name, &record, &view, &lease).await;
                Ok(Ok(token.for_cache()))
            }
            Err(error) if !is_shared(error.kind()) => Ok(Err(error)),
            Err(error) => {
                let (pause, failures) = pause_after(&error, record.pause.as_ref());
                let until = now.plus(pause);
                record.pause = Some(SharedPause::new(&error, until, failures));
                // An API declared the token invalid: it is no use to other processes, either.
                let is_withdrawn = context.held().is_none();
                record
                    .token
                    .take_if(|token| is_withdrawn && is_rejected(&token.token, &context));
                self.store_record(name, &record, &view, &lease).await;
                Ok(Err(match error.is_paused() {
                    true => error.paused(pause),
                    false => error.with_retry_after(pause),
                }))
            }
        }
    }

    /// Calls the source, as a cache does: again if it fails quickly. Returns the token, and what is
    /// shared of it.
    async fn try_to_fetch(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<(AccessToken, Option<TimedToken>), TokenError> {
        let mut waits = TRY_WAITS.iter();
        loop {
            let (started, wall) = (Instant::now(), wall_now());
            let error = match self.source.fetch_with(request, context).await {
                Ok(token) => {
                    let timed = TimedToken::fetched(token.clone(), started, wall);
                    return Ok((token, timed));
                }
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if error.allows_another_try(started.elapsed()) => {
                    sleep(wait.mul_f64(fastrand::f64())).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn load(&self, name: &TokenName, context: &FetchContext) -> Result<View, Unavailable> {
        let sent = Instant::now();
        let loaded = self.store.run(self.store.store().load(&name.key)).await;
        self.reports.store(&self.store, context.observers());
        let loaded = loaded?;
        let clock = StoreClock::new(&loaded, sent, Instant::now());
        let is_old = |lease| self.seen.is_old(&name.key, lease);
        // Without an end, it is not one of ours.
        let opened = match (&loaded.record, loaded.expires_at) {
            (Some(bytes), Some(_)) => Record::open(bytes, name, &self.keys, is_old),
            _ => Opened::Nothing,
        };
        match (&opened, loaded.expires_at) {
            (Opened::Foreign, Some(end)) => {
                let left = loaded.now.until(end);
                self.reports.unknown_key(left, context.observers());
            }
            _ => self.reports.known_key(),
        }
        let mut token = None;
        if let (Opened::Record(record, lease), Some(end)) = (&opened, loaded.expires_at) {
            self.seen.record_lease(&name.key, *lease);
            let shared = record.token.as_ref();
            token = shared.and_then(|shared| TimedToken::loaded(shared, end, &clock));
            if let Some(token) = &token {
                self.seen.record_token(&name.key, token);
            }
        }
        Ok(View {
            bytes: loaded.record,
            opened,
            clock,
            token,
        })
    }

    /// Replaces the record that was loaded. If that cannot be done, nobody is worse off than
    /// without a store.
    async fn store_record(
        &self,
        name: &TokenName,
        record: &Record,
        view: &View,
        lease: &HeldLease,
    ) {
        let Some(end) = record.end(view.clock.at(Instant::now())) else {
            return;
        };
        let mut sealed = record.seal(name, &self.keys, lease.lease);
        if let Ok(None) = sealed {
            // Too long.
            let unshared = Record {
                is_unshared: true,
                ..Record::default()
            };
            sealed = unshared.seal(name, &self.keys, lease.lease);
        }
        let Ok(Some(sealed)) = sealed else {
            return;
        };
        let swap = |expected| {
            let store = self.store.store();
            self.store
                .run(store.compare_and_swap(&name.key, expected, &sealed, end))
        };
        let mut outcome = swap(view.bytes.as_deref()).await;
        if let Ok(false) = outcome
            && view.bytes.is_some()
        {
            // The store may have come back empty, or the old record has expired.
            outcome = swap(None).await;
        }
        if let Ok(true) = outcome {
            self.seen.record_lease(&name.key, lease.lease);
        }
    }

    /// Returns a fresh token of which the store knows nothing any more.
    fn known(&self, name: &TokenName, context: &FetchContext) -> Option<TimedToken> {
        let known = self.seen.token(&name.key)?;
        let is_good = known.is_fresh(Instant::now())
            && !is_rejected(&known.token, context)
            && !is_held(&known.token, context);
        is_good.then_some(known)
    }

    /// Waits until the record may have changed.
    async fn wait(&self, name: &TokenName) {
        let (min, max) = POLL;
        let poll = min + (max - min).mul_f64(fastrand::f64());
        let watch = self.store.store().watch(&name.key);
        if timeout(poll, watch).await.is_ok() {
            // All who waited are woken at once.
            sleep(Duration::from_millis(5).mul_f64(fastrand::f64())).await;
        }
    }
}

impl View {
    fn answer(&self, context: &FetchContext) -> Answer {
        let record = match &self.opened {
            Opened::Foreign => return Answer::Alone,
            Opened::Nothing => return Answer::Fetch,
            Opened::Record(record, _) if record.is_unshared => return Answer::Alone,
            Opened::Record(record, _) => record,
        };
        let now = Instant::now();
        let usable = self
            .token
            .as_ref()
            .filter(|it| !is_rejected(&it.token, context));
        if let Some(token) = usable
            && !is_held(&token.token, context)
            && (token.is_fresh(now) || (!has_usable(context) && !token.is_late(now)))
        {
            return Answer::Token(token.for_cache());
        }
        if let Some(pause) = &record.pause {
            let remaining = self.clock.until(pause.until);
            if !remaining.is_zero() {
                return match usable {
                    Some(token) if !has_usable(context) => Answer::Token(token.for_cache()),
                    _ => Answer::Failure(pause.error(remaining)),
                };
            }
        }
        match self.spaced(record, context) {
            Some(token) if record.spacing.was_rejected => Answer::Token(token),
            _ => Answer::Fetch,
        }
    }

    /// Returns the rejected token if it is not to be replaced yet.
    fn spaced(&self, record: &Record, context: &FetchContext) -> Option<AccessToken> {
        let token = self.token.as_ref()?;
        let is_spaced = is_rejected(&token.token, context)
            && context.reason() != FetchReason::Invalidated
            && !self.clock.until(record.spacing.until).is_zero();
        is_spaced.then(|| token.for_cache())
    }

    /// Returns the token of the record for a caller that would have to wait for another process.
    fn usable_meanwhile(&self, context: &FetchContext) -> Option<AccessToken> {
        let token = self.token.as_ref()?;
        let is_usable = !is_rejected(&token.token, context)
            && (!has_usable(context) || is_held(&token.token, context));
        is_usable.then(|| token.for_cache())
    }
}

impl Record {
    /// Returns the moment until which the record says anything.
    fn end(&self, now: StoreTime) -> Option<StoreTime> {
        let token = self.token.as_ref().map(|token| match token.times {
            Some(times) => times.end,
            None => now.plus(UNLIMITED),
        });
        let pause = self.pause.as_ref().map(|it| it.until.plus(FAILURES_KEPT));
        let unshared = self.is_unshared.then(|| now.plus(UNSHARED));
        [token, pause, unshared].into_iter().flatten().max()
    }
}

/// Returns the pause of the fleet, and the number of failures in a row.
fn pause_after(error: &TokenError, last: Option<&SharedPause>) -> (Duration, u32) {
    let failures = last.map_or(0, |pause| pause.failures);
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    let backoff = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
    match error.retry_after() {
        // The source asked another cache, which counted the failure.
        Some(remaining) if error.is_paused() => (remaining, failures),
        Some(wait) => (
            wait.min(LONGEST_RETRY_AFTER).max(backoff),
            failures.saturating_add(1),
        ),
        None => {
            let jitter = (backoff / 4).mul_f64(fastrand::f64());
            (backoff + jitter, failures.saturating_add(1))
        }
    }
}

fn is_rejected(token: &AccessToken, context: &FetchContext) -> bool {
    let rejected = context.rejected();
    rejected.is_some_and(|it| it.is_same_value(token))
}

/// Returns true if the cache has this token, and asks for another.
fn is_held(token: &AccessToken, context: &FetchContext) -> bool {
    context.held().is_some_and(|it| it.is_same_value(token))
}

/// Returns true if the cache has a token that it still uses.
fn has_usable(context: &FetchContext) -> bool {
    matches!(context.reason(), FetchReason::Due | FetchReason::Late)
}
