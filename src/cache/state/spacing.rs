//! The minimum time between the refreshes that rejections cause.
//!
//! It doubles when a new token is rejected as well, so that an API that answers 401 to everything
//! costs few token requests. One response decides for each rejection: the replay of the request
//! that caused it or, without a replay, the first response to the new token. If another request is
//! accepted before a replay is abandoned, that settles the matter, and the spacing stays.
//!
//! An operator is told once when the spacing has reached its end, and once when a new token is
//! accepted after that. If some requests are accepted while others are rejected, only an accepted
//! replay counts, or the two reports would alternate.

use std::time::Duration;

use crate::cache::state::NewTokens;

const MIN_SPACING: Duration = Duration::from_secs(1);
const MAX_SPACING: Duration = Duration::from_secs(10);
/// After this time without a rejection, the next one is judged anew.
const MEMORY: Duration = Duration::from_secs(600);

/// The number of a rejection that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RejectionId(pub(super) u64);

#[derive(Debug)]
pub(super) struct RejectionSpacing {
    last: Option<Duration>,
    pub(super) spacing: Duration,
    verdict: Verdict,
    /// The spacing has reached its end, and no new token was accepted since.
    is_at_end: bool,
    /// Some requests are accepted with tokens that are rejected for others.
    is_mixed: bool,
}

/// The response that decides whether the refresh after the last rejection has helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// No response is awaited.
    Known,
    /// The response to the replay of the request that caused the rejection.
    Replay {
        rejection: RejectionId,
        /// Another request has been accepted with the new token. If the replay is abandoned, that
        /// decides.
        accepted: bool,
    },
    /// The first response to the new token. An acceptance leaves the spacing as it is.
    FirstResponse,
    /// The first acceptance of a token that was rejected at the end of the spacing.
    Recovery,
}

impl RejectionSpacing {
    /// Returns true if the last rejection is long enough ago.
    pub(super) fn allows_rejection(&self, now: Duration) -> bool {
        self.last
            .is_none_or(|last| now >= last.saturating_add(self.spacing))
    }

    /// Records a rejection that takes effect now.
    pub(super) fn begin(&mut self, rejection: RejectionId, now: Duration) {
        let was_recent = self
            .last
            .is_some_and(|last| now < last.saturating_add(MEMORY));
        self.is_mixed &= was_recent;
        self.last = Some(now);
        self.verdict = Verdict::Replay {
            rejection,
            accepted: false,
        };
    }

    pub(super) fn record_replay(
        &mut self,
        rejection: RejectionId,
        rejected: bool,
    ) -> Option<NewTokens> {
        let is_last = self.is_pending(rejection);
        if rejected {
            self.is_mixed |= is_last && !self.awaits_response();
            // Counts even if another request has caused a rejection since.
            let change = self.widen();
            if is_last {
                self.await_recovery();
            }
            return change;
        }
        if !is_last {
            return None;
        }
        self.spacing = MIN_SPACING;
        self.is_mixed = false;
        self.verdict = Verdict::Known;
        self.recover()
    }

    pub(super) fn abandon_replay(&mut self, rejection: RejectionId) {
        if self.is_pending(rejection) {
            self.await_first_response();
        }
    }

    /// Lets the first response decide if a replay would have: there will be none.
    pub(super) fn await_first_response(&mut self) {
        if let Verdict::Replay { accepted, .. } = self.verdict {
            self.verdict = match accepted {
                true => Verdict::Known,
                false => Verdict::FirstResponse,
            };
        }
    }

    /// Returns true if a response to the new token is of interest.
    pub(super) fn awaits_response(&self) -> bool {
        match self.verdict {
            Verdict::Known => false,
            Verdict::Replay { accepted, .. } => !accepted,
            Verdict::FirstResponse | Verdict::Recovery => true,
        }
    }

    /// Records a response to the new token.
    pub(super) fn record_response(&mut self, rejected: bool) -> Option<NewTokens> {
        match (&mut self.verdict, rejected) {
            (Verdict::Known, _) | (Verdict::Recovery, true) => None,
            (Verdict::Replay { accepted, .. }, _) => {
                *accepted |= !rejected;
                None
            }
            (Verdict::FirstResponse, true) => {
                let change = self.widen();
                self.await_recovery();
                change
            }
            (Verdict::FirstResponse | Verdict::Recovery, false) => {
                self.verdict = Verdict::Known;
                if self.is_mixed {
                    return None;
                }
                // If another rejection follows, this was another request's acceptance.
                self.is_mixed = self.is_at_end;
                self.recover()
            }
        }
    }

    fn is_pending(&self, id: RejectionId) -> bool {
        matches!(self.verdict, Verdict::Replay { rejection, .. } if rejection == id)
    }

    fn widen(&mut self) -> Option<NewTokens> {
        self.spacing = (self.spacing * 2).min(MAX_SPACING);
        let was_at_end = self.is_at_end;
        self.is_at_end = self.spacing == MAX_SPACING;
        (self.is_at_end && !was_at_end).then_some(NewTokens::Rejected)
    }

    /// Ends a verdict by a rejection. At the end of the spacing, the next acceptance is awaited.
    fn await_recovery(&mut self) {
        self.verdict = match self.is_at_end && !self.is_mixed {
            true => Verdict::Recovery,
            false => Verdict::Known,
        };
    }

    fn recover(&mut self) -> Option<NewTokens> {
        let was_at_end = std::mem::take(&mut self.is_at_end);
        was_at_end.then_some(NewTokens::Accepted)
    }
}

impl Default for RejectionSpacing {
    fn default() -> Self {
        Self {
            last: None,
            spacing: MIN_SPACING,
            verdict: Verdict::Known,
            is_at_end: false,
            is_mixed: false,
        }
    }
}
