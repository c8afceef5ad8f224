//! A current token as its readers see it: without a lock.

use std::sync::Arc;

use crate::cache::cached_token::CachedToken;
use crate::clock::Moment;
use crate::sync::ArcSwapOption;

/// What an entry's state has as current.
pub(crate) struct Published(ArcSwapOption<CachedToken>);

impl Published {
    pub(crate) fn empty() -> Self {
        Self(ArcSwapOption::empty())
    }

    /// Calls `with` on the current token if nothing but using it is to be done. Takes no lock.
    #[inline]
    pub(crate) fn if_in_order<R>(
        &self,
        now: Moment,
        with: impl FnOnce(&Arc<CachedToken>) -> R,
    ) -> Option<R> {
        let published = self.0.load();
        let current = published.as_ref()?;
        current.is_in_order(now).then(|| with(current))
    }

    /// The turn at which the current token was used last, if there is one.
    pub(crate) fn last_used(&self) -> u64 {
        let published = self.0.load();
        published.as_ref().map_or(0, |it| it.last_used.turn())
    }

    /// To be called under the lock of the state that `current` is of.
    pub(crate) fn publish(&self, current: Option<&Arc<CachedToken>>) {
        let published = self.0.load();
        if published.as_ref().map(Arc::as_ptr) != current.map(Arc::as_ptr) {
            self.0.store(current.cloned());
        }
    }
}
