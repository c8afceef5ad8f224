//! Metrics, for the `metrics` facade.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use metrics::{
    Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::observe::{Event, FetchOutcome, Observer};
use crate::token::request::TokenRequest;

const FETCHES: &str = "bearer_auth.fetches";
const FETCH_DURATION: &str = "bearer_auth.fetch.duration";
const WAIT_DURATION: &str = "bearer_auth.wait.duration";
const REJECTIONS: &str = "bearer_auth.rejections";
const REPLAYS: &str = "bearer_auth.replays";
const PAUSED: &str = "bearer_auth.paused";
const IN_FLIGHT: &str = "bearer_auth.fetches_in_flight";
const QUEUED: &str = "bearer_auth.fetches_queued";
const ENTRIES: &str = "bearer_auth.entries";
const STORES_UNAVAILABLE: &str = "bearer_auth.stores_unavailable";

/// Counts events in the `metrics` facade.
///
/// With the feature `metrics`, every cache has one, see
/// [`without_default_observers`](crate::TokenCacheBuilder::without_default_observers).
/// Install the recorder of your exporter before the first token is fetched.
///
/// | metric | kind, unit | labels |
/// |---|---|---|
/// | `bearer_auth.fetches` | counter | `outcome`: `token`, `failed`, `discarded`, `abandoned`; `reason`: `first`, `due`, `late`, `expired`, `rejected`, `invalidated`; `kind`: `none`, or the [kind](crate::TokenErrorKind) of the failure, such as `invalid_client` |
/// | `bearer_auth.fetch.duration` | histogram, seconds | |
/// | `bearer_auth.wait.duration` | histogram, seconds: callers that waited | `outcome`: `token`, `failed`, `cancelled` |
/// | `bearer_auth.rejections` | counter | `outcome`: `effective`, `superseded`, `spaced` |
/// | `bearer_auth.replays` | counter | `outcome`: `accepted`, `refused`, `failed`, `not_possible`, `cancelled` |
/// | `bearer_auth.paused` | gauge: tokens whose source is paused | |
/// | `bearer_auth.fetches_in_flight` | gauge | |
/// | `bearer_auth.fetches_queued` | gauge | |
/// | `bearer_auth.entries` | gauge: tokens, not counting the default one | |
/// | `bearer_auth.stores_unavailable` | gauge: faults of token stores, during which this process works alone | |
///
/// Gauges are the sums of all caches of the process.
///
/// An observer belongs to one cache: when the cache is dropped, its share of the gauges goes.
#[derive(Debug, Default)]
pub struct MetricsObserver {
    has_scope_label: bool,
    is_described: AtomicBool,
    /// The shares of this cache in the gauges.
    paused: Share,
    in_flight: Share,
    queued: Share,
    entries: Share,
    stores_unavailable: Share,
}

impl MetricsObserver {
    /// Creates an observer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the label `scope` to counters and histograms: the scope of the token, empty for the
    /// source's own.
    ///
    /// Each value is a time series of its own. Do not set this where the number of scopes is not
    /// small and known, as with one for each tenant.
    ///
    /// Default: no such label.
    #[must_use]
    pub fn with_scope_label(mut self) -> Self {
        self.has_scope_label = true;
        self
    }

    fn labels<const N: usize>(
        &self,
        request: &TokenRequest,
        labels: [(&'static str, &'static str); N],
    ) -> Vec<Label> {
        let mut labels: Vec<_> = labels
            .into_iter()
            .map(|(name, value)| Label::from_static_parts(name, value))
            .collect();
        if self.has_scope_label {
            let scope = request.scopes().unwrap_or_default().to_owned();
            labels.push(Label::new("scope", scope));
        }
        labels
    }
}

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        if !self.is_described.swap(true, Ordering::Relaxed) {
            describe();
        }
        match *event {
            Event::FetchQueued { .. } => self.queued.increment(QUEUED),
            Event::FetchDropped { .. } => self.queued.decrement(QUEUED),
            Event::FetchStarted { attempt: 1, .. } => {
                self.queued.decrement(QUEUED);
                self.in_flight.increment(IN_FLIGHT);
            }
            Event::FetchFinished {
                token_request,
                reason,
                outcome,
                duration,
                ..
            } => {
                self.in_flight.decrement(IN_FLIGHT);
                let kind = match outcome {
                    FetchOutcome::Failed(error) => error.kind().as_str(),
                    FetchOutcome::Token | FetchOutcome::Discarded | FetchOutcome::Abandoned => {
                        "none"
                    }
                };
                let values = [
                    ("outcome", outcome.as_str()),
                    ("reason", reason.as_str()),
                    ("kind", kind),
                ];
                counter!(FETCHES, self.labels(token_request, values)).increment(1);
                // An abandoned fetch has no duration: nobody knows when it would have ended.
                if !matches!(outcome, FetchOutcome::Abandoned) {
                    histogram!(FETCH_DURATION, self.labels(token_request, [])).record(duration);
                }
            }
            Event::PauseBegan { .. } => self.paused.increment(PAUSED),
            Event::PauseEnded { .. } => self.paused.decrement(PAUSED),
            Event::WaitEnded {
                token_request,
                outcome,
                duration,
            } => {
                let values = [("outcome", outcome.as_str())];
                histogram!(WAIT_DURATION, self.labels(token_request, values)).record(duration);
            }
            Event::TokenRejected {
                token_request,
                outcome,
                ..
            } => {
                let values = [("outcome", outcome.as_str())];
                counter!(REJECTIONS, self.labels(token_request, values)).increment(1);
            }
            Event::ReplayFinished {
                token_request,
                outcome,
            } => {
                let values = [("outcome", outcome.as_str())];
                counter!(REPLAYS, self.labels(token_request, values)).increment(1);
            }
            Event::EntryAdded { .. } => self.entries.increment(ENTRIES),
            Event::EntryEvicted { .. } => self.entries.decrement(ENTRIES),
            Event::StoreUnavailable { .. } => self.stores_unavailable.increment(STORES_UNAVAILABLE),
            Event::StoreAvailable { .. } => self.stores_unavailable.decrement(STORES_UNAVAILABLE),
            Event::FetchStarted { .. }
            | Event::NewTokensRejected { .. }
            | Event::NewTokensAccepted { .. }
            | Event::SentWithoutToken { .. }
            | Event::ClockStepped { .. }
            | Event::MetadataNotRefreshed { .. }
            | Event::MetadataRefreshed { .. } => {}
        }
    }
}

impl Drop for MetricsObserver {
    fn drop(&mut self) {
        self.paused.withdraw(PAUSED);
        self.in_flight.withdraw(IN_FLIGHT);
        self.queued.withdraw(QUEUED);
        self.entries.withdraw(ENTRIES);
        self.stores_unavailable.withdraw(STORES_UNAVAILABLE);
    }
}

/// The share of one cache in a gauge.
#[derive(Debug, Default)]
struct Share(AtomicI64);

impl Share {
    fn increment(&self, name: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
        gauge!(name).increment(1.0);
    }

    fn decrement(&self, name: &'static str) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        gauge!(name).decrement(1.0);
    }

    fn withdraw(&self, name: &'static str) {
        let share = self.0.swap(0, Ordering::Relaxed);
        if share != 0 {
            gauge!(name).decrement(share as f64);
        }
    }
}

/// Describes all metrics, and creates the gauges, so that they are there before they change.
fn describe() {
    describe_counter!(
        FETCHES,
        Unit::Count,
        "Fetches of tokens that have finished, by outcome, reason, and kind of failure."
    );
    describe_histogram!(
        FETCH_DURATION,
        Unit::Seconds,
        "The time that a fetch took, with all its attempts."
    );
    describe_histogram!(
        WAIT_DURATION,
        Unit::Seconds,
        "The time that a caller waited for a token, by outcome. Callers that did not wait are not \
         counted."
    );
    describe_counter!(
        REJECTIONS,
        Unit::Count,
        "Responses that rejected a token, by their effect."
    );
    describe_counter!(
        REPLAYS,
        Unit::Count,
        "Replays of requests whose token was rejected, by outcome."
    );
    for (name, description) in [
        (
            PAUSED,
            "Tokens whose source is paused after a failed fetch.",
        ),
        (IN_FLIGHT, "Fetches of tokens that are in progress."),
        (QUEUED, "Fetches of tokens that wait for a slot."),
        (
            ENTRIES,
            "Tokens in the cache, not counting the default one.",
        ),
        (
            STORES_UNAVAILABLE,
            "Faults of token stores that are known to a cache: it fetches without the store.",
        ),
    ] {
        describe_gauge!(name, Unit::Count, description);
        gauge!(name).increment(0.0);
    }
}
