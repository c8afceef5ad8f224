//! A token with the time of its request, since a later fetch may return it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::clock::wall_now;
use crate::token::windows::windows;
use crate::token::{AccessToken, Lifetime};

/// The age from which a token of unknown lifetime is not returned. A cache counts its default
/// lifetime from the later fetch.
const MAX_UNKNOWN_AGE: Duration = Duration::from_secs(60);

/// A time by both clocks. The monotonic one may stand still while the machine is suspended, and the
/// wall clock may be set back.
#[derive(Clone, Copy)]
pub(super) struct RequestTime {
    instant: Instant,
    wall: SystemTime,
}

/// An access token and the time just before its request was sent.
#[derive(Clone)]
pub(super) struct DatedToken {
    pub(super) token: AccessToken,
    pub(super) requested: RequestTime,
}

impl RequestTime {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            wall: wall_now(),
        }
    }

    /// Returns the time that has passed, by the clock that counts more of it.
    fn age(&self, wall: SystemTime) -> Duration {
        let by_wall = wall.duration_since(self.wall).unwrap_or_default();
        self.instant.elapsed().max(by_wall)
    }
}

impl DatedToken {
    /// Returns the token for a fetch that started at this time; with its age, if it was requested
    /// before. `None` if too little of its life is left.
    pub(super) fn for_fetch(self, started: Instant) -> Option<AccessToken> {
        if self.requested.instant >= started {
            return Some(self.token);
        }
        let wall = wall_now();
        let age = self.requested.age(wall);
        match self.token.lifetime() {
            Lifetime::Limited(life) => {
                let (_, late) = windows(life, 0.0);
                let issued_at = wall.checked_sub(age)?;
                (age < late).then(|| self.token.with_issued_at(issued_at))
            }
            Lifetime::Unspecified | Lifetime::Ended => {
                (age < MAX_UNKNOWN_AGE).then_some(self.token)
            }
            Lifetime::Unlimited => Some(self.token),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LIFE: Duration = Duration::from_secs(900);

    /// Returns the life that is left, in seconds, of a token requested this long ago by each clock.
    async fn left(monotonic: u64, wall: i64) -> Option<u64> {
        let mut requested = RequestTime::now();
        advance(Duration::from_secs(monotonic)).await;
        let by_wall = Duration::from_secs(wall.unsigned_abs());
        requested.wall = match wall {
            0.. => requested.wall - by_wall,
            _ => requested.wall + by_wall,
        };
        let token = AccessToken::new("token").unwrap().with_lifetime(LIFE);
        let token = DatedToken { token, requested }.for_fetch(Instant::now())?;
        let left = token.expires_at()?.duration_since(wall_now());
        Some(left.unwrap_or_default().as_secs_f64().round() as u64)
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_that_counts_more_decides_the_age() {
        assert_eq!(left(100, 100).await, Some(800));
        assert_eq!(left(100, -3_600).await, Some(800), "set back");
        assert_eq!(left(100, 500).await, Some(400), "suspended");
        assert_eq!(left(100, 3_600).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_late_is_not_returned() {
        assert_eq!(left(889, 0).await, Some(11));
        assert_eq!(left(890, 0).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_the_fetch_itself_is_returned_as_it_is() {
        let started = Instant::now();
        let requested = RequestTime::now();
        advance(LIFE).await;
        let token = AccessToken::new("token").unwrap().with_lifetime(LIFE);
        let token = DatedToken { token, requested }.for_fetch(started);
        assert_eq!(token.unwrap().issued_at(), None);
    }
}
