//! The events of one fetch.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::cache::fetch::{FetchOwner, FetchStatus, Fetcher};
use crate::cache::state::FetchId;
use crate::observe::span::FetchSpan;
use crate::observe::{Event, FetchOutcome};
use crate::source::context::FetchReason;
use crate::token::request::TokenRequest;

/// The end of a fetch, as observers see it.
pub(crate) struct Finished {
    pub(crate) status: FetchStatus,
    /// The failures in a row: with this one if it is one, else those before it.
    pub(crate) failures: u32,
    /// This failure is permanent, and the one before was transient.
    pub(crate) has_become_permanent: bool,
    /// The length of the pause that begins.
    pub(crate) pause: Option<Duration>,
    pub(crate) has_ended_pause: bool,
    /// The life of the new token, unless it is unlimited.
    pub(crate) life: Option<Duration>,
}

impl Finished {
    /// Returns the end of a fetch without an outcome.
    fn abandoned() -> Self {
        Self {
            status: FetchStatus::Lost,
            failures: 0,
            has_become_permanent: false,
            pause: None,
            has_ended_pause: false,
            life: None,
        }
    }
}

/// Emits the events of one fetch: each that began also ends, however the fetch does.
pub(super) struct FetchEvents {
    fetcher: Arc<Fetcher>,
    request: TokenRequest,
    reason: FetchReason,
    stage: Stage,
    span: FetchSpan,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Nobody knows of the fetch.
    Created,
    Queued,
    Running {
        since: Instant,
    },
    Ended,
}

impl FetchEvents {
    pub(super) fn new(fetcher: &Arc<Fetcher>, request: &TokenRequest, reason: FetchReason) -> Self {
        Self {
            fetcher: Arc::clone(fetcher),
            request: request.clone(),
            reason,
            stage: Stage::Created,
            span: FetchSpan::default(),
        }
    }

    pub(super) fn queued(&mut self) {
        self.span = FetchSpan::new(&self.request, self.reason);
        self.stage = Stage::Queued;
        self.fetcher.observers.emit(|| Event::FetchQueued {
            token_request: &self.request,
            reason: self.reason,
        });
    }

    pub(super) fn take_span(&mut self) -> FetchSpan {
        mem::take(&mut self.span)
    }

    pub(super) fn started(&mut self, attempt: u32) {
        if attempt == 1 {
            let since = Instant::now();
            self.stage = Stage::Running { since };
            if !self.fetcher.observers.is_empty()
                && let Some(step) = self.fetcher.timeline.take_step()
            {
                self.fetcher.observers.emit(|| Event::ClockStepped { step });
            }
        }
        self.fetcher.observers.emit(|| Event::FetchStarted {
            token_request: &self.request,
            reason: self.reason,
            attempt,
        });
    }

    /// Emits the end of the fetch, and of the pause that it ended or the begin of the one that
    /// follows.
    pub(super) fn finished(
        &mut self,
        owner: &Weak<dyn FetchOwner>,
        fetch: FetchId,
        finished: &Finished,
    ) {
        let outcome = match &finished.status {
            FetchStatus::Finished(Ok(_)) => FetchOutcome::Token,
            FetchStatus::Finished(Err(error)) => FetchOutcome::Failed(error),
            _ => FetchOutcome::Discarded,
        };
        self.ended(outcome, finished);
        if finished.has_ended_pause {
            self.fetcher.observers.emit(|| Event::PauseEnded {
                token_request: &self.request,
            });
        }
        if let (FetchOutcome::Failed(error), Some(duration)) = (outcome, finished.pause)
            && !self.fetcher.observers.is_empty()
        {
            self.fetcher.observers.emit(|| Event::PauseBegan {
                token_request: &self.request,
                error,
                duration,
            });
            self.watch_pause(owner, fetch, duration);
        }
    }

    fn ended(&mut self, outcome: FetchOutcome<'_>, finished: &Finished) {
        let Stage::Running { since } = self.stage else {
            return;
        };
        self.stage = Stage::Ended;
        self.fetcher.observers.emit(|| Event::FetchFinished {
            token_request: &self.request,
            reason: self.reason,
            outcome,
            duration: since.elapsed(),
            life: finished.life,
            failures: finished.failures,
            has_become_permanent: finished.has_become_permanent,
        });
    }

    /// Emits the end of the pause when it comes. Without observers there is no such timer.
    fn watch_pause(&self, owner: &Weak<dyn FetchOwner>, fetch: FetchId, pause: Duration) {
        let (Ok(runtime), Some(paused)) = (Handle::try_current(), owner.upgrade()) else {
            return;
        };
        let (owner, fetcher) = (Weak::clone(owner), Arc::downgrade(&self.fetcher));
        let request = self.request.clone();
        let timer = runtime.spawn(async move {
            sleep(pause).await;
            if let (Some(owner), Some(fetcher)) = (owner.upgrade(), fetcher.upgrade())
                && owner.end_pause(fetch)
            {
                fetcher.observers.emit(|| Event::PauseEnded {
                    token_request: &request,
                });
            }
        });
        paused.attach_pause_timer(fetch, timer.abort_handle());
    }
}

impl Drop for FetchEvents {
    fn drop(&mut self) {
        match self.stage {
            Stage::Created | Stage::Ended => {}
            Stage::Queued => self.fetcher.observers.emit(|| Event::FetchDropped {
                token_request: &self.request,
                reason: self.reason,
            }),
            Stage::Running { .. } => self.ended(FetchOutcome::Abandoned, &Finished::abandoned()),
        }
    }
}
