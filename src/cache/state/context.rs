//! The reason of a fetch and the tokens that are known, for the source.

use crate::cache::state::{FetchId, State};
use crate::clock::Moment;
use crate::source::context::FetchReason;
use crate::token::AccessToken;

impl State {
    /// Returns the reason of a fetch in progress.
    pub(crate) fn fetch_reason(&self, fetch: FetchId) -> Option<FetchReason> {
        let current = self.fetch.filter(|it| it.id == fetch)?;
        Some(current.reason)
    }

    /// Returns the last token that was stored, unless it was withdrawn.
    pub(crate) fn held(&self) -> Option<&AccessToken> {
        self.current.as_ref().map(|current| &current.token)
    }

    /// Returns the last token that was rejected or invalidated, until another value is stored.
    pub(crate) fn rejected(&self) -> Option<&AccessToken> {
        let rejected = &self.rejected.as_ref()?.token;
        let is_replaced = self
            .held()
            .is_some_and(|held| !held.is_same_value(rejected));
        (!is_replaced).then_some(rejected)
    }

    /// Returns the reason of a fetch that starts for a caller that cannot use the token of the
    /// generation `rejected`.
    pub(super) fn reason(&self, now: Moment, rejected: Option<u64>) -> FetchReason {
        let Some(current) = &self.current else {
            return match &self.rejected {
                Some(rejected) if rejected.is_invalidated => FetchReason::Invalidated,
                Some(_) => FetchReason::Rejected,
                None => FetchReason::First,
            };
        };
        if self.is_pending(current.generation) {
            FetchReason::Rejected
        } else if now.has_reached(current.lifespan.expired) {
            FetchReason::Expired
        } else if rejected == Some(current.generation) {
            FetchReason::Rejected
        } else if now.has_reached(current.lifespan.late) {
            FetchReason::Late
        } else {
            FetchReason::Due
        }
    }
}
