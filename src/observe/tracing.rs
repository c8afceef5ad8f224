//! Log lines, in `tracing`.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, info, trace, warn};

use crate::error::TokenError;
use crate::observe::{
    ClockStep, Event, FetchOutcome, NoTokenReason, Observer, ReplayOutcome, RequestOrigin,
    StoreFault, WaitOutcome,
};
use crate::source::context::FetchReason;
use crate::token::request::TokenRequest;

/// The target of all log lines and spans.
const TARGET: &str = "bearer_auth";
/// The most origins that are warned of. A client that calls more of them does so on purpose.
const MAX_WARNED: usize = 32;

/// Writes events to `tracing`, with the target `bearer_auth`.
///
/// With the feature `tracing`, every cache has one, see
/// [`without_default_observers`](crate::TokenCacheBuilder::without_default_observers).
///
/// | level | what is logged |
/// |---|---|
/// | `warn` | the first of several failed fetches of a token, and the first one whose cause is permanent after others that were not; an API that rejects each new token; the first request that fails because of a full queue of fetches; a request that gets no token because of its origin, once per origin and only if no request was seen to go to an allowed one; a wall clock that was set back; a token store that cannot be used; an issuer's metadata that could not be refreshed |
/// | `info` | the first token after failed fetches; the first one that the API accepts again; a wall clock that was set forward; a token store that can be used again; metadata that was refreshed again |
/// | `debug` | all other fetches, pauses, rejections, replays, requests without a token, evictions |
/// | `trace` | fetches that queue, waits that end with a token, new entries |
///
/// No line contains a secret. The scope of the token is the field `scope`. Reasons are in the
/// fields `fetch_reason`, `no_token_reason` and `replay_obstacle`. The texts of a custom
/// source's own errors are logged as they are, in the field `cause`.
///
/// Independently of this observer, each fetch is in a span `fetch` at the level `debug`, which
/// [follows from](tracing::Span::follows_from) the span of the caller that started it.
#[derive(Debug, Default)]
pub struct TracingObserver {
    /// The origins that were warned of.
    warned: Mutex<Vec<String>>,
    queue: Queue,
}

/// The queue of fetches, as the events tell.
#[derive(Debug, Default)]
struct Queue {
    len: AtomicI64,
    /// A caller that it cost its token was warned of.
    is_warned_of: AtomicBool,
}

impl TracingObserver {
    /// Creates an observer.
    pub fn new() -> Self {
        Self::default()
    }

    fn log_failure(
        &self,
        request: &TokenRequest,
        reason: FetchReason,
        failures: u32,
        has_become_permanent: bool,
        error: &TokenError,
    ) {
        macro_rules! log {
            ($level:ident) => {
                $level!(
                    target: TARGET,
                    scope = request.scopes(),
                    fetch_reason = reason.as_str(),
                    failures,
                    error = %error,
                    kind = error.kind().as_str(),
                    cause = cause(error).map(tracing::field::display),
                    token_endpoint = error.token_endpoint(),
                    retry_after_secs = error.retry_after().map(|wait| wait.as_secs_f64()),
                    "no token was fetched"
                )
            };
        }
        // A paused error repeats a failure that was logged.
        if (failures == 1 || has_become_permanent) && !error.is_paused() {
            log!(warn);
        } else {
            log!(debug);
        }
    }

    fn log_no_token(&self, reason: NoTokenReason, origin: RequestOrigin<'_>, has_matched: bool) {
        let is_mistake = reason == NoTokenReason::OriginNotAllowed && !has_matched;
        if is_mistake && self.is_first_of(origin) {
            warn!(
                target: TARGET,
                origin = %origin,
                no_token_reason = reason.as_str(),
                "a request was sent without a token, and none was seen to go to an allowed origin: \
                 check `allow_origin`"
            );
        } else {
            debug!(
                target: TARGET,
                origin = %origin,
                no_token_reason = reason.as_str(),
                "a request was sent without a token"
            );
        }
    }

    fn log_failed_wait(
        &self,
        request: &TokenRequest,
        outcome: WaitOutcome<'_>,
        duration: Duration,
    ) {
        let error = match outcome {
            WaitOutcome::Failed(error) => Some(error),
            WaitOutcome::Token | WaitOutcome::Cancelled => None,
        };
        macro_rules! log {
            ($level:ident) => {
                $level!(
                    target: TARGET,
                    scope = request.scopes(),
                    outcome = outcome.as_str(),
                    duration_secs = duration.as_secs_f64(),
                    error = error.map(tracing::field::display),
                    cause = error.and_then(cause).map(tracing::field::display),
                    "a caller waited for a token in vain"
                )
            };
        }
        let is_of_queue = error.is_some_and(TokenError::is_queue_timeout);
        if is_of_queue && !self.queue.is_warned_of.swap(true, Ordering::Relaxed) {
            log!(warn);
        } else {
            log!(debug);
        }
    }

    /// Returns true once per origin.
    fn is_first_of(&self, origin: RequestOrigin<'_>) -> bool {
        let origin = origin.to_string();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = warned.len() < MAX_WARNED && !warned.contains(&origin);
        if is_first {
            warned.push(origin);
        }
        is_first
    }
}

impl Queue {
    fn count(&self, event: &Event<'_>) {
        match event {
            Event::FetchQueued { .. } => {
                self.len.fetch_add(1, Ordering::Relaxed);
            }
            Event::FetchDropped { .. } | Event::FetchStarted { attempt: 1, .. } => {
                let len = self.len.fetch_sub(1, Ordering::Relaxed) - 1;
                // An empty queue ends the incident.
                self.is_warned_of.fetch_and(len > 0, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

impl Observer for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        self.queue.count(event);
        match *event {
            Event::FetchQueued {
                token_request,
                reason,
            } => trace!(
                target: TARGET,
                scope = token_request.scopes(),
                fetch_reason = reason.as_str(),
                "a fetch was queued"
            ),
            Event::FetchDropped {
                token_request,
                reason,
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                fetch_reason = reason.as_str(),
                "a queued fetch was dropped"
            ),
            Event::FetchStarted {
                token_request,
                reason,
                attempt,
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                fetch_reason = reason.as_str(),
                attempt,
                "a token is fetched"
            ),
            Event::FetchFinished {
                token_request,
                reason,
                outcome: FetchOutcome::Failed(error),
                failures,
                has_become_permanent,
                ..
            } => self.log_failure(token_request, reason, failures, has_become_permanent, error),
            Event::FetchFinished {
                token_request,
                outcome: FetchOutcome::Token,
                failures: failures @ 1..,
                ..
            } => info!(
                target: TARGET,
                scope = token_request.scopes(),
                failures,
                "a token was fetched again"
            ),
            Event::FetchFinished {
                token_request,
                reason,
                outcome,
                duration,
                life,
                ..
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                fetch_reason = reason.as_str(),
                outcome = outcome.as_str(),
                duration_secs = duration.as_secs_f64(),
                life_secs = life.map(|life| life.as_secs_f64()),
                "a fetch has finished"
            ),
            Event::PauseBegan {
                token_request,
                duration,
                ..
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                duration_secs = duration.as_secs_f64(),
                "the source is not called for a time"
            ),
            Event::PauseEnded { token_request } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                "the source may be called again"
            ),
            Event::WaitEnded {
                token_request,
                outcome: WaitOutcome::Token,
                duration,
            } => trace!(
                target: TARGET,
                scope = token_request.scopes(),
                duration_secs = duration.as_secs_f64(),
                "a caller waited for a token"
            ),
            Event::WaitEnded {
                token_request,
                outcome,
                duration,
            } => self.log_failed_wait(token_request, outcome, duration),
            Event::TokenRejected {
                token_request,
                outcome,
                response,
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                outcome = outcome.as_str(),
                status = response.status.as_u16(),
                origin = %response.origin,
                challenge_error = response.challenge_error,
                "a token was rejected"
            ),
            Event::NewTokensRejected {
                token_request,
                response,
            } => warn!(
                target: TARGET,
                scope = token_request.scopes(),
                status = response.status.as_u16(),
                origin = %response.origin,
                challenge_error = response.challenge_error,
                "an API rejects each new token: check the scope, audience and issuer of the token, \
                 and the API"
            ),
            Event::NewTokensAccepted { token_request } => info!(
                target: TARGET,
                scope = token_request.scopes(),
                "a new token is accepted again"
            ),
            Event::ReplayFinished {
                token_request,
                outcome: ReplayOutcome::NotPossible(obstacle),
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                replay_obstacle = obstacle.as_str(),
                "a request was not replayed"
            ),
            Event::ReplayFinished {
                token_request,
                outcome,
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                outcome = outcome.as_str(),
                "a replay has finished"
            ),
            Event::SentWithoutToken {
                reason,
                origin,
                has_matched,
            } => self.log_no_token(reason, origin, has_matched),
            Event::ClockStepped {
                step: ClockStep::Back(by),
            } => warn!(
                target: TARGET,
                step_secs = -by.as_secs_f64(),
                "the wall clock was set back"
            ),
            Event::ClockStepped {
                step: ClockStep::Forward(by),
            } => info!(
                target: TARGET,
                step_secs = by.as_secs_f64(),
                "the wall clock was set forward, or the machine was suspended"
            ),
            Event::StoreUnavailable { fault, error } => log_store_fault(fault, error),
            Event::StoreAvailable { fault } => info!(
                target: TARGET,
                store_fault = fault.as_str(),
                "the token store can be used again"
            ),
            Event::MetadataNotRefreshed { issuer, error } => warn!(
                target: TARGET,
                issuer,
                error = %error,
                kind = error.kind().as_str(),
                cause = cause(error).map(tracing::field::display),
                "the metadata of an issuer could not be refreshed: the known token endpoint stays in \
                 use"
            ),
            Event::MetadataRefreshed { issuer } => info!(
                target: TARGET,
                issuer,
                "the metadata of an issuer was refreshed again"
            ),
            Event::EntryAdded {
                token_request,
                entries,
            } => trace!(
                target: TARGET,
                scope = token_request.scopes(),
                entries,
                "an entry was added"
            ),
            Event::EntryEvicted {
                token_request,
                entries,
            } => debug!(
                target: TARGET,
                scope = token_request.scopes(),
                entries,
                "an entry was evicted"
            ),
        }
    }
}

fn log_store_fault(fault: StoreFault, error: Option<&(dyn Error + Send + Sync + 'static)>) {
    let store_fault = fault.as_str();
    match fault {
        StoreFault::Failing => warn!(
            target: TARGET,
            store_fault,
            error = error.map(tracing::field::display),
            cause = error
                .and_then(|error| error.source())
                .map(|cause| tracing::field::display(Causes(cause))),
            "the token store cannot be used: this process works alone"
        ),
        StoreFault::UnknownKey => warn!(
            target: TARGET,
            store_fault,
            "the token store has records that this process cannot open: check that all processes \
             have all sealing keys, and the same version"
        ),
    }
}

/// The causes of an error, which its own text does not repeat.
struct Causes<'a>(&'a (dyn Error + 'static));

fn cause(error: &TokenError) -> Option<Causes<'_>> {
    error.source().map(Causes)
}

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(cause) = self;
        write!(f, "{cause}")?;
        match cause.source() {
            Some(cause) => write!(f, ": {}", Causes(cause)),
            None => Ok(()),
        }
    }
}
