//! The steps of one fetch in one process: adopt what the store has, or fetch under the lease, or
//! wait for the process that does.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::clock::wall_now;
use crate::error::TokenError;
use crate::source::TRY_WAITS;
use crate::source::context::FetchContext;
use crate::source::shared::Shared;
use crate::source::shared::alone::LONGEST_CACHE_PAUSE;
use crate::source::shared::breaker::{Operation, Unavailable};
use crate::source::shared::identity::TokenName;
use crate::source::shared::lease::HeldLease;
use crate::source::shared::record::{Opened, Record, SharedPause, is_shared};
use crate::source::shared::timed::{StoreClock, TimedToken};
use crate::source::shared::view::{Answer, View, is_held, is_rejected};
use crate::store::StoreTime;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// The parts of a fetch's time in which the holder of the lease has to finish, and for which others
/// wait for it. In the rest, they fetch alone. The holder gives up first, so that the others find
/// its pause rather than all asking a token endpoint that hangs.
pub(super) const HOLDER_SHARE: f64 = 0.8;
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

/// A token or the error of the token endpoint, unless this process has to fetch alone.
type Outcome = Result<Result<AccessToken, TokenError>, Alone>;

/// The reason why a process fetches alone.
pub(super) enum Alone {
    Unavailable,
    /// The store works, but is no help with this token.
    Unshared,
}

impl From<Unavailable> for Alone {
    fn from(_: Unavailable) -> Self {
        Self::Unavailable
    }
}

impl Shared {
    pub(super) async fn fetch_shared(
        &self,
        name: &TokenName,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Outcome {
        let start = Instant::now();
        let span = context.deadline().saturating_duration_since(start);
        let wait_until = start + span.mul_f64(WAITER_SHARE);
        loop {
            let view = self.load(name, context).await?;
            match view.answer(context) {
                Answer::Token(token) => {
                    if !self.store.is_available() {
                        self.write_again(name, &view).await;
                    }
                    return Ok(Ok(token));
                }
                Answer::Failure(error) => return Ok(Err(error)),
                Answer::Alone => return Err(Alone::Unshared),
                Answer::Fetch => {}
            }
            match HeldLease::acquire(&self.store, &name.key).await? {
                Some(lease) => return self.lead(name, request, context, lease).await,
                None => match view.usable_meanwhile(context) {
                    Some(token) => return Ok(Ok(token)),
                    // The store, or whoever has the lease, cannot be trusted any longer.
                    None if Instant::now() >= wait_until => return Err(Alone::Unavailable),
                    None => self.wait(name).await,
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
            Answer::Alone => return Err(Alone::Unshared),
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
        if let Some(pause) = self.seen.pause(&name.key)
            && let Some(remaining) = pause.remaining()
        {
            if record.pause.is_some() {
                // The fleet has paused by itself, so another process asks the token endpoint.
                return Ok(Err(pause.error.paused(remaining.min(LONGEST_CACHE_PAUSE))));
            }
            // The store did not work when the fetch failed.
            let until = view.clock.at(Instant::now()).plus(remaining);
            record.pause = Some(SharedPause::new(&pause.error, until, pause.failures));
            self.store_record(name, &record, &view, &lease).await;
            return Ok(Err(pause.error.paused(remaining)));
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
                let failures = record.pause.as_ref().map_or(0, |pause| pause.failures);
                let (pause, failures) = pause_after(&error, failures);
                let until = now.plus(pause);
                record.pause = Some(SharedPause::new(&error, until, failures));
                // An API declared the token invalid: it is no use to other processes, either.
                let is_withdrawn = context.held().is_none();
                record
                    .token
                    .take_if(|token| is_withdrawn && is_rejected(&token.token, &context));
                self.store_record(name, &record, &view, &lease).await;
                Ok(match view.instead_of_a_fetch(&context) {
                    Some(token) => Ok(token),
                    None if error.is_paused() => Err(error.paused(pause)),
                    None => Err(error.with_retry_after(pause)),
                })
            }
        }
    }

    /// Calls the source, as a cache does: again if it fails quickly. Returns the token, and what is
    /// shared of it. No error leads to further tries by the cache.
    pub(super) async fn try_to_fetch(
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
                _ => return Err(error.without_retry()),
            }
        }
    }

    pub(super) async fn load(
        &self,
        name: &TokenName,
        context: &FetchContext,
    ) -> Result<View, Unavailable> {
        let sent = Instant::now();
        let loaded = self.store.store().load(&name.key);
        let loaded = self.store.run(Operation::Load, loaded).await;
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
    pub(super) async fn store_record(
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
            let swap = store.compare_and_swap(&name.key, expected, &sealed, end);
            self.store.run(Operation::Swap, swap)
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

    /// Writes the record that was loaded, since writes have failed. A process that finds all tokens
    /// in the store has no other reason to write, and would never notice that it can.
    async fn write_again(&self, name: &TokenName, view: &View) {
        if let Opened::Record(record, _) = &view.opened
            && let Ok(Some(lease)) = HeldLease::acquire(&self.store, &name.key).await
        {
            self.store_record(name, record, view, &lease).await;
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
        let watch = self.store.store().watch(&name.key);
        if timeout(poll(), watch).await.is_ok() {
            // All who waited are woken at once.
            sleep(Duration::from_millis(5).mul_f64(fastrand::f64())).await;
        }
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

/// Returns the time after which those who wait look at the record.
pub(super) fn poll() -> Duration {
    let (min, max) = POLL;
    min + (max - min).mul_f64(fastrand::f64())
}

/// Returns the pause after a failure, and the number of failures in a row with it.
pub(super) fn pause_after(error: &TokenError, failures: u32) -> (Duration, u32) {
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
