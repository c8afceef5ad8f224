//! The state of one token: a pure machine. Time and chance are passed in; it reads no clock, takes
//! no lock, wakes nobody.
//!
//! ```text
//!              decide                 complete
//!   nothing ───────────▶ flight ─────────────────▶ fresh ─▶ due ─▶ expired
//!      ▲                   │ fail                    │       │        │
//!      │                   ▼                         │       └─▶ flight (the token goes on)
//!      └──────────────── pause        reject ◀───────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::cached_token::CachedToken;
use crate::cache::last_used::LastUsed;
use crate::cache::lifespan::{FETCH_SPACING, Lifespan};
use crate::cache::per_thread::PerThread;
use crate::clock::{Moment, SharedDeadline};
use crate::error::TokenError;
use crate::sync::AtomicBool;
use crate::token::request::TokenRequest;
use crate::token::{AccessToken, Issued, Lifetime};

/// The longest `Retry-After` that is believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
/// How far apart renewals are that rejections cause: at first, and at most.
const REJECTION_SPACING: Duration = Duration::from_secs(1);
const LONGEST_REJECTION_SPACING: Duration = Duration::from_secs(10);

/// What of the cache's settings the machine needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tempo {
    pub(crate) default_lifetime: Duration,
    pub(crate) first_pause: Duration,
    pub(crate) longest_pause: Duration,
}

/// The state of one token: see the module.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// What is served, if it has not expired. Never a rejected token.
    current: Option<Arc<CachedToken>>,
    /// The one permit that is out.
    flight: Option<FlightId>,
    /// The value that was rejected last: a flight from before doesn't bring it back.
    rejected: Option<Rejected>,
    pause: Option<Pause>,
    /// Flights that failed since the last success.
    failures: u32,
    /// When the last token came, unless one was rejected since.
    landed: Option<Duration>,
    rejections: Rejections,
    /// Orders flights and rejections.
    sequence: u64,
}

/// A permit to fetch. At most one is valid at a time; it ends by `complete`, `fail` or `abandon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlightId(u64);

/// What a caller is to do.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Use this token.
    Serve(Arc<CachedToken>),
    /// Use this token, and fetch the next one in the background.
    ServeAndFetch(Arc<CachedToken>, Permit),
    /// Fetch a token, and wait for it.
    Fetch(Permit),
    /// Wait for the flight that is under way.
    Wait,
    /// There is no token, and the source is not to be asked yet.
    Fail(TokenError),
}

/// The right, and the duty, to run one flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit {
    pub(crate) flight: FlightId,
    /// How long to wait before the fetch, so that it isn't the second within one second.
    pub(crate) delay: Duration,
}

/// How a completed flight ended for those who waited.
#[derive(Debug)]
pub(crate) enum Landing {
    /// The token is current.
    Current(Arc<CachedToken>),
    /// The token was rejected while the flight was under way: decide again.
    Rejected,
}

/// What became of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The token is served no more. The verdict on its successor is owed under this number.
    Effective(RejectionId),
    /// The token was not current any more: use the one that is.
    Superseded,
    /// Too soon after the last: the token stays current.
    Spaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RejectionId(u64);

#[derive(Debug)]
struct Rejected {
    token: AccessToken,
    generation: u64,
    /// The flight that brought it.
    flight: FlightId,
    sequence: u64,
}

#[derive(Debug)]
struct Pause {
    until: Duration,
    error: TokenError,
}

/// The spacing of renewals that rejections cause.
#[derive(Debug)]
struct Rejections {
    last: Option<Duration>,
    spacing: Duration,
    verdict: Verdict,
}

/// Who says whether the renewal that a rejection caused has helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Known,
    /// The request that caused it, when it is sent again.
    Replay(RejectionId),
    /// Whoever is answered first with the new token; only a refusal counts.
    FirstAnswer,
}

impl Default for Rejections {
    fn default() -> Self {
        Self {
            last: None,
            spacing: REJECTION_SPACING,
            verdict: Verdict::Known,
        }
    }
}

impl State {
    /// What a caller who needs a token is to do now.
    pub(crate) fn decide(&mut self, now: Moment) -> Decision {
        match self.current.clone() {
            Some(current) if !now.has_reached(current.lifespan.expired) => {
                let renew = now.has_reached(current.lifespan.due)
                    && self.flight.is_none()
                    && self.paused(now).is_none();
                if renew {
                    Decision::ServeAndFetch(current, self.permit(now))
                } else {
                    Decision::Serve(current)
                }
            }
            _ if self.flight.is_some() => Decision::Wait,
            _ => match self.paused(now) {
                Some(error) => Decision::Fail(error),
                None => Decision::Fetch(self.permit(now)),
            },
        }
    }

    /// The flight brought a token, asked for at `started`.
    ///
    /// A flight that was given up counts all the same: what was fetched is not lost.
    pub(crate) fn complete(
        &mut self,
        flight: FlightId,
        fetched: Fetched,
        now: Moment,
        tempo: Tempo,
    ) -> Landing {
        self.end(flight);
        let Fetched {
            token,
            request,
            mut generation,
            started,
            jitter,
        } = fetched;
        if let Some(rejected) = &self.rejected
            && flight < rejected.flight
        {
            // What is older than a rejected token may have been rejected before it.
            return Landing::Rejected;
        }
        if let Some(rejected) = &self.rejected
            && token.is_same_value(&rejected.token)
        {
            if flight.0 < rejected.sequence {
                return Landing::Rejected;
            }
            // Asked for since, so the source vouches for it. It is not sent again by those whom it
            // was refused to, so the next to use it tells whether the source was right.
            generation = rejected.generation;
            if let Verdict::Replay(_) = self.rejections.verdict {
                self.rejections.verdict = Verdict::FirstAnswer;
            }
        }
        if let Some(current) = &self.current {
            if current.flight > flight && !now.has_reached(current.lifespan.expired) {
                return Landing::Current(Arc::clone(current));
            }
            if token.parts().is_same_value(&current.parts) {
                generation = current.generation;
            }
        }

        let (lifespan, expires_at) = match token.lifetime() {
            Lifetime::Unlimited => (Lifespan::UNLIMITED, None),
            Lifetime::Limited(life) => (
                Lifespan::new(life, started, now, jitter),
                started.plus(life).wall_time(),
            ),
            Lifetime::Unspecified => (
                Lifespan::new(tempo.default_lifetime, started, now, jitter),
                started.plus(tempo.default_lifetime).wall_time(),
            ),
        };
        self.pause = None;
        self.failures = 0;
        self.landed = Some(now.monotonic());
        self.tell_users();
        if let Some(current) = &self.current
            && now.has_reached(lifespan.expired)
            && !now.has_reached(current.lifespan.expired)
            && !token.parts().is_same_value(&current.parts)
        {
            // Dead on arrival is no reason to give up a usable one.
            return Landing::Current(Arc::clone(current));
        }
        let copies = request
            .is_default()
            .then(|| PerThread::new(|| token.counted_apart()));
        let current = Arc::new(CachedToken {
            last_used: LastUsed::never(),
            copies,
            parts: token.issue(
                expires_at,
                Issued {
                    request,
                    generation,
                },
            ),
            generation,
            lifespan,
            on_probation: AtomicBool::new(self.rejections.verdict == Verdict::FirstAnswer),
            flight,
            seen_to: SharedDeadline::passed(),
        });
        self.current = Some(Arc::clone(&current));
        self.tell_users();
        Landing::Current(current)
    }

    /// The flight failed. Returns the error for those who wait: it says how long the pause is.
    pub(crate) fn fail(
        &mut self,
        flight: FlightId,
        error: TokenError,
        now: Moment,
        tempo: Tempo,
        jitter: f64,
    ) -> TokenError {
        if !self.end(flight) {
            return error;
        }
        if self.current.is_none()
            && let Verdict::Replay(rejection) = self.rejections.verdict
        {
            self.forgo(rejection);
        }
        let backoff = backoff(self.failures, tempo);
        self.failures = self.failures.saturating_add(1);
        let pause = match error.retry_after() {
            Some(wait) => wait.min(LONGEST_RETRY_AFTER).max(backoff),
            None => backoff + (backoff / 4).mul_f64(jitter),
        };
        let error = error.with_retry_after(pause);
        self.pause = Some(Pause {
            until: now.monotonic().saturating_add(pause),
            error: error.clone(),
        });
        self.tell_users();
        error
    }

    /// The flight is no more, through no fault of the source: no failure, no pause.
    pub(crate) fn abandon(&mut self, flight: FlightId) {
        self.end(flight);
    }

    /// An API refused the token of this generation.
    pub(crate) fn reject(&mut self, generation: u64, now: Moment) -> Rejection {
        match &self.current {
            Some(current) if current.generation == generation => {
                if now.has_reached(current.lifespan.expired) {
                    // It has died of itself; its successor is fetched without this.
                    return Rejection::Superseded;
                }
            }
            _ => return Rejection::Superseded,
        }
        if let Some(last) = self.rejections.last
            && now.monotonic() < last.saturating_add(self.rejections.spacing)
        {
            return Rejection::Spaced;
        }
        self.withdraw();
        let rejection = RejectionId(self.sequence);
        self.rejections.last = Some(now.monotonic());
        self.rejections.verdict = Verdict::Replay(rejection);
        Rejection::Effective(rejection)
    }

    /// A user said that the token of this generation is no good, which is taken at their word.
    pub(crate) fn invalidate(&mut self, generation: u64) -> bool {
        let is_current = self
            .current
            .as_ref()
            .is_some_and(|it| it.generation == generation);
        if is_current {
            self.withdraw();
        }
        is_current
    }

    /// How the request that caused a rejection fared with the new token.
    pub(crate) fn judge(&mut self, rejection: RejectionId, refused: bool) {
        let is_last = self.rejections.verdict == Verdict::Replay(rejection);
        if refused {
            // Counts even if another request has caused a rejection since.
            self.rejections.widen();
        } else if is_last {
            self.rejections.spacing = REJECTION_SPACING;
        }
        if is_last {
            self.rejections.verdict = Verdict::Known;
        }
    }

    /// The request that caused a rejection will not be sent again: whoever is answered first with
    /// the new token judges in its place.
    pub(crate) fn forgo(&mut self, rejection: RejectionId) {
        if self.rejections.verdict == Verdict::Replay(rejection) {
            self.rejections.verdict = Verdict::FirstAnswer;
            if let Some(current) = &self.current {
                current.on_probation.store(true, Ordering::Relaxed);
            }
        }
    }

    /// An answer came to a request with a token on probation.
    pub(crate) fn first_answer(&mut self, generation: u64, refused: bool) {
        let Some(current) = &self.current else { return };
        if current.generation == generation
            && current.on_probation.swap(false, Ordering::Relaxed)
            && self.rejections.verdict == Verdict::FirstAnswer
        {
            if refused {
                self.rejections.widen();
            }
            self.rejections.verdict = Verdict::Known;
        }
    }

    pub(crate) fn current(&self) -> Option<&Arc<CachedToken>> {
        self.current.as_ref()
    }

    pub(crate) fn flight(&self) -> Option<FlightId> {
        self.flight
    }

    fn permit(&mut self, now: Moment) -> Permit {
        self.sequence += 1;
        let flight = FlightId(self.sequence);
        self.flight = Some(flight);
        self.tell_users();
        let soonest = self
            .landed
            .map(|landed| landed.saturating_add(FETCH_SPACING));
        let delay = soonest.unwrap_or_default().saturating_sub(now.monotonic());
        Permit { flight, delay }
    }

    /// Takes the permit back; whether it was still valid.
    fn end(&mut self, flight: FlightId) -> bool {
        let valid = self.flight == Some(flight);
        if valid {
            self.flight = None;
            self.tell_users();
        }
        valid
    }

    /// Users of the current token don't come here: tells them until when they need not.
    fn tell_users(&self) {
        if let Some(current) = &self.current {
            current.seen_to.set(match (self.flight, &self.pause) {
                (Some(_), _) => Duration::MAX,
                (None, Some(pause)) => pause.until,
                (None, None) => Duration::ZERO,
            });
        }
    }

    fn withdraw(&mut self) {
        self.sequence += 1;
        self.landed = None;
        if let Some(current) = self.current.take() {
            self.rejected = Some(Rejected {
                token: current.token(),
                generation: current.generation,
                flight: current.flight,
                sequence: self.sequence,
            });
        }
    }

    /// The error to give in a pause, with the time that remains.
    fn paused(&self, now: Moment) -> Option<TokenError> {
        let pause = self.pause.as_ref()?;
        let remaining = pause.until.checked_sub(now.monotonic())?;
        (!remaining.is_zero()).then(|| pause.error.clone().with_retry_after(remaining))
    }
}

/// What a flight brought.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) token: AccessToken,
    pub(crate) request: TokenRequest,
    /// Differs from that of every other token of the process.
    pub(crate) generation: u64,
    /// Just before the token was asked for.
    pub(crate) started: Moment,
    /// From 0 to 1.
    pub(crate) jitter: f64,
}

impl Rejections {
    fn widen(&mut self) {
        self.spacing = (self.spacing * 2).min(LONGEST_REJECTION_SPACING);
    }
}

/// The pause after `failures` earlier ones: doubling, up to the longest.
fn backoff(failures: u32, tempo: Tempo) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    tempo
        .first_pause
        .saturating_mul(factor)
        .min(tempo.longest_pause)
}

#[cfg(test)]
mod tests;
