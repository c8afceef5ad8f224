//! Rejections by APIs and invalidations by users, as a part of the state machine.

use crate::cache::state::{FetchId, NewTokens, Rejection, RejectionId, Severity, State};
use crate::clock::Moment;
use crate::token::AccessToken;

#[derive(Debug)]
pub(super) struct RejectedToken {
    pub(super) token: AccessToken,
    pub(super) generation: u64,
    /// The fetch that returned the token.
    pub(super) fetch: FetchId,
    /// The sequence number of the rejection.
    pub(super) sequence: u64,
    /// The token stays in use until a fetch that started after the rejection returns one.
    pub(super) is_pending: bool,
    /// The user withdrew it, not a response.
    pub(super) is_invalidated: bool,
}

impl State {
    /// Records that an API rejected the token of this generation.
    pub(crate) fn reject(&mut self, generation: u64, severity: Severity, now: Moment) -> Rejection {
        let current = match &self.current {
            // An expired token is replaced without a rejection.
            Some(current)
                if current.generation == generation
                    && !now.has_reached(current.lifespan.expired) =>
            {
                current
            }
            _ => return Rejection::Superseded,
        };
        if now.has_reached(current.lifespan.late) {
            // It is about to be replaced anyway, so it does not count.
            self.withdraw();
            return Rejection::Superseded;
        }
        if self.is_pending(generation) {
            if severity == Severity::Invalid {
                self.withdraw();
            }
            return Rejection::Superseded;
        }
        if !self.spacing.allows_rejection(now.monotonic()) {
            return Rejection::Spaced;
        }
        match severity {
            Severity::Invalid => self.withdraw(),
            Severity::Refused => self.mark_rejected(),
        }
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
            if let Some(rejected) = &mut self.rejected {
                rejected.is_invalidated = true;
            }
        }
        is_current
    }

    /// Records whether the replay of the request that caused a rejection was rejected too.
    pub(crate) fn record_replay(
        &mut self,
        rejection: RejectionId,
        rejected: bool,
    ) -> Option<NewTokens> {
        self.spacing.record_replay(rejection, rejected)
    }

    /// Records that the request that caused a rejection is not replayed: the first response to the
    /// new token decides in its place.
    pub(crate) fn abandon_replay(&mut self, rejection: RejectionId) {
        self.spacing.abandon_replay(rejection);
    }

    /// Records a response to a token whose responses are awaited.
    pub(crate) fn record_response(&mut self, generation: u64, rejected: bool) -> Option<NewTokens> {
        let is_current = self
            .current
            .as_ref()
            .is_some_and(|current| current.generation == generation);
        match is_current && !self.is_pending(generation) {
            true => self.spacing.record_response(rejected),
            false => None,
        }
    }

    /// Returns true if a response to the current token decides the spacing of rejections.
    pub(crate) fn awaits_response(&self) -> bool {
        self.spacing.awaits_response()
            && self
                .current
                .as_ref()
                .is_some_and(|current| !self.is_pending(current.generation))
    }

    /// Returns true if a text contains the current token or the one that was rejected last.
    pub(crate) fn occurs_in(&self, text: &str) -> bool {
        let current = self.current.as_ref().map(|current| &current.token);
        let rejected = self.rejected.as_ref().map(|rejected| &rejected.token);
        let mut tokens = current.into_iter().chain(rejected);
        tokens.any(|token| text.contains(token.expose_secret()))
    }

    /// Returns true if the token of this generation was rejected and stays in use until its
    /// successor arrives.
    pub(super) fn is_pending(&self, generation: u64) -> bool {
        self.rejected
            .as_ref()
            .is_some_and(|rejected| rejected.is_pending && rejected.generation == generation)
    }

    /// Notes the current token as rejected. It stays current.
    fn mark_rejected(&mut self) {
        self.sequence += 1;
        self.last_success = None;
        if let Some(current) = &self.current {
            self.rejected = Some(Box::new(RejectedToken {
                token: current.token.clone(),
                generation: current.generation,
                fetch: current.fetch,
                sequence: self.sequence,
                is_pending: true,
                is_invalidated: false,
            }));
        }
    }

    /// Notes the current token as rejected, and serves it no longer.
    fn withdraw(&mut self) {
        self.mark_rejected();
        if let Some(rejected) = &mut self.rejected {
            rejected.is_pending = false;
        }
        self.current = None;
    }
}
