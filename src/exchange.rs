//! The steps of one request, decided in one place. No I/O: the drivers (the tower service and the
//! reqwest middleware) send and wait, and ask here for the next step.
//!
//! ```text
//! plan ─▶ keep ─▶ attach_cached, or acquire and attach ─▶ send ─▶ next_step ─▶ return
//!   └─▶ pass through ◀─┘                                            └─▶ Replay
//! ```
//!
//! The values passed between steps are small, because moving them dominates the cost of the hot
//! path (it is bound by store forwarding).

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use http::header::{AUTHORIZATION, Entry};

use crate::cache::TokenCache;
use crate::cache::cached_token::CachedToken;
use crate::cache::state::{Rejection, RejectionId, Severity};
use crate::error::{TokenError, TokenErrorKind};
use crate::exchange::message::{CopyView, RequestView, ResponseView};
use crate::observe::{NoTokenReason, ReplayObstacle, ReplayOutcome};
use crate::policy::attach::{AttachPolicy, Destination};
use crate::policy::origin::Target;
use crate::policy::rejection::{BearerChallenge, RejectionPolicy, says_invalid_token};
use crate::policy::replay::{Kept, ReplayPolicy};
use crate::request_auth::{Choice, RequestAuth};
use crate::token::request::TokenRequest;

mod events;
pub(crate) mod message;
mod receive;

/// The settings of a layer, which its services share.
///
/// Aligned so that it shares no cache line with values that other threads write.
#[derive(Clone)]
#[repr(align(128))]
pub(crate) struct Settings {
    pub(crate) cache: TokenCache,
    pub(crate) attach: AttachPolicy,
    pub(crate) rejection: Option<Arc<dyn RejectionPolicy>>,
    pub(crate) replay: ReplayPolicy,
    pub(crate) require_request_auth: bool,
    /// A request to an allowed origin was seen on a slow path. Clones of the layer share it.
    pub(crate) has_matched: Arc<AtomicBool>,
}

/// The token that a request needs and where it goes.
pub(crate) struct RequestPlan {
    token_request: TokenRequest,
    destination: Destination,
    replay: bool,
}

/// The token that was attached to a request.
#[derive(Clone, Copy)]
pub(crate) struct AttachedToken {
    generation: u64,
    awaits_response: bool,
}

/// The result of trying to attach a token without waiting.
pub(crate) enum Attach {
    Attached(AttachedToken),
    /// The caller has set the header, which is left as it is.
    HeaderIsSet,
    /// No token is usable without starting a refresh.
    NoToken,
}

/// The step that follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Return the response to the caller.
    Return,
    /// Try to replay the request with another token, see [`Replay`]. Contains the rejection if this
    /// request caused it.
    Replay(Option<RejectionId>),
}

/// One request whose token was rejected and that may be replayed with another.
///
/// `S` is a borrow of the settings or a handle to them. If it is dropped before the response to the
/// replay, the first response to the new token decides in its place.
pub(crate) struct Replay<S: Deref<Target = Settings>> {
    settings: S,
    plan: RequestPlan,
    attached: AttachedToken,
    /// The rejection whose verdict depends on this replay.
    pending_verdict: Option<RejectionId>,
    /// Observers know the outcome.
    is_reported: bool,
}

impl Settings {
    pub(crate) fn new(cache: TokenCache) -> Self {
        Self {
            cache,
            attach: AttachPolicy::default(),
            rejection: None,
            replay: ReplayPolicy::default(),
            require_request_auth: false,
            has_matched: Arc::default(),
        }
    }

    /// Decides which token this request gets, if any. `own` is the choice of the request itself.
    ///
    /// Returns an error if a choice is required and neither the request nor its task made one.
    #[inline]
    pub(crate) fn plan(
        &self,
        request: &impl RequestView,
        own: Option<&RequestAuth>,
    ) -> Result<Option<RequestPlan>, TokenError> {
        let Some(destination) = self.attach.admit(request.target()) else {
            self.not_admitted(request, own);
            return Ok(None);
        };
        let (choice, without_replay) = choose(own);
        let token_request = match choice {
            Some(Choice::Skip) => {
                self.pass_through(NoTokenReason::Skipped, request);
                return Ok(None);
            }
            Some(Choice::Token(request)) => request,
            None if self.require_request_auth && !request.headers().contains_key(AUTHORIZATION) => {
                return Err(no_choice());
            }
            None => TokenRequest::default(),
        };
        Ok(Some(RequestPlan {
            token_request,
            destination,
            replay: self.replay.is_enabled() && !without_replay,
        }))
    }

    /// Copies the request for a replay or, without a copy, notes its origin. Called before a token
    /// is attached.
    #[inline]
    pub(crate) fn keep<Q: RequestView>(&self, plan: &RequestPlan, request: &mut Q) -> Kept<Q> {
        if plan.replay
            && let Some(copy) = request.copy(&self.replay)
        {
            return Kept::Copy(copy);
        }
        match plan.destination {
            Destination::Allowed(_) | Destination::PathOnly => Kept::Nothing,
            Destination::Named => request.origin_to_keep().map_or(Kept::Nothing, Kept::Origin),
        }
    }

    /// Attaches the cached token to the request if it is usable without starting a refresh.
    #[inline]
    pub(crate) fn attach_cached(
        &self,
        plan: &RequestPlan,
        request: &mut impl RequestView,
    ) -> Attach {
        let attached = self
            .cache
            .if_usable(&plan.token_request, |token| attach(token, request));
        match attached {
            Some(Some(attached)) => return Attach::Attached(attached),
            None if !request.headers().contains_key(AUTHORIZATION) => return Attach::NoToken,
            Some(None) | None => {}
        }
        self.not_attached(request);
        Attach::HeaderIsSet
    }

    /// Attaches a token that the request waited for, unless it has no room for the header.
    pub(crate) fn attach(
        &self,
        token: &CachedToken,
        request: &mut impl RequestView,
    ) -> Option<AttachedToken> {
        let attached = attach(token, request);
        if attached.is_none() {
            self.not_attached(request);
        }
        attached
    }

    /// Returns the token of the plan, after waiting for it if necessary.
    pub(crate) fn acquire<'a>(
        &'a self,
        plan: &'a RequestPlan,
    ) -> impl Future<Output = Result<Arc<CachedToken>, TokenError>> + use<'a> {
        self.has_matched.store(true, Ordering::Relaxed);
        self.cache.acquire(&plan.token_request, None)
    }

    /// Decides what follows the first response. If the response rejects the token, the request is
    /// not replayed and the refresh fails at once, adds that error to its extensions.
    #[inline]
    pub(crate) fn next_step<Q: RequestView>(
        &self,
        plan: &RequestPlan,
        attached: AttachedToken,
        response: &mut impl ResponseView,
        kept: &Kept<Q>,
    ) -> NextStep {
        if self.is_rejected(plan, attached, response, kept) {
            let obstacle = obstacle(plan, kept, response);
            self.reject(plan, attached, response, kept, obstacle)
        } else {
            NextStep::Return
        }
    }

    /// Rejects the token. If the request cannot be replayed, starts the refresh for the next one;
    /// an error that prevents it is added to the extensions of `response`.
    #[cold]
    fn reject<Q: RequestView>(
        &self,
        plan: &RequestPlan,
        attached: AttachedToken,
        response: &mut impl ResponseView,
        kept: &Kept<Q>,
        obstacle: Option<ReplayObstacle>,
    ) -> NextStep {
        let (cache, request) = (&self.cache, &plan.token_request);
        self.has_matched.store(true, Ordering::Relaxed);
        let severity = match says_invalid_token(response.status(), response.headers()) {
            true => Severity::Invalid,
            false => Severity::Refused,
        };
        let rejection = self.with_rejecting_response(plan, response, kept, |response| {
            cache.reject(request, attached.generation, severity, response)
        });
        let rejection = match rejection {
            Rejection::Effective(rejection) => Some(rejection),
            Rejection::Superseded => None,
            Rejection::Spaced => return NextStep::Return,
        };
        let Some(obstacle) = obstacle else {
            return NextStep::Replay(rejection);
        };
        if let Some(rejection) = rejection {
            cache.abandon_replay(request, rejection);
        }
        if let Err(error) = cache.refresh(request, attached.generation) {
            response.extensions_mut().insert(error);
        }
        self.report_replay(plan, ReplayOutcome::NotPossible(obstacle));
        NextStep::Return
    }

    /// Returns true if the response rejects the token that the request carried.
    #[inline]
    fn is_rejected<Q: RequestView>(
        &self,
        plan: &RequestPlan,
        attached: AttachedToken,
        response: &impl ResponseView,
        kept: &Kept<Q>,
    ) -> bool {
        let rejects = self.rejects(response);
        (rejects || attached.awaits_response)
            && self.record_response(plan, attached, response, kept, rejects)
    }

    /// Records a response that rejects the token or is the first one to it. Returns true if it
    /// rejects the token.
    #[cold]
    fn record_response<Q: RequestView>(
        &self,
        plan: &RequestPlan,
        attached: AttachedToken,
        response: &impl ResponseView,
        kept: &Kept<Q>,
        rejects: bool,
    ) -> bool {
        // The client may have followed a redirect to an origin that cannot judge this token.
        let origin = response.location().map(|location| location.target);
        let is_foreign = origin.is_some_and(|origin| match (plan.destination, kept) {
            (Destination::Allowed(index), _) => !self.attach.is_allowed_origin(index, origin),
            (Destination::PathOnly, _) => !matches!(origin, Target::PathOnly),
            (Destination::Named, Kept::Copy(copy)) => {
                !copy.location().target.is_same_origin(origin)
            }
            (Destination::Named, Kept::Origin(kept)) => !kept.is_same_origin(origin),
            (Destination::Named, Kept::Nothing) => false,
        });
        if is_foreign {
            return false;
        }
        if attached.awaits_response {
            let (request, generation) = (&plan.token_request, attached.generation);
            let change = self.cache.record_response(request, generation, rejects);
            self.report_new_tokens(change, plan, response, kept);
        }
        rejects
    }

    #[inline]
    fn rejects(&self, response: &impl ResponseView) -> bool {
        match &self.rejection {
            None => BearerChallenge.rejects(response.status(), response.headers()),
            Some(policy) => policy.rejects(response.status(), response.headers()),
        }
    }
}

/// Returns what keeps the request from being replayed after this response, if anything does.
///
/// The server that redirected a request may have processed it, so a redirected request is replayed
/// only if its method is safe (RFC 9110 §9.2.1).
#[cold]
fn obstacle<Q: RequestView>(
    plan: &RequestPlan,
    kept: &Kept<Q>,
    response: &impl ResponseView,
) -> Option<ReplayObstacle> {
    let Kept::Copy(copy) = kept else {
        return Some(match plan.replay {
            true => ReplayObstacle::Body,
            false => ReplayObstacle::Disabled,
        });
    };
    if !copy.can_begin_replay() {
        return Some(ReplayObstacle::Body);
    }
    let is_redirected = response
        .location()
        .is_some_and(|location| !location.is_same(copy.location()));
    let is_unsafe = is_redirected && !copy.method().is_safe();
    is_unsafe.then_some(ReplayObstacle::Redirected)
}

/// Attaches the token to the request, unless the caller has set the header.
#[inline]
fn attach(token: &CachedToken, request: &mut impl RequestView) -> Option<AttachedToken> {
    let headers = request.headers_mut();
    // One lookup both finds a header and adds one, where `contains_key` and `insert` take two.
    match headers.try_append(AUTHORIZATION, token.authorization().clone()) {
        Ok(false) => {}
        Ok(true) => {
            remove_appended(headers);
            return None;
        }
        // A map with the most headers that it can hold.
        Err(_) => return None,
    }
    Some(AttachedToken {
        generation: token.generation(),
        awaits_response: token.awaits_response(),
    })
}

/// Removes the last value of the header, which the caller had set before.
#[cold]
fn remove_appended(headers: &mut HeaderMap) {
    if let Ok(Entry::Occupied(mut entry)) = headers.try_entry(AUTHORIZATION) {
        let values: Vec<_> = entry.iter().cloned().collect();
        if let [first, others @ .., _] = values.as_slice() {
            entry.insert(first.clone());
            for value in others {
                entry.append(value.clone());
            }
        }
    }
}

impl<S: Deref<Target = Settings>> Replay<S> {
    pub(crate) fn new(
        settings: S,
        plan: RequestPlan,
        attached: AttachedToken,
        pending_verdict: Option<RejectionId>,
    ) -> Self {
        Self {
            settings,
            plan,
            attached,
            pending_verdict,
            is_reported: false,
        }
    }

    /// Returns another token for the replay, or `None` if there is none or it is the same.
    ///
    /// If the refresh failed or is paused, adds the error to the extensions of `rejection`.
    pub(crate) async fn acquire(
        &mut self,
        rejection: &mut impl ResponseView,
    ) -> Option<Arc<CachedToken>> {
        let (cache, rejected) = (&self.settings.cache, self.attached.generation);
        let token = cache
            .acquire(&self.plan.token_request, Some(rejected))
            .await;
        let obstacle = match token {
            Ok(token) if token.generation() != rejected => return Some(token),
            Ok(_) => ReplayObstacle::SameToken,
            Err(error) => {
                rejection.extensions_mut().insert(error);
                ReplayObstacle::NoToken
            }
        };
        self.give_up(obstacle);
        None
    }

    /// Makes the replay of the copy and the other token. Returns also what to keep of it until the
    /// response.
    pub(crate) fn attach<Q: RequestView>(
        &mut self,
        token: &CachedToken,
        copy: Q::Copy,
    ) -> (Q, Kept<Q>) {
        let mut request = Q::from_copy(copy);
        self.plan.replay = false;
        let kept = self.settings.keep(&self.plan, &mut request);
        // The copy has no such header: it was made of a request that got a token.
        if let Some(attached) = attach(token, &mut request) {
            self.attached = attached;
        }
        (request, kept)
    }

    fn abandon(&mut self) {
        if let Some(rejection) = self.pending_verdict.take() {
            self.settings
                .cache
                .abandon_replay(&self.plan.token_request, rejection);
        }
    }
}

impl<S: Deref<Target = Settings>> Drop for Replay<S> {
    fn drop(&mut self) {
        self.abandon();
        self.report(ReplayOutcome::Cancelled);
    }
}

#[cold]
fn no_choice() -> TokenError {
    TokenError::new(TokenErrorKind::RequestAuthMissing, false)
}

/// Returns the choice of the request itself, completed by that of its task, and true if the request
/// is not to be replayed.
#[inline]
fn choose(own: Option<&RequestAuth>) -> (Option<Choice>, bool) {
    match (own, from_task()) {
        (None, None) => (None, false),
        (Some(own), task) => own.or(task).into_parts(),
        (None, Some(task)) => task.into_parts(),
    }
}

/// Returns the choice of the current task.
#[inline]
fn from_task() -> Option<RequestAuth> {
    #[cfg(feature = "task-local")]
    return crate::task_local::current();
    #[cfg(not(feature = "task-local"))]
    None
}
