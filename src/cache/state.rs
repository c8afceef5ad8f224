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

use std::time::{Duration, SystemTime};

use crate::cache::lifespan::{FETCH_SPACING, Lifespan};
use crate::cache::state::spacing::RejectionSpacing;
use crate::clock::Moment;
use crate::error::TokenError;
use crate::token::{AccessToken, Lifetime};

mod spacing;

pub(crate) use spacing::RejectionId;

/// The longest `Retry-After` that is honored.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

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
    /// The fetch in progress.
    fetch: Option<FetchId>,
    /// The token that was rejected last. A fetch that started before the rejection must not restore
    /// it.
    rejected: Option<RejectedToken>,
    pause: Option<Pause>,
    /// The number of fetches that failed since the last success.
    failures: u32,
    /// When the last token arrived, unless a token was rejected since.
    last_success: Option<Duration>,
    spacing: RejectionSpacing,
    /// Orders fetches and rejections.
    sequence: u64,
}

/// The number of a fetch. Later fetches have higher numbers.
///
/// At most one fetch is in progress at a time; it ends with `complete`, `fail` or `abandon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FetchId(u64);

/// The token that is served until it expires.
#[derive(Clone, Debug)]
pub(crate) struct CurrentToken {
    /// The token as the source returned it.
    pub(crate) token: AccessToken,
    /// Identifies the token's value: fetching the same value again keeps it.
    pub(crate) generation: u64,
    /// The fetch that returned the token.
    pub(crate) fetch: FetchId,
    pub(crate) lifespan: Lifespan,
    pub(crate) expires_at: Option<SystemTime>,
}

/// A token that a source returned.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) token: AccessToken,
    /// Differs from the generation of every other token in the process.
    pub(crate) generation: u64,
    /// The time just before the source was called.
    pub(crate) started: Moment,
    /// Between 0 and 1.
    pub(crate) jitter: f64,
}

/// The next step of a caller that needs a token.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Use the current token.
    Use,
    /// Use the current token and start this fetch in the background, after `delay`.
    Refresh { fetch: FetchId, delay: Duration },
    /// Start this fetch after `delay` and wait for it.
    Fetch { fetch: FetchId, delay: Duration },
    /// Wait for the fetch in progress.
    Wait,
    /// Fail: there is no token, and the source must not be called yet.
    Fail(TokenError),
}

/// The effect of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The token is no longer served. The caller reports what becomes of its replay under this id.
    Effective(RejectionId),
    /// The token was no longer current: use the one that is.
    Superseded,
    /// The last rejection was too recent: the token stays current.
    Spaced,
}

#[derive(Debug)]
struct RejectedToken {
    token: AccessToken,
    generation: u64,
    /// The fetch that returned the token.
    fetch: FetchId,
    /// The sequence number of the rejection.
    sequence: u64,
}

#[derive(Debug)]
struct Pause {
    until: Duration,
    error: TokenError,
}

impl State {
    /// Decides the next step of a caller that needs a token now.
    pub(crate) fn decide(&mut self, now: Moment) -> Decision {
        match &self.current {
            Some(current) if !now.has_reached(current.lifespan.expired) => {
                let refresh = now.has_reached(current.lifespan.due)
                    && self.fetch.is_none()
                    && self.paused(now).is_none();
                if refresh {
                    let (fetch, delay) = self.start(now);
                    Decision::Refresh { fetch, delay }
                } else {
                    Decision::Use
                }
            }
            _ if self.fetch.is_some() => Decision::Wait,
            _ => match self.paused(now) {
                Some(error) => Decision::Fail(error),
                None => {
                    let (fetch, delay) = self.start(now);
                    Decision::Fetch { fetch, delay }
                }
            },
        }
    }

    /// Records the token that a fetch returned, also if the fetch was abandoned since.
    ///
    /// Returns false if the token was rejected in the meantime and is discarded. Else the callers
    /// that waited get the [current](Self::current) token.
    pub(crate) fn complete(
        &mut self,
        fetch: FetchId,
        fetched: Fetched,
        now: Moment,
        timing: Timing,
    ) -> bool {
        self.end(fetch);
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
            return false;
        }
        if let Some(rejected) = &self.rejected
            && token.is_same_value(&rejected.token)
        {
            if fetch.0 < rejected.sequence {
                return false;
            }
            // The source returned the value again after its rejection, so it vouches for it. The
            // request that was rejected is not replayed with the same token, so the next response
            // decides whether the source was right.
            generation = rejected.generation;
            self.spacing.await_first_response();
        }
        if let Some(current) = &self.current {
            if current.fetch > fetch && !now.has_reached(current.lifespan.expired) {
                return true;
            }
            if token.is_same_value(&current.token) {
                generation = current.generation;
            }
        }

        let life = match token.lifetime() {
            Lifetime::Unlimited => None,
            Lifetime::Limited(life) => Some(life),
            Lifetime::Unspecified | Lifetime::Ended => Some(timing.default_lifetime),
        };
        let (lifespan, expires_at) = match life {
            None => (Lifespan::UNLIMITED, None),
            Some(life) => (
                Lifespan::new(life, started, now, jitter),
                started.plus(life).wall_time(),
            ),
        };
        self.pause = None;
        self.failures = 0;
        self.last_success = Some(now.monotonic());
        if let Some(current) = &self.current
            && now.has_reached(lifespan.expired)
            && !now.has_reached(current.lifespan.expired)
            && !token.is_same_value(&current.token)
        {
            // A token that is expired on arrival must not replace a usable one.
            return true;
        }
        self.current = Some(CurrentToken {
            token,
            generation,
            fetch,
            lifespan,
            expires_at,
        });
        true
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
        let backoff = backoff(self.failures, timing);
        self.failures = self.failures.saturating_add(1);
        let pause = match error.retry_after() {
            Some(wait) => wait.min(MAX_RETRY_AFTER).max(backoff),
            None => backoff + (backoff / 4).mul_f64(jitter),
        };
        let error = error.with_retry_after(pause);
        self.pause = Some(Pause {
            until: now.monotonic().saturating_add(pause),
            error: error.clone(),
        });
        error
    }

    /// Records that a fetch ended through no fault of the source: no failure, no pause.
    pub(crate) fn abandon(&mut self, fetch: FetchId) {
        self.end(fetch);
    }

    /// Records that an API rejected the token of this generation.
    pub(crate) fn reject(&mut self, generation: u64, now: Moment) -> Rejection {
        match &self.current {
            // An expired token is replaced without a rejection.
            Some(current)
                if current.generation == generation
                    && !now.has_reached(current.lifespan.expired) => {}
            _ => return Rejection::Superseded,
        }
        if !self.spacing.allows_rejection(now.monotonic()) {
            return Rejection::Spaced;
        }
        self.withdraw();
        let rejection = RejectionId(self.sequence);
        self.spacing.begin(rejection, now.monotonic());
        Rejection::Effective(rejection)
    }

    /// Withdraws the token of this generation at the user's request, regardless of the spacing of
    /// rejections. Returns false if it was not current.
    pub(crate) fn invalidate(&mut self, generation: u64) -> bool {
        let is_current = self
            .current
            .as_ref()
            .is_some_and(|current| current.generation == generation);
        if is_current {
            self.withdraw();
        }
        is_current
    }

    /// Records whether the replay of the request that caused a rejection was rejected too.
    pub(crate) fn record_replay(&mut self, rejection: RejectionId, rejected: bool) {
        self.spacing.record_replay(rejection, rejected);
    }

    /// Records that the request that caused a rejection is not replayed: the first response to the
    /// new token decides in its place.
    pub(crate) fn abandon_replay(&mut self, rejection: RejectionId) {
        self.spacing.abandon_replay(rejection);
    }

    /// Records a response to a token whose first response was awaited.
    pub(crate) fn record_first_response(&mut self, generation: u64, rejected: bool) {
        if let Some(current) = &self.current
            && current.generation == generation
        {
            self.spacing.record_first_response(rejected);
        }
    }

    /// Returns the token that is served until it expires.
    pub(crate) fn current(&self) -> Option<&CurrentToken> {
        self.current.as_ref()
    }

    /// Returns the fetch in progress.
    #[cfg(test)]
    pub(crate) fn fetch(&self) -> Option<FetchId> {
        self.fetch
    }

    /// Returns until when no refresh of the current token can start: one is in progress, or the
    /// source is paused.
    pub(crate) fn no_refresh_until(&self) -> Duration {
        match (self.fetch, &self.pause) {
            (Some(_), _) => Duration::MAX,
            (None, Some(pause)) => pause.until,
            (None, None) => Duration::ZERO,
        }
    }

    /// Returns true if the first response to the current token decides the spacing of rejections.
    pub(crate) fn awaits_first_response(&self) -> bool {
        self.spacing.awaits_first_response()
    }

    /// Starts a fetch. Returns the delay that keeps it a second behind the last success.
    fn start(&mut self, now: Moment) -> (FetchId, Duration) {
        self.sequence += 1;
        let fetch = FetchId(self.sequence);
        self.fetch = Some(fetch);
        let earliest = self
            .last_success
            .map(|success| success.saturating_add(FETCH_SPACING));
        let delay = earliest.unwrap_or_default().saturating_sub(now.monotonic());
        (fetch, delay)
    }

    /// Ends a fetch. Returns false if it was not in progress.
    fn end(&mut self, fetch: FetchId) -> bool {
        self.fetch.take_if(|current| *current == fetch).is_some()
    }

    fn withdraw(&mut self) {
        self.sequence += 1;
        self.last_success = None;
        if let Some(current) = self.current.take() {
            self.rejected = Some(RejectedToken {
                token: current.token,
                generation: current.generation,
                fetch: current.fetch,
                sequence: self.sequence,
            });
        }
    }

    /// Returns the error that callers get in a pause, with the time that remains.
    fn paused(&self, now: Moment) -> Option<TokenError> {
        let pause = self.pause.as_ref()?;
        let remaining = pause.until.checked_sub(now.monotonic())?;
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
