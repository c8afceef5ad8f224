//! The future of the service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::error::BoxError;
use crate::exchange::message::{RequestView, ResponseView};
use crate::exchange::{AttachedToken, NextStep, Replay, RequestPlan};
use crate::policy::replay::{Kept, Repeat};
use crate::service::waiting::{Granted, Waiting};
use crate::service::{SharedSettings, replay_request};

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

pin_project! {
    /// The response future of [`BearerAuth`](crate::BearerAuth).
    ///
    /// # Cancel safety
    ///
    /// It may be dropped at any point: a fetch that it started continues for other callers.
    ///
    /// # Panics
    ///
    /// Panics if polled after completion.
    pub struct ResponseFuture<S, Q>
    where
        S: Service<Q>,
        Q: Repeat,
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
        Q: Repeat,
    {
        /// Sent without a token.
        PassThrough { #[pin] future: S::Future },
        /// Sent with a token. The service is for a replay.
        Sent {
            #[pin]
            future: S::Future,
            sent: Sent,
            kept: Kept<Q>,
            service: Option<S>,
        },
        /// Waits for a token. The request is taken when it is sent.
        Waiting {
            wait: Waiting<S>,
            request: Option<Q>,
        },
        /// Replays the request.
        Replaying { future: Boxed<S::Response> },
        Failed { error: BoxError },
        Complete,
    }
}

/// The parts of a request with a token that the response is judged by.
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
    Q: Repeat,
{
    pub(super) fn pass_through(future: S::Future) -> Self {
        Self {
            state: State::PassThrough { future },
        }
    }

    #[inline]
    pub(super) fn sent(future: S::Future, sent: Sent, kept: Kept<Q>, service: Option<S>) -> Self {
        Self {
            state: State::Sent {
                future,
                sent,
                kept,
                service,
            },
        }
    }

    pub(super) fn waiting(wait: Waiting<S>, request: Q) -> Self {
        Self {
            state: State::Waiting {
                wait,
                request: Some(request),
            },
        }
    }

    pub(super) fn failed(error: BoxError) -> Self {
        Self {
            state: State::Failed { error },
        }
    }
}

impl<S, Q> Future for ResponseFuture<S, Q>
where
    Q: RequestView<Copy: Send> + Send + 'static,
    S: Service<Q> + Send + 'static,
    S::Response: ResponseView + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let (rejection, pending_verdict) = match self.as_mut().project().state.project() {
                StateProjection::Sent {
                    future, sent, kept, ..
                } => {
                    let mut response = match ready!(future.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => {
                            self.project().state.set(State::Complete);
                            return Poll::Ready(Err(error.into()));
                        }
                    };
                    let settings = &*sent.settings.0;
                    match settings.next_step(&sent.plan, sent.attached, &mut response, kept) {
                        NextStep::Replay(pending_verdict) => (response, pending_verdict),
                        NextStep::Return => {
                            // A future that has completed holds nothing.
                            self.project().state.set(State::Complete);
                            return Poll::Ready(Ok(response));
                        }
                    }
                }
                StateProjection::PassThrough { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    self.project().state.set(State::Complete);
                    return Poll::Ready(result);
                }
                StateProjection::Waiting { wait, request } => {
                    let granted = ready!(wait.as_mut().poll(cx));
                    let request = request.take();
                    self.as_mut().send_granted(granted, request);
                    continue;
                }
                StateProjection::Replaying { future } => {
                    let result = ready!(future.as_mut().poll(cx));
                    self.project().state.set(State::Complete);
                    return Poll::Ready(result);
                }
                StateProjection::Failed { .. } | StateProjection::Complete => {
                    return Poll::Ready(Err(self.take_error()));
                }
            };
            let before = self
                .as_mut()
                .project()
                .state
                .project_replace(State::Complete);
            let StateBefore::Sent {
                sent,
                kept: Kept::Copy(copy),
                service: Some(service),
                ..
            } = before
            else {
                // Only a request with a copy is replayed.
                return Poll::Ready(Ok(rejection));
            };
            let settings = Arc::clone(&sent.settings.0);
            let replay = Replay::new(settings, sent.plan, sent.attached, pending_verdict);
            let future = Box::pin(replay_request::<S, Q>(replay, service, copy, rejection));
            let replaying = State::Replaying { future };
            self.as_mut().project().state.set(replaying);
        }
    }
}

impl<S, Q> ResponseFuture<S, Q>
where
    S: Service<Q>,
    Q: Repeat,
{
    /// Sends a request that has waited for its token.
    #[cold]
    fn send_granted(self: Pin<&mut Self>, granted: Result<Granted<S>, BoxError>, request: Option<Q>)
    where
        Q: RequestView,
    {
        let mut state = self.project().state;
        // The wait is dropped before the request is sent.
        state.set(State::Complete);
        state.set(match (granted, request) {
            (Ok(granted), Some(request)) => State::send(granted, request),
            (Err(error), _) => State::Failed { error },
            // Taken before: not reached, since the wait has ended only now.
            (Ok(_), None) => State::Complete,
        });
    }

    /// Takes the error of a failed call.
    #[cold]
    fn take_error(self: Pin<&mut Self>) -> BoxError {
        match self.project().state.project_replace(State::Complete) {
            StateBefore::Failed { error } => error,
            _ => completed(),
        }
    }
}

impl<S, Q> State<S, Q>
where
    S: Service<Q>,
    Q: RequestView,
{
    /// Sends a request as if its token had been there at once.
    fn send(granted: Granted<S>, mut request: Q) -> Self {
        let Granted {
            settings,
            plan,
            token,
            mut service,
        } = granted;
        let kept = settings.0.keep(&plan, &mut request);
        let attached = settings.0.attach(&token, &mut request);
        let future = service.call(request);
        let Some(attached) = attached else {
            return Self::PassThrough { future };
        };
        let service = match kept {
            Kept::Copy(_) => Some(service),
            Kept::Origin(_) | Kept::Nothing => None,
        };
        Self::Sent {
            future,
            sent: Sent::new(settings, plan, attached),
            kept,
            service,
        }
    }
}

// As the futures of std and tokio do: returning `Pending` instead would hide the mistake as a hang.
#[allow(clippy::panic)]
fn completed() -> ! {
    panic!("`ResponseFuture` polled after completion")
}

impl<S, Q> fmt::Debug for ResponseFuture<S, Q>
where
    S: Service<Q>,
    Q: Repeat,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
