//! The service's future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::error::BoxError;
use crate::exchange::message::{RequestView, ResponseView};
use crate::exchange::{AttachedToken, Next, Replay, RequestPlan};
use crate::service::{SharedSettings, renew_and_replay};

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

pin_project! {
    /// The answer to come from a [`BearerAuth`](crate::BearerAuth) service.
    ///
    /// Cancel safe, as [`BearerAuth`](crate::BearerAuth) says.
    pub struct ResponseFuture<S, Q>
    where
        S: Service<Q>,
    {
        #[pin]
        state: State<S, Q>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[project_replace = StateBefore]
    enum State<S, Q>
    where
        S: Service<Q>,
    {
        /// No token: the inner service's answer as it is.
        Passing { #[pin] future: S::Future },
        /// A token went along; what is kept is for the second sending.
        Sending {
            #[pin]
            future: S::Future,
            sent: Sent,
            kept: Option<(S, Q)>,
        },
        /// Waits for a token, or for the end of a second sending.
        Slow { future: Boxed<S::Response> },
        Failed { error: Option<BoxError> },
    }
}

/// What it takes to judge the answer.
pub(super) struct Sent {
    settings: Arc<SharedSettings>,
    plan: RequestPlan,
    attached: AttachedToken,
}

impl Sent {
    #[inline]
    pub(super) fn new(
        settings: Arc<SharedSettings>,
        plan: RequestPlan,
        attached: AttachedToken,
    ) -> Self {
        Self {
            settings,
            plan,
            attached,
        }
    }
}

impl<S, Q> ResponseFuture<S, Q>
where
    S: Service<Q>,
{
    pub(super) fn passing(future: S::Future) -> Self {
        Self {
            state: State::Passing { future },
        }
    }

    #[inline]
    pub(super) fn sending(future: S::Future, sent: Sent, kept: Option<(S, Q)>) -> Self {
        Self {
            state: State::Sending { future, sent, kept },
        }
    }

    pub(super) fn slow<F>(future: F) -> Self
    where
        F: Future<Output = Result<S::Response, BoxError>> + Send + 'static,
    {
        Self {
            state: State::Slow {
                future: Box::pin(future),
            },
        }
    }

    pub(super) fn failed(error: BoxError) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }
}

impl<S, Q> Future for ResponseFuture<S, Q>
where
    Q: RequestView + Send + 'static,
    S: Service<Q> + Send + 'static,
    S::Response: ResponseView + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project().state.project() {
                StateProjection::Passing { future } => return future.poll(cx).map_err(Into::into),
                StateProjection::Slow { future } => return future.as_mut().poll(cx),
                StateProjection::Failed { error } => {
                    return match error.take() {
                        Some(error) => Poll::Ready(Err(error)),
                        // Polled again after its end.
                        None => Poll::Pending,
                    };
                }
                StateProjection::Sending { future, sent, kept } => {
                    let ended = ready!(future.poll(cx));
                    let next = match &ended {
                        Ok(answer) => {
                            let Sent {
                                settings,
                                plan,
                                attached,
                            } = sent;
                            settings.0.answered(plan, *attached, answer, kept.is_some())
                        }
                        Err(_) => Next::Return,
                    };
                    // Nothing is held on to by a future that has ended.
                    let end = State::Failed { error: None };
                    let Next::Renew(owed) = next else {
                        self.project().state.set(end);
                        return Poll::Ready(ended.map_err(Into::into));
                    };
                    let before = self.as_mut().project().state.project_replace(end);
                    let (refusal, sent, (service, copy)) = match (ended, before) {
                        (
                            Ok(refusal),
                            StateBefore::Sending {
                                sent,
                                kept: Some(kept),
                                ..
                            },
                        ) => (refusal, sent, kept),
                        (ended, _) => return Poll::Ready(ended.map_err(Into::into)),
                    };
                    let Sent {
                        settings,
                        plan,
                        attached,
                    } = sent;
                    let replay = Replay::new(Arc::clone(&settings.0), plan, attached, owed);
                    let slow = Box::pin(renew_and_replay(replay, service, copy, refusal));
                    self.as_mut()
                        .project()
                        .state
                        .set(State::Slow { future: slow });
                }
            }
        }
    }
}

impl<S, Q> fmt::Debug for ResponseFuture<S, Q>
where
    S: Service<Q>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
