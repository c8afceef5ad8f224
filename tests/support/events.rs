//! An observer that writes down what it gets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{Event, Observer, ReplayOutcome, TokenRequest};

/// Writes one short line per event. Clones share the lines.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    lines: Arc<Mutex<Vec<String>>>,
    /// The `Debug` of all events.
    debug: Arc<Mutex<String>>,
    /// The responses that rejected a token.
    rejecting: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// Returns the lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    /// Returns the lines since the last call, without those of fetches that queue and of entries
    /// that are added.
    pub(crate) fn take_main(&self) -> Vec<String> {
        let mut lines = self.take();
        lines.retain(|line| !line.contains("queued") && !line.contains("entry added"));
        lines
    }

    /// Returns status, origin and error code of the responses that rejected a token, since the last
    /// call.
    pub(crate) fn take_rejecting(&self) -> Vec<String> {
        std::mem::take(&mut *self.rejecting.lock().unwrap())
    }

    pub(crate) fn debug(&self) -> String {
        self.debug.lock().unwrap().clone()
    }
}

impl Observer for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        self.lines.lock().unwrap().push(line(event));
        self.debug.lock().unwrap().push_str(&format!("{event:?}\n"));
        if let Event::TokenRejected { response, .. } = event {
            let (status, origin) = (response.status.as_u16(), response.origin);
            let code = response.challenge_error.unwrap_or("-");
            let line = format!("{status} {origin} {code}");
            self.rejecting.lock().unwrap().push(line);
        }
    }
}

fn line(event: &Event<'_>) -> String {
    match *event {
        Event::FetchQueued {
            token_request,
            reason,
            ..
        } => of(token_request, format!("queued: {}", reason.as_str())),
        Event::FetchDropped {
            token_request,
            reason,
            ..
        } => of(token_request, format!("dropped: {}", reason.as_str())),
        Event::FetchStarted {
            token_request,
            reason,
            attempt,
            ..
        } => of(
            token_request,
            format!("started: {} {attempt}", reason.as_str()),
        ),
        Event::FetchFinished {
            token_request,
            reason,
            outcome,
            duration,
            life,
            failures,
            ..
        } => {
            let (reason, outcome) = (reason.as_str(), outcome.as_str());
            let life = life.map_or("unlimited or none".to_owned(), secs);
            let duration = secs(duration);
            let text = format!(
                "finished: {reason} {outcome} after {duration}, life {life}, failures {failures}"
            );
            of(token_request, text)
        }
        Event::PauseBegan {
            token_request,
            error,
            duration,
            ..
        } => of(
            token_request,
            format!("pause: {:?} {}", error.kind(), secs(duration)),
        ),
        Event::PauseEnded { token_request, .. } => of(token_request, "pause ended".to_owned()),
        Event::WaitEnded {
            token_request,
            outcome,
            duration,
            ..
        } => of(
            token_request,
            format!("waited: {} {}", outcome.as_str(), secs(duration)),
        ),
        Event::TokenRejected {
            token_request,
            outcome,
            ..
        } => of(token_request, format!("rejected: {}", outcome.as_str())),
        Event::NewTokensRejected {
            token_request,
            response,
            ..
        } => of(
            token_request,
            format!("new tokens: rejected {}", response.status.as_u16()),
        ),
        Event::NewTokensAccepted { token_request, .. } => {
            of(token_request, "new tokens: accepted".to_owned())
        }
        Event::ReplayFinished {
            token_request,
            outcome,
            ..
        } => {
            let reason = match outcome {
                ReplayOutcome::NotPossible(obstacle) => format!(" {}", obstacle.as_str()),
                _ => String::new(),
            };
            of(
                token_request,
                format!("replay: {}{reason}", outcome.as_str()),
            )
        }
        Event::SentWithoutToken {
            reason,
            origin,
            has_matched,
            ..
        } => format!("no token: {} {origin} {has_matched}", reason.as_str()),
        Event::ClockStepped { step, .. } => format!("clock: {step:?}"),
        Event::EntryAdded {
            token_request,
            entries,
            ..
        } => of(token_request, format!("entry added: {entries}")),
        Event::EntryEvicted {
            token_request,
            entries,
            ..
        } => of(token_request, format!("entry evicted: {entries}")),
        Event::MetadataNotRefreshed { issuer, error, .. } => {
            format!("metadata not refreshed: {issuer}, {:?}", error.kind())
        }
        Event::MetadataRefreshed { issuer, .. } => format!("metadata refreshed: {issuer}"),
        Event::StoreUnavailable { fault, error, .. } => {
            let cause = error.and_then(|error| error.source());
            let cause = cause.map(|cause| format!(", {cause}")).unwrap_or_default();
            format!("store unavailable: {}{cause}", fault.as_str())
        }
        Event::StoreAvailable { fault, .. } => format!("store available: {}", fault.as_str()),
        ref other => panic!("unknown: {other:?}"),
    }
}

fn of(request: &TokenRequest, text: String) -> String {
    match request.scopes() {
        Some(scope) => format!("{scope} {text}"),
        None => text,
    }
}

/// Whole seconds, and milliseconds if there are any.
fn secs(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        millis => format!("{}.{millis:03} s", duration.as_secs()),
    }
}
