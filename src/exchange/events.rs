//! The events of requests.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use http::header::AUTHORIZATION;

use crate::cache::state::NewTokens;
use crate::exchange::message::{CopyView, RequestView, ResponseView};
use crate::exchange::{Replay, RequestPlan, Settings, choose};
use crate::observe::{
    Event, NoTokenReason, RejectingResponse, ReplayObstacle, ReplayOutcome, RequestOrigin,
};
use crate::policy::origin::Target;
use crate::policy::rejection::error_code;
use crate::policy::replay::Kept;
use crate::request_auth::{Choice, RequestAuth};

impl Settings {
    /// Emits that a request passes through because its token was not attached.
    #[cold]
    pub(super) fn not_attached(&self, request: &impl RequestView) {
        let reason = match request.headers().contains_key(AUTHORIZATION) {
            true => NoTokenReason::HeaderIsSet,
            false => NoTokenReason::TooManyHeaders,
        };
        self.pass_through(reason, request);
    }

    /// Emits that a request passes through without a token. Takes the request itself, so that the
    /// hot path prepares nothing for this.
    #[cold]
    pub(super) fn pass_through(&self, reason: NoTokenReason, request: &impl RequestView) {
        self.has_matched.store(true, Ordering::Relaxed);
        self.sent_without_token(reason, request);
    }

    /// Emits that a request to another origin is sent without a token. A request that wants none
    /// is no mistake.
    #[cold]
    pub(super) fn not_admitted(&self, request: &impl RequestView, own: Option<&RequestAuth>) {
        let reason = match choose(own).0 {
            Some(Choice::Skip) => NoTokenReason::Skipped,
            _ => NoTokenReason::OriginNotAllowed,
        };
        self.sent_without_token(reason, request);
    }

    fn sent_without_token(&self, reason: NoTokenReason, request: &impl RequestView) {
        self.cache.observers().emit(|| Event::SentWithoutToken {
            reason,
            origin: RequestOrigin(request.target()),
            has_matched: self.has_matched.load(Ordering::Relaxed),
        });
    }

    /// Calls `f` with what observers may know of a response that rejects the token of a request.
    pub(super) fn with_rejecting_response<Q: RequestView, R>(
        &self,
        plan: &RequestPlan,
        response: &impl ResponseView,
        kept: &Kept<Q>,
        f: impl FnOnce(RejectingResponse<'_>) -> R,
    ) -> R {
        let cache = &self.cache;
        let code = match cache.observers().is_empty() {
            true => None,
            false => error_code(response.headers()),
        };
        f(RejectingResponse {
            status: response.status(),
            origin: RequestOrigin(self.origin(plan, response, kept)),
            challenge_error: code
                .as_deref()
                .filter(|code| !cache.occurs_in(&plan.token_request, code)),
        })
    }

    /// Emits a change in what is known of new tokens, which this response caused.
    pub(super) fn report_new_tokens<Q: RequestView>(
        &self,
        change: Option<NewTokens>,
        plan: &RequestPlan,
        response: &impl ResponseView,
        kept: &Kept<Q>,
    ) {
        let (observers, token_request) = (self.cache.observers(), &plan.token_request);
        match change {
            Some(NewTokens::Rejected) => {
                self.with_rejecting_response(plan, response, kept, |response| {
                    observers.emit(|| Event::NewTokensRejected {
                        token_request,
                        response,
                    });
                });
            }
            Some(NewTokens::Accepted) => {
                observers.emit(|| Event::NewTokensAccepted { token_request });
            }
            None => {}
        }
    }

    /// Returns the origin that a request went to, as far as it is known.
    fn origin<'a, Q: RequestView>(
        &'a self,
        plan: &RequestPlan,
        response: &'a impl ResponseView,
        kept: &'a Kept<Q>,
    ) -> Target<'a> {
        let of_settings = self.attach.origin_of(plan.destination);
        of_settings.unwrap_or_else(|| match (kept, response.location()) {
            (Kept::Copy(copy), _) => copy.location().target,
            (Kept::Origin(kept), _) => kept.as_target(),
            (Kept::Nothing, Some(location)) => location.target,
            (Kept::Nothing, None) => Target::Other,
        })
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
