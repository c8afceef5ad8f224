//! The current token as readers see it, without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;

use crate::cache::lifespan::{Lifespan, RefreshTimes};
use crate::cache::per_thread::PerThread;
use crate::cache::state::State;
use crate::clock::{Moment, SharedMoment};
use crate::sync::ArcSwapOption;
use crate::token::request::TokenRequest;
use crate::token::{AccessToken, Held, Issued, Parts};

/// A token and what readers need to know about it.
///
/// The field order puts what every reader needs first.
#[repr(C)]
pub(crate) struct CachedToken {
    lifespan: Lifespan,
    generation: u64,
    /// The two parts of [`RefreshTimes`].
    blocked_until: SharedMoment,
    no_wait_from: SharedMoment,
    /// A response to this token decides the spacing of rejections.
    awaits_response: AtomicBool,
    /// The token was rejected or invalidated: callers that were given it must not use it.
    is_withdrawn: AtomicBool,
    /// One header value per thread. Only for the default token, which all threads use.
    copies: Option<PerThread<HeaderValue>>,
    parts: Parts,
}

/// The place where readers find the current token.
pub(crate) struct TokenCell(ArcSwapOption<CachedToken>);

impl CachedToken {
    /// Makes the current token of `state` ready for its readers.
    pub(crate) fn from_state(state: &State, request: &TokenRequest) -> Option<Self> {
        let current = state.current()?;
        let token = &current.token;
        let issued = Issued {
            request: request.clone(),
            generation: current.generation,
        };
        let cached = Self {
            lifespan: current.lifespan,
            generation: current.generation,
            blocked_until: SharedMoment::new(Moment::PAST),
            no_wait_from: SharedMoment::new(Moment::PAST),
            awaits_response: AtomicBool::new(false),
            is_withdrawn: AtomicBool::new(false),
            copies: request
                .is_default()
                .then(|| PerThread::new(|| token.header_with_own_count())),
            parts: token.issue(current.lifespan.end(), issued),
        };
        cached.update(state);
        Some(cached)
    }

    /// Takes over from `state` what can change while the token stays the same.
    fn update(&self, state: &State) {
        let times = state.refresh_times();
        self.blocked_until.set(times.blocked_until);
        self.no_wait_from.set(times.no_wait_from);
        self.awaits_response
            .store(state.awaits_response(), Ordering::Relaxed);
    }

    /// Returns true if this token is usable without a decision. A due token is, while its refresh
    /// is in progress or paused: so it costs no more than a fresh one.
    #[inline]
    pub(crate) fn is_usable(&self, now: Moment) -> bool {
        self.lifespan.is_usable(now, || RefreshTimes {
            blocked_until: self.blocked_until.get(),
            no_wait_from: self.no_wait_from.get(),
        })
    }

    /// Returns true if a caller that waited may still use this token.
    pub(crate) fn is_valid(&self) -> bool {
        !self.is_withdrawn.load(Ordering::Acquire)
    }

    pub(crate) fn has_expired(&self, now: Moment) -> bool {
        now.has_reached(self.lifespan.expired)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    #[inline]
    pub(crate) fn awaits_response(&self) -> bool {
        self.awaits_response.load(Ordering::Relaxed)
    }

    pub(crate) fn token(self: &Arc<Self>) -> AccessToken {
        AccessToken::held_by(Arc::clone(self))
    }

    /// Returns the header value for a request.
    #[inline]
    pub(crate) fn authorization(&self) -> &HeaderValue {
        match &self.copies {
            Some(copies) => copies.get(),
            None => self.parts.authorization(),
        }
    }
}

impl Held for CachedToken {
    fn parts(&self) -> &Parts {
        &self.parts
    }
}

impl TokenCell {
    pub(crate) fn empty() -> Self {
        Self(ArcSwapOption::empty())
    }

    /// Calls `f` with the current token if it is usable without a decision.
    #[inline]
    pub(crate) fn if_usable<R>(
        &self,
        now: Moment,
        f: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        let cached = self.0.load();
        let cached = cached.as_ref()?;
        cached.is_usable(now).then(|| f(cached))
    }

    /// Returns the current token, usable or not.
    pub(crate) fn get(&self) -> Option<Arc<CachedToken>> {
        self.0.load().clone()
    }

    /// Withdraws the token that is stored: it was rejected or invalidated. Called under the lock of
    /// the state.
    pub(crate) fn withdraw(&self) {
        if let Some(cached) = self.0.load().as_ref() {
            cached.is_withdrawn.store(true, Ordering::Release);
        }
    }

    /// Stores a token, or none. Called under the lock of the state, so that tokens keep their
    /// order.
    pub(crate) fn set(&self, cached: Option<CachedToken>) {
        self.0.store(cached.map(Arc::new));
    }

    /// Updates the token that is stored. Called under the lock of the state.
    pub(crate) fn update(&self, state: &State) {
        if let Some(cached) = self.0.load().as_ref() {
            cached.update(state);
        }
    }
}

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedToken")
            .field("generation", &self.generation)
            .field("lifespan", &self.lifespan)
            .finish_non_exhaustive()
    }
}
