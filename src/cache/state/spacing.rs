//! The minimum time between the refreshes that rejections cause.
//!
//! It doubles when a new token is rejected as well, so that an API that answers 401 to everything
//! costs few token requests. One response decides for each rejection: the replay of the request
//! that caused it or, without a replay, the first response to the new token.

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
    /// None: it is decided.
    Known,
    /// The response to the replay of the request that caused the rejection.
    Replay(RejectionId),
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
        self.verdict = Verdict::Replay(rejection);
    }

    pub(super) fn record_replay(&mut self, rejection: RejectionId, rejected: bool) {
        let is_last = self.verdict == Verdict::Replay(rejection);
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
        if self.verdict == Verdict::Replay(rejection) {
            self.verdict = Verdict::FirstResponse;
        }
    }

    /// Lets the first response decide if a replay would have: there will be none.
    pub(super) fn await_first_response(&mut self) {
        if let Verdict::Replay(rejection) = self.verdict {
            self.abandon_replay(rejection);
        }
    }

    pub(super) fn awaits_first_response(&self) -> bool {
        self.verdict == Verdict::FirstResponse
    }

    pub(super) fn record_first_response(&mut self, rejected: bool) {
        if self.verdict == Verdict::FirstResponse {
            if rejected {
                self.widen();
            }
            self.verdict = Verdict::Known;
        }
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
