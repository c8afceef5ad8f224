//! The events of the cache and the layer, and the observers that get them.
//!
//! Events come from the slow paths alone, one place per kind, and outside of all locks. A request
//! with a fresh token causes none.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub(crate) mod event;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
mod names;
pub(crate) mod span;
#[cfg(feature = "tracing")]
pub(crate) mod tracing;
#[cfg(any(feature = "client-credentials", feature = "fleet"))]
pub(crate) mod trouble;

pub use event::{
    ClockStep, Event, FetchOutcome, NoTokenReason, RejectingResponse, RejectionOutcome,
    ReplayObstacle, ReplayOutcome, RequestOrigin, StoreFault, WaitOutcome,
};

/// Gets the [`Event`]s of a cache and of the layers over it, see
/// [`TokenCacheBuilder::observer`](crate::TokenCacheBuilder::observer).
///
/// It is called on the threads of callers and of fetches, so it has to return quickly. No lock is
/// held meanwhile: it may call [`TokenCache::status`](crate::TokenCache::status). Its panics are
/// caught and ignored.
///
/// An observer that keeps a [`TokenCache`](crate::TokenCache) keeps that cache alive, and itself.
///
/// ```
/// use bearer_auth::{Event, FetchOutcome, Observer, StaticTokenSource, TokenCache};
///
/// struct PrintFailures;
///
/// impl Observer for PrintFailures {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::FetchFinished { outcome: FetchOutcome::Failed(error), .. } = event {
///             eprintln!("no token: {error}");
///         }
///     }
/// }
///
/// let cache = TokenCache::builder(StaticTokenSource::new("opaque")?)
///     .observer(PrintFailures)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Receives an event.
    fn on_event(&self, event: &Event<'_>);
}

impl<T: Observer + ?Sized> Observer for Arc<T> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}

impl<T: Observer + ?Sized> Observer for Box<T> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}

/// The observers of a cache.
#[derive(Clone, Default)]
pub(crate) struct Observers(Arc<[Box<dyn Observer>]>);

impl Observers {
    pub(crate) fn new(observers: Vec<Box<dyn Observer>>) -> Self {
        Self(observers.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives an event to all observers. Called without a lock.
    pub(crate) fn emit<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if !self.is_empty() {
            self.emit_to_all(&event());
        }
    }

    #[cold]
    fn emit_to_all(&self, event: &Event<'_>) {
        for observer in &*self.0 {
            // Neither a caller nor a fetch fails because of an observer.
            let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(event)));
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers")
            .field("len", &self.0.len())
            .finish()
    }
}
