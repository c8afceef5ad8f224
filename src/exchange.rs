//! The steps of one request, decided in one place. No I/O: a driver sends, waits and asks here what
//! is next.
//!
//! ```text
//! open ─▶ (fresh | acquire) ─▶ carry ─▶ send ─▶ answered ─▶ return
//!   └─▶ pass                                       └─▶ Renewal: acquire ─▶ send ─▶ replayed
//! ```

use std::ops::Deref;
use std::sync::Arc;

use http::header::AUTHORIZATION;

use crate::cache::state::{Rejection, RejectionId};
use crate::cache::{Granted, TokenCache};
use crate::error::{TokenError, TokenErrorKind};
use crate::message::{Answer, Outgoing};
use crate::policy::attach::{AttachPolicy, Fingerprint};
use crate::policy::rejection::{BearerChallenge, RejectionPolicy};
use crate::policy::replay::ReplayPolicy;
use crate::request_auth::{Choice, RequestAuth};
use crate::token_request::TokenRequest;

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

/// How a request begins.
pub(crate) enum Opening<S: Deref<Target = Settings>> {
    /// It goes out as it is.
    Pass,
    /// It carries a token.
    Carry(Exchange<S>),
    /// It doesn't go out.
    Refuse(TokenError),
}

/// One request that carries a token. `S` is a hold on the settings: borrowed, where that can be.
pub(crate) struct Exchange<S: Deref<Target = Settings>> {
    settings: S,
    request: TokenRequest,
    /// Where the token went.
    destination: Fingerprint,
    generation: u64,
    replay: bool,
    on_probation: bool,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is the caller's.
    Return,
    /// Acquire another token, and see whether to send the request again: a [`Renewal`]. With the
    /// rejection that this request caused, if it was this one.
    Renew(Option<RejectionId>),
}

/// One request whose token was refused, and that may be sent again with another.
pub(crate) struct Renewal<S: Deref<Target = Settings>> {
    exchange: Exchange<S>,
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

    fn rejects(&self, answer: &impl Answer) -> bool {
        match &self.rejection {
            None => BearerChallenge.rejects(answer.status(), answer.headers()),
            Some(policy) => policy.rejects(answer.status(), answer.headers()),
        }
    }
}

impl<S: Deref<Target = Settings>> Exchange<S> {
    /// Which token this request is to carry, if any.
    #[inline]
    pub(crate) fn open(
        settings: S,
        request: &impl Outgoing,
        own: Option<&RequestAuth>,
    ) -> Opening<S> {
        if request.headers().contains_key(AUTHORIZATION) {
            return Opening::Pass;
        }
        let Some(destination) = settings.attach.admit(request.target()) else {
            return Opening::Pass;
        };
        let (choice, without_replay) = match (own, ambient()) {
            (None, None) => (None, false),
            (Some(own), task) => own.or(task).into_parts(),
            (None, Some(task)) => task.into_parts(),
        };
        let token_request = match choice {
            Some(Choice::Skip) => return Opening::Pass,
            Some(Choice::Token(request)) => request,
            None if settings.require_request_auth => {
                return Opening::Refuse(TokenError::new(TokenErrorKind::RequestAuthMissing, false));
            }
            None => TokenRequest::default(),
        };
        let replay = settings.replay.is_enabled() && !without_replay;
        Opening::Carry(Self {
            settings,
            request: token_request,
            destination,
            generation: 0,
            replay,
            on_probation: false,
        })
    }

    /// The token, if it is fresh.
    #[inline]
    pub(crate) fn fresh(&self) -> Option<Granted> {
        self.settings.cache.fresh(&self.request)
    }

    /// The token, which may have to be waited for.
    pub(crate) async fn acquire(&self) -> Result<Granted, TokenError> {
        self.settings.cache.acquire(&self.request).await
    }

    /// A copy to send again, if that may come to pass. To be made before the header is set.
    #[inline]
    pub(crate) fn copy<Q: Outgoing>(&self, request: &Q) -> Option<Q> {
        if self.replay {
            request.copy(&self.settings.replay)
        } else {
            None
        }
    }

    /// Puts the token into the request.
    #[inline]
    pub(crate) fn carry(&mut self, granted: Granted, request: &mut impl Outgoing) {
        self.generation = granted.generation;
        self.on_probation = granted.on_probation;
        request
            .headers_mut()
            .insert(AUTHORIZATION, granted.authorization);
    }

    /// What to do with the first answer.
    #[inline]
    pub(crate) fn answered(&self, answer: &impl Answer, has_copy: bool) -> Next {
        if !self.is_refused(answer) {
            return Next::Return;
        }
        let cache = &self.settings.cache;
        match cache.reject(&self.request, self.generation) {
            Rejection::Effective(rejection) if has_copy => Next::Renew(Some(rejection)),
            Rejection::Effective(rejection) => {
                cache.forgo(&self.request, rejection);
                cache.renew(&self.request);
                Next::Return
            }
            Rejection::Superseded if has_copy => Next::Renew(None),
            Rejection::Superseded | Rejection::Spaced => Next::Return,
        }
    }

    /// Whether the answer rejects the token that the request carried.
    #[inline]
    fn is_refused(&self, answer: &impl Answer) -> bool {
        let refused = self.settings.rejects(answer);
        (refused || self.on_probation) && self.is_refused_here(answer, refused)
    }

    #[cold]
    fn is_refused_here(&self, answer: &impl Answer, refused: bool) -> bool {
        // A client's own redirect may have led elsewhere, where nobody can judge this token.
        if answer
            .origin()
            .is_some_and(|it| it.fingerprint() != self.destination)
        {
            return false;
        }
        if self.on_probation {
            self.settings
                .cache
                .first_answer(&self.request, self.generation, refused);
        }
        refused
    }
}

impl<S: Deref<Target = Settings>> Renewal<S> {
    pub(crate) fn new(exchange: Exchange<S>, owed: Option<RejectionId>) -> Self {
        Self { exchange, owed }
    }

    /// Another token to send the request with again: not if there is none, or the same as before.
    pub(crate) async fn acquire(&mut self) -> Option<Granted> {
        let another = self.exchange.acquire().await.ok();
        let another = another.filter(|granted| granted.generation != self.exchange.generation);
        if another.is_none() {
            self.forgo();
        }
        another
    }

    /// Puts the other token into the request.
    pub(crate) fn carry(&mut self, granted: Granted, request: &mut impl Outgoing) {
        self.exchange.carry(granted, request);
    }

    /// The second answer came. It is the caller's in any case.
    pub(crate) fn replayed(&mut self, answer: &impl Answer) {
        let Exchange {
            settings, request, ..
        } = &self.exchange;
        let refused = self.exchange.is_refused(answer);
        if let Some(rejection) = self.owed.take() {
            settings.cache.judge(request, rejection, refused);
        }
    }

    fn forgo(&mut self) {
        let Exchange {
            settings, request, ..
        } = &self.exchange;
        if let Some(rejection) = self.owed.take() {
            settings.cache.forgo(request, rejection);
        }
    }
}

/// A request that is given up in mid-way leaves the verdict to others.
impl<S: Deref<Target = Settings>> Drop for Renewal<S> {
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
