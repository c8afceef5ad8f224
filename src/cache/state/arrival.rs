//! The life of a token that arrives.

use std::time::{Duration, UNIX_EPOCH};

use crate::cache::state::Timing;
use crate::clock::Moment;
use crate::token::{AccessToken, Lifetime};

/// The life of a token that arrived.
pub(super) enum Life {
    Limited { life: Duration, since: Moment },
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
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default();
        return Life::Limited {
            life: end.saturating_sub(now.wall()),
            since: now,
        };
    }
    let life = match token.lifetime() {
        Lifetime::Unlimited => return Life::Unlimited,
        Lifetime::Ended => return Life::Ended,
        Lifetime::Limited(life) => life,
        Lifetime::Unspecified => timing.default_lifetime,
    };
    Life::Limited {
        life,
        since: started,
    }
}
