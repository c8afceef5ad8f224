//! The events of requests.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use http::header::AUTHORIZATION;

use crate::exchange::message::RequestView;
use crate::exchange::{Replay, RequestPlan, Settings};
use crate::observe::{Event, NoTokenReason, ReplayObstacle, ReplayOutcome, RequestOrigin};
use crate::policy::origin::Target;

impl Settings {
    /// Emits that a request passes through because its token was not attached.
    #[cold]
    pub(super) fn not_attached(&self, request: &impl RequestView) {
        let reason = match request.headers().contains_key(AUTHORIZATION) {
            true => NoTokenReason::HeaderIsSet,
            false => NoTokenReason::TooManyHeaders,
        };
        self.pass_through(reason, request.target());
    }

    /// Emits that a request passes through without a token.
    #[cold]
    pub(super) fn pass_through(&self, reason: NoTokenReason, target: Target<'_>) {
        if reason != NoTokenReason::OriginNotAllowed {
            self.has_matched.store(true, Ordering::Relaxed);
        }
        self.cache.observers().emit(|| Event::SentWithoutToken {
            reason,
            origin: RequestOrigin(target),
            has_matched: self.has_matched.load(Ordering::Relaxed),
        });
    }

    /// Emits the outcome of a replay.
    pub(super) fn report_replay(&self, plan: &RequestPlan, outcome: ReplayOutcome) {
        self.cache.observers().emit(|| Event::ReplayFinished {
            token_request: &plan.token_request,
            outcome,
        });
    }
}

impl<S: Deref<Target = Settings>> Replay<S> {
    /// Records that the request is not sent again.
    pub(crate) fn give_up(&mut self, obstacle: ReplayObstacle) {
        self.abandon();
        self.report(ReplayOutcome::NotPossible(obstacle));
    }

    /// Emits the outcome, once.
    pub(super) fn report(&mut self, outcome: ReplayOutcome) {
        if !self.is_reported {
            self.is_reported = true;
            self.settings.report_replay(&self.plan, outcome);
        }
    }
}
