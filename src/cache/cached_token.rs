//! The token that a cache serves, with what it knows of it.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

use crate::cache::last_used::LastUsed;
use crate::cache::lifespan::Lifespan;
use crate::cache::per_thread::PerThread;
use crate::cache::state::FlightId;
use crate::clock::{Moment, SharedDeadline};
use crate::sync::AtomicBool;
use crate::token::{AccessToken, Held, Parts};

/// A token as it is served. In this order, so that what every reader needs comes first.
#[repr(C)]
pub(crate) struct CachedToken {
    /// Of no meaning to the default token, which never makes room for others.
    pub(crate) last_used: LastUsed,
    pub(crate) lifespan: Lifespan,
    /// Stands for the token's value: the same value fetched again keeps it.
    pub(crate) generation: u64,
    /// The first answer to this token decides the spacing of rejections.
    pub(crate) on_probation: AtomicBool,
    /// Of the default token, which all threads use, a header value for each.
    pub(super) copies: Option<PerThread<HeaderValue>>,
    pub(super) parts: Parts,
    pub(super) flight: FlightId,
    /// Until then a due token needs nothing but using it: its renewal is under way, or has to wait.
    pub(super) seen_to: SharedDeadline,
}

impl CachedToken {
    /// Whether nothing but using this token is to be done: so a due one costs its users no more than a fresh one,
    /// during its renewal and in the pause after one that failed.
    #[inline]
    pub(crate) fn is_in_order(&self, now: Moment) -> bool {
        !now.has_reached(self.lifespan.due)
            || (self.seen_to.is_ahead_of(now) && !now.has_reached(self.lifespan.expired))
    }

    pub(crate) fn token(self: &Arc<Self>) -> AccessToken {
        AccessToken::held_by(Arc::clone(self))
    }

    /// What a request is given.
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

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedToken")
            .field("generation", &self.generation)
            .field("lifespan", &self.lifespan)
            .finish_non_exhaustive()
    }
}
