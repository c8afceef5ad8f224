//! The state of one token: a pure state machine. The time and all randomness are arguments; it
//! reads no clock, takes no lock and wakes no task. The entry calls it under its lock and publishes
//! the result.
//!
//! ```text
//!              decide                complete
//!   no token ──────────▶ fetch ─────────────────▶ fresh ─▶ due ─▶ expired
//!      ▲                   │ fail                   │       │        │
//!      │                   ▼                        │       └─▶ fetch (the token is still used)
//!      └──────────────── pause        reject ◀──────┘
//! ```

use std::time::Duration;

use crate::cache::lifespan::{Lifespan, RefreshTimes};
use crate::cache::state::arrival::{Life, remaining_life, with_due_time};
use crate::cache::state::rejections::RejectedToken;
use crate::cache::state::spacing::RejectionSpacing;
use crate::clock::Moment;
use crate::error::{TokenError, TokenErrorKind};
use crate::source::context::FetchReason;
use crate::token::windows::FETCH_SPACING;

mod arrival;
mod context;
mod rejections;
mod spacing;
mod types;

pub(crate) use spacing::RejectionId;
pub(crate) use types::{
    Completed, CurrentToken, Decision, FetchId, Fetched, NewTokens, Rejection, Severity,
};

/// The longest `Retry-After` that is honored.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// The longest wait for the refresh of a late token, from its token request on.
pub(crate) const LATE_WAIT: Duration = Duration::from_secs(1);

/// The settings of the cache that the state machine needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) default_lifetime: Duration,
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
}

/// The state of one token, see the module.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The last token that was fetched, unless it was rejected. It may have expired.
    current: Option<CurrentToken>,
    fetch: Option<Fetch>,
    /// The token that was rejected last. A fetch that started before the rejection must not restore
    /// it.
    /// Boxed, since few tokens are.
    rejected: Option<Box<RejectedToken>>,
    pause: Option<Pause>,
    /// The number of fetches that failed since the last success.
    failures: u32,
    /// When the last token arrived, unless a token was rejected since.
    last_success: Option<Duration>,
    spacing: RejectionSpacing,
    /// Orders fetches and rejections.
    sequence: u64,
    /// The last fetch that was forgotten with its token: a result of it or of an earlier one is
    /// not stored.
    forgotten: u64,
}

/// The fetch in progress.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    id: FetchId,
    reason: FetchReason,
    /// It waits for the spacing of fetches first.
    is_delayed: bool,
    /// When the token request was sent, if it was.
    sent: Option<Moment>,
}

#[derive(Debug)]
struct Pause {
    until: Moment,
    error: TokenError,
}

impl State {
    /// Decides the next step of a caller that needs a token now, other than the one of the
    /// generation `rejected`.
    pub(crate) fn decide(&mut self, now: Moment, rejected: Option<u64>) -> Decision {
        let usable = self.current.as_ref().filter(|current| {
            !now.has_reached(current.lifespan.expired) && Some(current.generation) != rejected
        });
        match usable.map(|current| current.lifespan) {
            Some(lifespan) if now.has_reached(lifespan.late) => self.decide_late(now, rejected),
            Some(lifespan) => {
                let refresh = now.has_reached(lifespan.due)
                    && self.fetch.is_none()
                    && self.paused(now).is_none();
                if refresh {
                    let (fetch, delay) = self.start(now, rejected);
                    Decision::Refresh { fetch, delay }
                } else {
                    Decision::Use
                }
            }
            None if self.fetch.is_some() => Decision::Wait,
            None => match self.paused(now) {
                Some(error) => Decision::Fail(error),
                None => {
                    let (fetch, delay) = self.start(now, rejected);
                    Decision::Fetch { fetch, delay }
                }
            },
        }
    }

    fn decide_late(&mut self, now: Moment, rejected: Option<u64>) -> Decision {
        match self.fetch {
            Some(fetch) => match self.no_wait_from(fetch) {
                from if now.has_reached(from) => Decision::Use,
                Moment::NEVER => Decision::WaitLate { limit: LATE_WAIT },
                from => Decision::WaitLate {
                    limit: now.until(from),
                },
            },
            None if self.paused(now).is_some() => Decision::Use,
            None => {
                let (fetch, delay) = self.start(now, rejected);
                if delay.is_zero() {
                    Decision::FetchLate { fetch }
                } else {
                    Decision::Refresh { fetch, delay }
                }
            }
        }
    }

    /// Records that the token request of a fetch is sent now.
    pub(crate) fn record_sent(&mut self, fetch: FetchId, now: Moment) {
        if let Some(current) = self.fetch.as_mut().filter(|it| it.id == fetch) {
            current.is_delayed = false;
            // A retry is not another token request to wait for.
            current.sent.get_or_insert(now);
        }
    }

    /// Records the token that a fetch returned, also if the fetch was abandoned since.
    pub(crate) fn complete(
        &mut self,
        fetch: FetchId,
        fetched: Fetched,
        now: Moment,
        timing: Timing,
    ) -> Completed {
        let was_in_progress = self.end(fetch);
        if fetch.0 <= self.forgotten {
            return Completed::Discarded;
        }
        let Fetched {
            token,
            mut generation,
            started,
            jitter,
        } = fetched;
        if let Some(rejected) = &self.rejected
            && fetch < rejected.fetch
        {
            // An API may have rejected this token before the newer one.
            return Completed::Discarded;
        }
        if let Some(rejected) = &self.rejected
            && token.is_same_value(&rejected.token)
        {
            if fetch.0 < rejected.sequence {
                return Completed::Discarded;
            }
            // The source returned the value again after its rejection, so it vouches for it. The
            // request that was rejected is not replayed with the same token, so the next response
            // decides whether the source was right.
            generation = rejected.generation;
            self.spacing.await_first_response();
        }
        let mut known = None;
        if let Some(current) = &self.current {
            if current.fetch > fetch && !now.has_reached(current.lifespan.expired) {
                return Completed::Stored;
            }
            if token.is_same_value(&current.token) {
                generation = current.generation;
                known = Some(current.lifespan);
            }
        }
        let life = remaining_life(&token, started, now, timing);
        let lifespan = match (life, known) {
            // The server repeats a token of which it says that it has ended. Its known end stands.
            (Life::Ended, Some(lifespan)) if now.has_reached(lifespan.expired) => {
                let error = TokenError::new(TokenErrorKind::InvalidResponse, true)
                    .with_cause("the token has expired: the server returned it again");
                return Completed::Failed(match was_in_progress {
                    true => self.begin_pause(error, now, timing, jitter),
                    false => error,
                });
            }
            (Life::Ended, Some(known)) => known,
            (Life::Ended, None) => Lifespan::new(timing.default_lifetime, started, now, jitter),
            (Life::Unlimited, _) => Lifespan::UNLIMITED,
            (Life::Limited { life, since }, _) => Lifespan::new(life, since, now, jitter),
            (Life::Aged { life, age }, _) => Lifespan::aged(life, age, now, jitter),
        };
        let lifespan = with_due_time(lifespan, &token, now);
        self.pause = None;
        self.failures = 0;
        self.last_success = Some(now.monotonic());
        let is_better = |current: &CurrentToken| {
            // A refused token is still better than one that is expired on arrival.
            let from = match self.is_pending(current.generation) {
                true => lifespan.expired,
                false => lifespan.late,
            };
            now.has_reached(from)
                && !now.has_reached(current.lifespan.late)
                && !token.is_same_value(&current.token)
        };
        let keeps_current = self.current.as_ref().is_some_and(is_better);
        if let Some(rejected) = &mut self.rejected {
            rejected.is_pending &= fetch.0 < rejected.sequence;
        }
        if keeps_current {
            return Completed::Stored;
        }
        self.current = Some(CurrentToken {
            token,
            generation,
            fetch,
            lifespan,
            requested: started,
        });
        Completed::Stored
    }

    /// Records that a fetch failed and begins a pause.
    ///
    /// Returns the error for the callers that waited, with the length of the pause. A fetch that
    /// was abandoned since begins no pause.
    pub(crate) fn fail(
        &mut self,
        fetch: FetchId,
        error: TokenError,
        now: Moment,
        timing: Timing,
        jitter: f64,
    ) -> TokenError {
        if !self.end(fetch) {
            return error;
        }
        if self.current.is_none() {
            self.spacing.await_first_response();
        }
        self.begin_pause(error, now, timing, jitter)
    }

    fn begin_pause(
        &mut self,
        error: TokenError,
        now: Moment,
        timing: Timing,
        jitter: f64,
    ) -> TokenError {
        let backoff = backoff(self.failures, timing);
        let pause = match error.retry_after() {
            // The source asked another cache, or counts failures itself.
            Some(remaining) if error.is_pause_exact() => remaining,
            Some(wait) => wait.min(MAX_RETRY_AFTER).max(backoff),
            None => backoff + (backoff / 4).mul_f64(jitter),
        };
        if !error.is_paused() {
            self.failures = self.failures.saturating_add(1);
        }
        let error = error.with_retry_after(pause);
        self.pause = Some(Pause {
            until: now.plus(pause),
            error: error.clone(),
        });
        error
    }

    /// Records that a fetch ended through no fault of the source: no failure, no pause.
    pub(crate) fn abandon(&mut self, fetch: FetchId) {
        self.end(fetch);
    }

    /// Forgets everything about the token, as after a logout. A fetch in progress is abandoned.
    pub(crate) fn forget(&mut self) {
        *self = Self {
            sequence: self.sequence,
            forgotten: self.sequence,
            ..Self::default()
        };
    }

    /// Returns the token that is served until it expires.
    pub(crate) fn current(&self) -> Option<&CurrentToken> {
        self.current.as_ref()
    }

    /// Returns true if the last token was rejected or invalidated, and there is no other yet.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.current.is_none() && self.rejected.is_some()
    }

    pub(crate) fn is_fetching(&self) -> bool {
        self.fetch.is_some()
    }

    /// Returns the number of fetches that failed since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the error of the last fetch, unless one has succeeded since.
    pub(crate) fn last_error(&self) -> Option<&TokenError> {
        self.pause.as_ref().map(|pause| &pause.error)
    }

    /// Returns the fetch in progress.
    #[cfg(test)]
    pub(crate) fn fetch(&self) -> Option<FetchId> {
        self.fetch.map(|fetch| fetch.id)
    }

    /// Returns the times by which callers use a token that is due or late.
    pub(crate) fn refresh_times(&self) -> RefreshTimes {
        match (self.fetch, &self.pause) {
            (Some(fetch), _) => RefreshTimes {
                blocked_until: Moment::NEVER,
                no_wait_from: self.no_wait_from(fetch),
            },
            (None, Some(pause)) => RefreshTimes {
                blocked_until: pause.until,
                no_wait_from: Moment::PAST,
            },
            (None, None) => RefreshTimes {
                blocked_until: Moment::PAST,
                no_wait_from: Moment::PAST,
            },
        }
    }

    /// Returns true if something is known that an evicted entry would forget: a pause, or a
    /// rejection whose token a source might return again.
    pub(crate) fn must_be_kept(&self, now: Moment) -> bool {
        let unanswered = self
            .rejected
            .as_ref()
            .is_some_and(|rejected| rejected.is_pending || self.current.is_none());
        unanswered || self.paused(now).is_some()
    }

    /// Returns the time from which no caller waits for this refresh of a late token.
    fn no_wait_from(&self, fetch: Fetch) -> Moment {
        match fetch.sent {
            Some(sent) => sent.plus(LATE_WAIT),
            // Nobody waits for the spacing of fetches.
            None if fetch.is_delayed => Moment::PAST,
            None => Moment::NEVER,
        }
    }

    /// Starts a fetch. Returns the delay that keeps it a second behind the last success.
    fn start(&mut self, now: Moment, rejected: Option<u64>) -> (FetchId, Duration) {
        self.sequence += 1;
        let id = FetchId(self.sequence);
        let earliest = self
            .last_success
            .map(|success| success.saturating_add(FETCH_SPACING));
        let delay = earliest.unwrap_or_default().saturating_sub(now.monotonic());
        self.fetch = Some(Fetch {
            id,
            reason: self.reason(now, rejected),
            is_delayed: !delay.is_zero(),
            sent: None,
        });
        (id, delay)
    }

    /// Ends a fetch. Returns false if it was not in progress.
    fn end(&mut self, fetch: FetchId) -> bool {
        self.fetch.take_if(|it| it.id == fetch).is_some()
    }

    /// Returns the error that callers get in a pause, with the time that remains.
    pub(crate) fn paused(&self, now: Moment) -> Option<TokenError> {
        let pause = self.pause.as_ref()?;
        let remaining = now.until(pause.until);
        (!remaining.is_zero()).then(|| pause.error.clone().paused(remaining))
    }
}

/// Returns the pause that follows `failures` earlier ones: it doubles, up to the longest pause.
fn backoff(failures: u32, timing: Timing) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    timing
        .first_pause
        .saturating_mul(factor)
        .min(timing.longest_pause)
}

#[cfg(test)]
mod tests;
