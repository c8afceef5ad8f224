//! The steps of one request, decided in one place. No I/O: a driver sends, waits and asks here what
//! is next.
//!
//! ```text
//! open ─▶ copy ─▶ carry_at_once | acquire, carry ─▶ send ─▶ answered ─▶ return
//!   └─▶ pass                                                    └─▶ Replay: acquire ─▶ send ─▶ replayed
//! ```
//!
//! What is handed from step to step is kept to a few words. Measured: a request with a fresh token waits
//! less for what it computes than for what was stored a moment ago and is moved once more.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::AUTHORIZATION;

use crate::cache::TokenCache;
use crate::cache::cached_token::CachedToken;
use crate::cache::state::{Rejection, RejectionId};
use crate::error::{TokenError, TokenErrorKind};
use crate::exchange::message::{RequestView, ResponseView};
use crate::policy::attach::AttachPolicy;
use crate::policy::origin::Fingerprint;
use crate::policy::rejection::{BearerChallenge, RejectionPolicy};
use crate::policy::replay::ReplayPolicy;
use crate::request_auth::{Choice, RequestAuth};
use crate::token::request::TokenRequest;

pub(crate) mod message;
#[cfg(feature = "reqwest")]
mod reqwest;

/// What a layer and its services share.
///
/// Aligned, so that no copy of it is on the cache lines to which other threads write.
#[derive(Clone)]
#[repr(align(128))]
pub(crate) struct Settings {
    pub(crate) cache: TokenCache,
    pub(crate) attach: AttachPolicy,
    pub(crate) rejection: Option<Arc<dyn RejectionPolicy>>,
    pub(crate) replay: ReplayPolicy,
    pub(crate) require_request_auth: bool,
}

/// Which token a request is to carry, and where to.
pub(crate) struct RequestPlan {
    request: TokenRequest,
    destination: Fingerprint,
    replay: bool,
}

/// Which token a request carries.
#[derive(Clone, Copy)]
pub(crate) struct AttachedToken {
    generation: u64,
    on_probation: bool,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is the caller's.
    Return,
    /// Acquire another token, and see whether to send the request again: a [`Replay`]. With the
    /// rejection that this request caused, if it was this one.
    Renew(Option<RejectionId>),
}

/// One request whose token was refused, and that may be sent again with another. `S` is a hold on the
/// settings: borrowed, where that can be.
pub(crate) struct Replay<S: Deref<Target = Settings>> {
    settings: S,
    plan: RequestPlan,
    attached: AttachedToken,
    /// The rejection that still owes a verdict.
    owed: Option<RejectionId>,
}

impl Settings {
    pub(crate) fn new(cache: TokenCache) -> Self {
        Self {
            cache,
            attach: AttachPolicy::default(),
            rejection: None,
            replay: ReplayPolicy::default(),
            require_request_auth: false,
        }
    }

    /// Which token this request is to carry, if any. `own` is what it says itself. An error if it says
    /// nothing, and must.
    #[inline]
    pub(crate) fn open(
        &self,
        request: &impl RequestView,
        own: Option<&RequestAuth>,
    ) -> Result<Option<RequestPlan>, TokenError> {
        if request.headers().contains_key(AUTHORIZATION) {
            return Ok(None);
        }
        let Some(destination) = self.attach.admit(request.target()) else {
            return Ok(None);
        };
        let (choice, without_replay) = match (own, ambient()) {
            (None, None) => (None, false),
            (Some(own), task) => own.or(task).into_parts(),
            (None, Some(task)) => task.into_parts(),
        };
        let token_request = match choice {
            Some(Choice::Skip) => return Ok(None),
            Some(Choice::Token(request)) => request,
            None if self.require_request_auth => {
                return Err(TokenError::new(TokenErrorKind::RequestAuthMissing, false));
            }
            None => TokenRequest::default(),
        };
        Ok(Some(RequestPlan {
            request: token_request,
            destination,
            replay: self.replay.is_enabled() && !without_replay,
        }))
    }

    /// A copy to send again, if that may come to pass. To be made before the request carries a token.
    #[inline]
    pub(crate) fn copy<Q: RequestView>(&self, plan: &RequestPlan, request: &Q) -> Option<Q> {
        if plan.replay {
            request.copy(&self.replay)
        } else {
            None
        }
    }

    /// Puts the token into the request, if nothing else is to be done.
    #[inline]
    pub(crate) fn carry_at_once(
        &self,
        plan: &RequestPlan,
        request: &mut impl RequestView,
    ) -> Option<AttachedToken> {
        self.cache
            .if_in_order(&plan.request, |current| carry(current, request))
    }

    /// The token, which may have to be waited for.
    pub(crate) async fn acquire(&self, plan: &RequestPlan) -> Result<Arc<CachedToken>, TokenError> {
        self.cache.acquire(&plan.request).await
    }

    /// What to do with the first answer.
    #[inline]
    pub(crate) fn answered(
        &self,
        plan: &RequestPlan,
        attached: AttachedToken,
        answer: &impl ResponseView,
        has_copy: bool,
    ) -> Next {
        if self.is_refused(plan, attached, answer) {
            self.refused(plan, attached, has_copy)
        } else {
            Next::Return
        }
    }

    #[cold]
    fn refused(&self, plan: &RequestPlan, attached: AttachedToken, has_copy: bool) -> Next {
        let (cache, request) = (&self.cache, &plan.request);
        match cache.reject(request, attached.generation) {
            Rejection::Effective(rejection) if has_copy => Next::Renew(Some(rejection)),
            Rejection::Effective(rejection) => {
                cache.forgo(request, rejection);
                cache.renew(request);
                Next::Return
            }
            Rejection::Superseded if has_copy => Next::Renew(None),
            Rejection::Superseded | Rejection::Spaced => Next::Return,
        }
    }

    /// Whether the answer rejects the token that the request attached.
    #[inline]
    fn is_refused(
        &self,
        plan: &RequestPlan,
        attached: AttachedToken,
        answer: &impl ResponseView,
    ) -> bool {
        let refused = self.rejects(answer);
        (refused || attached.on_probation) && self.is_refused_here(plan, attached, answer, refused)
    }

    #[cold]
    fn is_refused_here(
        &self,
        plan: &RequestPlan,
        attached: AttachedToken,
        answer: &impl ResponseView,
        refused: bool,
    ) -> bool {
        // A client's own redirect may have led elsewhere, where nobody can judge this token.
        let origin = answer.origin();
        if origin.is_some_and(|it| it.fingerprint() != plan.destination) {
            return false;
        }
        if attached.on_probation {
            self.cache
                .first_answer(&plan.request, attached.generation, refused);
        }
        refused
    }

    #[inline]
    fn rejects(&self, answer: &impl ResponseView) -> bool {
        match &self.rejection {
            None => BearerChallenge.rejects(answer.status(), answer.headers()),
            Some(policy) => policy.rejects(answer.status(), answer.headers()),
        }
    }
}

/// Puts this token into the request.
#[inline]
pub(crate) fn carry(current: &CachedToken, request: &mut impl RequestView) -> AttachedToken {
    request
        .headers_mut()
        .insert(AUTHORIZATION, current.authorization().clone());
    AttachedToken {
        generation: current.generation,
        on_probation: current.on_probation.load(Ordering::Relaxed),
    }
}

impl<S: Deref<Target = Settings>> Replay<S> {
    pub(crate) fn new(
        settings: S,
        plan: RequestPlan,
        attached: AttachedToken,
        owed: Option<RejectionId>,
    ) -> Self {
        Self {
            settings,
            plan,
            attached,
            owed,
        }
    }

    /// Another token to send the request with again: not if there is none, or the same as before.
    pub(crate) async fn acquire(&mut self) -> Option<Arc<CachedToken>> {
        let another = self.settings.acquire(&self.plan).await.ok();
        let another = another.filter(|current| current.generation != self.attached.generation);
        if another.is_none() {
            self.forgo();
        }
        another
    }

    /// Puts the other token into the request.
    pub(crate) fn carry(&mut self, current: &CachedToken, request: &mut impl RequestView) {
        self.attached = carry(current, request);
    }

    /// The second answer came. It is the caller's in any case.
    pub(crate) fn replayed(&mut self, answer: &impl ResponseView) {
        let (settings, plan) = (&*self.settings, &self.plan);
        let refused = settings.is_refused(plan, self.attached, answer);
        if let Some(rejection) = self.owed.take() {
            settings.cache.judge(&plan.request, rejection, refused);
        }
    }

    fn forgo(&mut self) {
        if let Some(rejection) = self.owed.take() {
            self.settings.cache.forgo(&self.plan.request, rejection);
        }
    }
}

/// A request that is given up in mid-way leaves the verdict to others.
impl<S: Deref<Target = Settings>> Drop for Replay<S> {
    fn drop(&mut self) {
        self.forgo();
    }
}

/// What the task says that runs this.
fn ambient() -> Option<RequestAuth> {
    #[cfg(feature = "task-local")]
    return crate::task_local::current();
    #[cfg(not(feature = "task-local"))]
    None
}
