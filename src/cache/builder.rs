//! The cache's settings.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::cache::entry::Entry;
use crate::cache::fetch::Fetcher;
use crate::cache::fetch::limiter::FetchLimiter;
use crate::cache::fetch::runtime::has_timers;
use crate::cache::state::Timing;
use crate::cache::tenants::Tenants;
use crate::cache::{Shared, TokenCache};
use crate::clock::{Clock, Timeline};
use crate::error::InvalidSetting;
use crate::observe::{Observer, Observers};
use crate::source::TokenSource;
use crate::token::request::TokenRequest;

/// The maximum of every duration. Longer ones make no sense, and timers have a maximum.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// A builder for a [`TokenCache`], see [`TokenCache::builder`].
///
/// ```
/// use std::time::Duration;
/// use bearer_auth::{StaticTokenSource, TokenCache};
///
/// let cache = TokenCache::builder(StaticTokenSource::new("opaque")?)
///     .fetch_timeout(Duration::from_secs(10))
///     .max_entries(500)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct TokenCacheBuilder {
    source: Arc<dyn TokenSource>,
    fetch_timeout: Duration,
    wait_timeout: Duration,
    default_lifetime: Duration,
    first_pause: Duration,
    longest_pause: Duration,
    max_entries: usize,
    max_fetches: usize,
    clock: ClockSetting,
    runtime: Option<Handle>,
    observers: Vec<Box<dyn Observer>>,
    has_default_observers: bool,
}

enum ClockSetting {
    Default,
    System,
    Custom(Arc<dyn Clock>),
}

impl TokenCacheBuilder {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self {
            source,
            fetch_timeout: Duration::from_secs(30),
            wait_timeout: Duration::from_secs(35),
            default_lifetime: Duration::from_secs(300),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            max_entries: 10_000,
            max_fetches: 64,
            clock: ClockSetting::Default,
            runtime: None,
            observers: Vec::new(),
            has_default_observers: true,
        }
    }

    /// Sets the time limit of a fetch, including its retries, independent of the callers' own
    /// limits.
    ///
    /// A caller with a shorter limit can give up alone: the fetch continues, and the next caller
    /// gets its token.
    ///
    /// Default: 30 s. Must be greater than zero and at most one day.
    pub fn fetch_timeout(mut self, limit: Duration) -> Self {
        self.fetch_timeout = limit;
        self
    }

    /// Sets the longest time that a caller waits for a token, including the time in the queue.
    ///
    /// The caller then gets a [`Timeout`](crate::TokenErrorKind::Timeout), and the fetch continues.
    /// With the defaults the fetch's own error comes first.
    ///
    /// Default: 35 s. Must be greater than zero and at most one day.
    pub fn wait_timeout(mut self, limit: Duration) -> Self {
        self.wait_timeout = limit;
        self
    }

    /// Sets the life of tokens for which the source gives none (no usable `expires_in`, RFC 6749
    /// §5.1).
    ///
    /// Default: 5 min. Must be greater than zero and at most one day.
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.default_lifetime = lifetime;
        self
    }

    /// Sets the pause after a failed fetch.
    ///
    /// During a pause the source is not called, and callers without a token fail at once. The pause
    /// doubles with each further failure, and jitter adds up to 25 %. A longer `Retry-After` (RFC
    /// 9110 §10.2.3) replaces it, up to 1 h.
    ///
    /// Default: 1 s. Must be greater than zero and at most one day.
    pub fn first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// Sets the maximum of the doubling pause.
    ///
    /// Default: 60 s. Must be at least [`first_pause`](Self::first_pause) and at most one day.
    pub fn longest_pause(mut self, pause: Duration) -> Self {
        self.longest_pause = pause;
        self
    }

    /// Sets the maximum number of tokens, not counting that of the default token request.
    ///
    /// The least recently used token is evicted first; times of use are kept to 1 s. One with a
    /// fetch that runs or that a caller waits for is not evicted, so there can be more for a time.
    ///
    /// Default: 10,000. Must be at least 1.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// Sets the maximum number of concurrent fetches, over all token requests.
    ///
    /// Further fetches queue. The time in the queue does not count towards `fetch_timeout`.
    ///
    /// The limit is not strict: when others queue, a fetch that has run for 2 s no longer counts,
    /// and up to four queued ones start in its place, so that fetches that hang do not block the
    /// rest. A strict limit belongs on the token transport, see
    /// `ClientCredentialsBuilder::transport`.
    ///
    /// Default: 64. Must be at least 1.
    pub fn max_concurrent_fetches(mut self, fetches: usize) -> Self {
        self.max_fetches = fetches;
        self
    }

    /// Sets the clock that tokens expire by, for tests.
    ///
    /// Default: the system's monotonic clock, read for each request, and its wall clock, read once
    /// a second and when tokens are fetched or rejected. With the feature `test-util`, which `mock`
    /// and `mock-server` enable, the monotonic clock is tokio's, which tests can pause.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = ClockSetting::Custom(Arc::new(clock));
        self
    }

    /// Uses the system's clocks, also if a crate of the program enables the feature `test-util`.
    ///
    /// They are faster to read. A test that pauses tokio's clock does not stop them.
    ///
    /// Default: the same without that feature, see [`clock`](Self::clock).
    pub fn system_clock(mut self) -> Self {
        self.clock = ClockSetting::System;
        self
    }

    /// Sets the runtime that all fetches run on, whatever runtime their callers are on. The timers
    /// of callers are of this runtime too.
    ///
    /// It is for callers on threads without a runtime, and on runtimes that are polled only now and
    /// then. It must have timers and must be polled. A fetch that is lost with it is not started
    /// again elsewhere: callers get a [`NoRuntime`](crate::TokenErrorKind::NoRuntime).
    ///
    /// Default: none. A fetch runs on the runtime of the caller that starts it.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Adds an observer of the events of this cache and of the layers over it.
    ///
    /// Observers are called in the order in which they were added, see [`Observer`].
    ///
    /// Default: a `TracingObserver` with the feature `tracing` and a `MetricsObserver` with the
    /// feature `metrics`, which are called first.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Removes the observers that the features `tracing` and `metrics` add by default, to replace
    /// them with others or to write no log lines and no metrics for this cache.
    ///
    /// Spans of fetches are still created with the feature `tracing`.
    ///
    /// Default: they are there.
    pub fn without_default_observers(mut self) -> Self {
        self.has_default_observers = false;
        self
    }

    /// Creates the cache. Starts no task and sends nothing.
    ///
    /// # Errors
    ///
    /// Returns an [`InvalidSetting`] that names the first setting that is out of its range.
    pub fn build(self) -> Result<TokenCache, InvalidSetting> {
        self.check()?;
        Ok(self.build_unchecked())
    }

    /// Creates the cache from settings that are known to be valid.
    pub(super) fn build_unchecked(self) -> TokenCache {
        let mut observers = match self.has_default_observers {
            true => default_observers(),
            false => Vec::new(),
        };
        observers.extend(self.observers);
        let observers = Observers::new(observers);
        let fetcher = Fetcher {
            source: self.source,
            timeline: match self.clock {
                ClockSetting::Default => Timeline::new(None),
                ClockSetting::System => Timeline::system(),
                ClockSetting::Custom(clock) => Timeline::new(Some(clock)),
            },
            timing: Timing {
                default_lifetime: self.default_lifetime,
                first_pause: self.first_pause,
                longest_pause: self.longest_pause,
            },
            fetch_timeout: self.fetch_timeout,
            wait_timeout: self.wait_timeout,
            runtime: self.runtime,
            is_closed: AtomicBool::new(false),
            limiter: FetchLimiter::new(self.max_fetches),
            observers: observers.clone(),
        };
        TokenCache {
            shared: Arc::new(Shared {
                fetcher: Arc::new(fetcher),
                default: Arc::new(Entry::new(TokenRequest::default(), None)),
                tenants: Tenants::new(self.max_entries, observers),
            }),
        }
    }

    fn check(&self) -> Result<(), InvalidSetting> {
        for (setting, value) in [
            ("fetch_timeout", self.fetch_timeout),
            ("wait_timeout", self.wait_timeout),
            ("default_lifetime", self.default_lifetime),
            ("first_pause", self.first_pause),
            ("longest_pause", self.longest_pause),
        ] {
            if value.is_zero() || value > MAX_DURATION {
                let requirement =
                    format!("must be greater than zero and at most one day, but is {value:?}");
                return Err(InvalidSetting::new(setting, requirement));
            }
        }
        if let Some(runtime) = &self.runtime
            && !has_timers(runtime)
        {
            let requirement = "must have timers: build it with `enable_time` or `enable_all`";
            return Err(InvalidSetting::new("runtime", requirement));
        }
        if self.longest_pause < self.first_pause {
            let requirement = format!(
                "must be at least `first_pause` ({:?}), but is {:?}",
                self.first_pause, self.longest_pause
            );
            return Err(InvalidSetting::new("longest_pause", requirement));
        }
        for (setting, value) in [
            ("max_entries", self.max_entries),
            ("max_concurrent_fetches", self.max_fetches),
        ] {
            if value == 0 {
                return Err(InvalidSetting::new(setting, "must be at least 1, but is 0"));
            }
        }
        Ok(())
    }
}

/// Returns the observers that the features add.
fn default_observers() -> Vec<Box<dyn Observer>> {
    vec![
        #[cfg(feature = "tracing")]
        Box::new(crate::observe::tracing::TracingObserver::new()),
        #[cfg(feature = "metrics")]
        Box::new(crate::observe::metrics::MetricsObserver::new()),
    ]
}

impl fmt::Debug for TokenCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheBuilder")
            .field("fetch_timeout", &self.fetch_timeout)
            .field("wait_timeout", &self.wait_timeout)
            .field("default_lifetime", &self.default_lifetime)
            .field("first_pause", &self.first_pause)
            .field("longest_pause", &self.longest_pause)
            .field("max_entries", &self.max_entries)
            .field("max_concurrent_fetches", &self.max_fetches)
            .field("observers", &self.observers.len())
            .finish_non_exhaustive()
    }
}
