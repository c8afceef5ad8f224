//! The span of a fetch.

use std::future::Future;

use crate::source::context::FetchReason;
use crate::token::request::TokenRequest;

/// The span of one fetch. Without the feature `tracing` there is none.
#[derive(Default)]
pub(crate) struct FetchSpan(#[cfg(feature = "tracing")] Option<tracing::Span>);

#[cfg(feature = "tracing")]
impl FetchSpan {
    /// Creates a span without a parent, since the fetch outlives the caller that starts it. It
    /// follows from the span of that caller. Called without a lock.
    pub(crate) fn new(request: &TokenRequest, reason: FetchReason) -> Self {
        let span = tracing::debug_span!(
            target: "bearer_auth",
            parent: None,
            "fetch",
            scope = request.scopes(),
            fetch_reason = reason.as_str()
        );
        span.follows_from(tracing::Span::current());
        Self(Some(span))
    }

    /// Runs `future` within the span.
    pub(crate) fn instrument<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        tracing::Instrument::instrument(future, self.0.unwrap_or_else(tracing::Span::none))
    }
}

#[cfg(not(feature = "tracing"))]
impl FetchSpan {
    pub(crate) fn new(_: &TokenRequest, _: FetchReason) -> Self {
        Self()
    }

    pub(crate) fn instrument<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        future
    }
}
