//! The minimum time between the refreshes that rejections cause.
//!
//! It doubles when a new token is rejected as well, so that an API that answers 401 to everything
//! costs few token requests. One response decides for each rejection: the replay of the request
//! that caused it or, without a replay, the first response to the new token. If another request is
//! accepted before a replay is abandoned, that settles the matter, and the spacing stays.

use std::time::Duration;

const MIN_SPACING: Duration = Duration::from_secs(1);
const MAX_SPACING: Duration = Duration::from_secs(10);

/// The number of a rejection that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RejectionId(pub(super) u64);

#[derive(Debug)]
pub(super) struct RejectionSpacing {
    last: Option<Duration>,
    pub(super) spacing: Duration,
    verdict: Verdict,
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
}

impl RejectionSpacing {
    /// Returns true if the last rejection is long enough ago.
    pub(super) fn allows_rejection(&self, now: Duration) -> bool {
        self.last
            .is_none_or(|last| now >= last.saturating_add(self.spacing))
    }

    /// Records a rejection that takes effect now.
    pub(super) fn begin(&mut self, rejection: RejectionId, now: Duration) {
        self.last = Some(now);
        self.verdict = Verdict::Replay {
            rejection,
            accepted: false,
        };
    }

    pub(super) fn record_replay(&mut self, rejection: RejectionId, rejected: bool) {
        let is_last = self.is_pending(rejection);
        if rejected {
            // Counts even if another request has caused a rejection since.
            self.widen();
        } else if is_last {
            self.spacing = MIN_SPACING;
        }
        if is_last {
            self.verdict = Verdict::Known;
        }
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
            Verdict::FirstResponse => true,
        }
    }

    /// Records a response to the new token.
    pub(super) fn record_response(&mut self, rejected: bool) {
        match &mut self.verdict {
            Verdict::Known => {}
            Verdict::Replay { accepted, .. } => *accepted |= !rejected,
            Verdict::FirstResponse => {
                if rejected {
                    self.widen();
                }
                self.verdict = Verdict::Known;
            }
        }
    }

    fn is_pending(&self, id: RejectionId) -> bool {
        matches!(self.verdict, Verdict::Replay { rejection, .. } if rejection == id)
    }

    fn widen(&mut self) {
        self.spacing = (self.spacing * 2).min(MAX_SPACING);
    }
}

impl Default for RejectionSpacing {
    fn default() -> Self {
        Self {
            last: None,
            spacing: MIN_SPACING,
            verdict: Verdict::Known,
        }
    }
}
