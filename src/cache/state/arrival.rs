//! The life of a token that arrives.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cache::lifespan::Lifespan;
use crate::cache::state::Timing;
use crate::clock::Moment;
use crate::token::{AccessToken, Lifetime};

/// The life of a token that arrived.
pub(super) enum Life {
    Limited {
        life: Duration,
        since: Moment,
    },
    /// Of a token that had this age on arrival.
    Aged {
        life: Duration,
        age: Duration,
    },
    Ended,
    Unlimited,
}

/// Returns the life of a token that was requested at `started` and arrives now.
pub(super) fn remaining_life(
    token: &AccessToken,
    started: Moment,
    now: Moment,
    timing: Timing,
) -> Life {
    // A token of another cache is not new: its life is what is left of it.
    if token.issued().is_some()
        && let Some(end) = token.expires_at()
    {
        return Life::Limited {
            life: wall(end).saturating_sub(now.wall()),
            since: now,
        };
    }
    let life = match token.lifetime() {
        Lifetime::Unlimited => return Life::Unlimited,
        Lifetime::Ended => return Life::Ended,
        Lifetime::Limited(life) => match token.issued_at() {
            Some(time) => {
                let age = now.wall().saturating_sub(wall(time));
                return Life::Aged { life, age };
            }
            None => life,
        },
        Lifetime::Unspecified => timing.default_lifetime,
    };
    Life::Limited {
        life,
        since: started,
    }
}

/// Returns the lifespan with the due time that the source set, if it set one.
pub(super) fn with_due_time(lifespan: Lifespan, token: &AccessToken, now: Moment) -> Lifespan {
    match token.due_at() {
        Some(time) => lifespan.with_due(now, wall(time).saturating_sub(now.wall())),
        None => lifespan,
    }
}

fn wall(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}
