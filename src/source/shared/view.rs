//! A record as this process sees it, and what follows for a fetch.

use tokio::time::Instant;

use crate::error::TokenError;
use crate::source::context::{FetchContext, FetchReason};
use crate::source::shared::record::{Opened, Record};
use crate::source::shared::timed::{StoreClock, TimedToken};
use crate::token::AccessToken;

/// A record as it was loaded.
pub(super) struct View {
    /// The bytes in the store, which a new record replaces.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) opened: Opened,
    pub(super) clock: StoreClock,
    /// The token, if it has not expired.
    pub(super) token: Option<TimedToken>,
}

/// The conclusion from a record.
pub(super) enum Answer {
    Token(AccessToken),
    Failure(TokenError),
    /// The store is no help with this token.
    Alone,
    Fetch,
}

impl View {
    pub(super) fn answer(&self, context: &FetchContext) -> Answer {
        let record = match &self.opened {
            Opened::Foreign => return Answer::Alone,
            Opened::Nothing => return Answer::Fetch,
            Opened::Record(record, _) if record.is_unshared => return Answer::Alone,
            Opened::Record(record, _) => record,
        };
        if let Some(token) = self.fresh(context) {
            return Answer::Token(token.for_cache());
        }
        if let Some(pause) = &record.pause {
            let remaining = self.clock.until(pause.until);
            if !remaining.is_zero() {
                return match self.instead_of_a_fetch(context) {
                    Some(token) => Answer::Token(token),
                    None => Answer::Failure(pause.error(remaining)),
                };
            }
        }
        match self.spaced(record, context) {
            Some(token) if record.spacing.was_rejected => Answer::Token(token),
            _ => Answer::Fetch,
        }
    }

    /// Returns the token if it makes a fetch unnecessary.
    fn fresh(&self, context: &FetchContext) -> Option<&TimedToken> {
        let now = Instant::now();
        self.usable(context).filter(|token| {
            !is_held(&token.token, context)
                && (token.is_fresh(now) || (!has_usable(context) && !token.is_late(now)))
        })
    }

    /// Returns the token if a cache is better off with it while nothing can be fetched.
    pub(super) fn instead_of_a_fetch(&self, context: &FetchContext) -> Option<AccessToken> {
        let token = self.usable(context)?;
        let is_better = match context.held_until() {
            Some(end) if has_usable(context) => {
                !is_held(&token.token, context) && token.ends_after(end)
            }
            // It never ends, or nobody knows when it does.
            None if has_usable(context) => false,
            _ => true,
        };
        is_better.then(|| token.for_cache())
    }

    /// Returns the rejected token if it is not to be replaced yet.
    pub(super) fn spaced(&self, record: &Record, context: &FetchContext) -> Option<AccessToken> {
        let token = self.token.as_ref()?;
        let is_spaced = is_rejected(&token.token, context)
            && context.reason() != FetchReason::Invalidated
            && !self.clock.until(record.spacing.until).is_zero();
        is_spaced.then(|| token.for_cache())
    }

    /// Returns the token of the record for a caller that would have to wait for another process.
    pub(super) fn usable_meanwhile(&self, context: &FetchContext) -> Option<AccessToken> {
        let token = self.usable(context)?;
        let is_usable = !has_usable(context) || is_held(&token.token, context);
        is_usable.then(|| token.for_cache())
    }

    /// Returns the token, unless it was rejected or has expired.
    pub(super) fn usable(&self, context: &FetchContext) -> Option<&TimedToken> {
        // It may have expired since it was loaded.
        let token = self.token.as_ref().filter(|it| !it.has_expired());
        token.filter(|it| !is_rejected(&it.token, context))
    }
}

pub(super) fn is_rejected(token: &AccessToken, context: &FetchContext) -> bool {
    let rejected = context.rejected();
    rejected.is_some_and(|it| it.is_same_value(token))
}

/// Returns true if the cache has this token, and asks for another.
pub(super) fn is_held(token: &AccessToken, context: &FetchContext) -> bool {
    context.held().is_some_and(|it| it.is_same_value(token))
}

/// Returns true if the cache has a token that it still uses.
fn has_usable(context: &FetchContext) -> bool {
    matches!(context.reason(), FetchReason::Due | FetchReason::Late)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::source::shared::record::SharedPause;
    use crate::store::{Lease, Loaded, StoreTime};

    const LIFE: Duration = Duration::from_secs(900);

    fn token(value: &str, age: u64) -> AccessToken {
        let issued = SystemTime::now() - Duration::from_secs(age);
        let token = AccessToken::new(value).unwrap();
        token
            .with_issued_at(issued)
            .with_lifetime(LIFE)
            .with_due_at(issued)
    }

    /// Returns a record with a token of this age, during a pause.
    fn view(age: u64) -> View {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let time = StoreTime::from_millis(1_000_000);
        let error = TokenError::transient("down");
        let until = time.plus(Duration::from_secs(60));
        let record = Record {
            pause: Some(SharedPause::new(&error, until, 1)),
            ..Record::default()
        };
        View {
            bytes: None,
            opened: Opened::Record(Box::new(record), Lease::new([0; 16], 1)),
            clock: StoreClock::new(&Loaded::absent(time), now, now),
            token: TimedToken::fetched(token("stored", age), now, wall),
        }
    }

    fn context(reason: FetchReason) -> FetchContext {
        FetchContext::new(reason, Instant::now() + Duration::from_secs(30))
    }

    fn is_adopted(view: &View, context: &FetchContext) -> bool {
        match view.answer(context) {
            Answer::Token(token) => {
                assert_eq!(token.expose_secret(), "stored");
                true
            }
            Answer::Failure(error) => {
                assert!(error.is_paused());
                false
            }
            Answer::Alone | Answer::Fetch => panic!("neither"),
        }
    }

    /// Otherwise callers would fail between the ends of the two tokens.
    #[test]
    fn in_a_pause_a_cache_gets_the_token_that_ends_later() {
        let left = Some(LIFE - Duration::from_secs(870));
        for reason in [FetchReason::Due, FetchReason::Late] {
            for (age, expected) in [(860, true), (871, false), (880, false)] {
                let held = token("held", 870);
                let context = context(reason).with_held(held).with_held_life(left);
                assert_eq!(is_adopted(&view(age), &context), expected, "{age}");
            }
            let unlimited = token("held", 870).without_expiry();
            assert!(!is_adopted(
                &view(860),
                &context(reason).with_held(unlimited)
            ));
            let same = context(reason).with_held(token("stored", 870));
            assert!(!is_adopted(&view(860), &same), "it has it already");
        }
    }

    #[test]
    fn in_a_pause_a_cache_without_a_usable_token_gets_any() {
        let expired = context(FetchReason::Expired).with_held(token("held", 900));
        assert!(is_adopted(&view(899), &expired));
        assert!(is_adopted(&view(860), &context(FetchReason::First)));
        let rejected = context(FetchReason::Rejected).with_rejected(token("stored", 860));
        assert!(!is_adopted(&view(860), &rejected));
    }
}
