//! AMQP: tokens for a connection that outlives them, of the shape of lapin's.
//!
//! RabbitMQ takes the token as the password. It closes the connection when the token expires,
//! unless `lapin::Connection::update_secret` brings a new one before. So connect with
//! [`TokenCache::token`], and then, for as long as the connection is open, send each [`next_token`]
//! by `update_secret`. If a connection is refused, connect again with [`token_after_refusal`].
//!
//! No broker is needed here: in the test, the mock server's API stands for it.

use std::time::{Duration, SystemTime};

use bearer_auth::{AccessToken, TokenCache, TokenError};
use tokio::time::sleep;

/// The shortest and the longest time between two looks at the cache.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Waits until the cache has another token than `held`, and returns it.
///
/// # Errors
///
/// Returns the error of a failed fetch. The held token may still be valid, so call again after
/// [`retry_after`](TokenError::retry_after).
///
/// # Cancel safety
///
/// Cancel safe: a refresh that has begun goes on, and the next call returns its token.
pub async fn next_token(cache: &TokenCache, held: &AccessToken) -> Result<AccessToken, TokenError> {
    loop {
        // A due token is returned while its refresh runs.
        let token = cache.token().await?;
        if token.expose_secret() != held.expose_secret() {
            return Ok(token);
        }
        let left = token
            .expires_at()
            .and_then(|end| end.duration_since(SystemTime::now()).ok());
        let length = left.map_or(LONGEST_SLEEP, |left| left / 2);
        sleep(length.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
    }
}

/// Rejects the token that the broker refused, and returns another.
///
/// # Errors
///
/// The same as of [`next_token`].
///
/// # Cancel safety
///
/// The same as of [`next_token`].
pub async fn token_after_refusal(
    cache: &TokenCache,
    refused: &AccessToken,
) -> Result<AccessToken, TokenError> {
    cache.invalidate(refused);
    next_token(cache, refused).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, SystemTime};

    use bearer_auth::{AccessToken, TokenCache, TokenRequest, source_fn};
    use http::StatusCode;
    use tokio::time::Instant;

    use super::{next_token, token_after_refusal};
    use crate::testing;

    #[tokio::test]
    async fn heals_a_revoked_token() {
        let server = testing::server().await;
        let cache = testing::cache(&server);

        let token = cache.token().await.unwrap();
        let connected = testing::status_with(&server, token.expose_secret()).await;
        assert_eq!(connected, StatusCode::OK);
        server.revoke_all();
        let refused = testing::status_with(&server, token.expose_secret()).await;
        assert_eq!(refused, StatusCode::UNAUTHORIZED);
        let token = token_after_refusal(&cache, &token).await.unwrap();
        let connected = testing::status_with(&server, token.expose_secret()).await;
        assert_eq!(connected, StatusCode::OK);

        testing::assert_healed(&server);
    }

    #[tokio::test(start_paused = true)]
    async fn gets_the_next_token_before_the_held_one_expires() {
        const LIFETIME: Duration = Duration::from_secs(60);
        let fetches = Arc::new(AtomicUsize::new(0));
        let cache = TokenCache::new(source_fn(move |_: TokenRequest| {
            let number = fetches.fetch_add(1, Ordering::Relaxed);
            async move {
                let token = AccessToken::new(format!("token-{number}"))?.with_lifetime(LIFETIME);
                Ok(token.with_due_at(SystemTime::now()))
            }
        }));

        let held = cache.token().await.unwrap();
        let started = Instant::now();
        let next = next_token(&cache, &held).await.unwrap();

        assert_eq!(next.expose_secret(), "token-1");
        assert!(started.elapsed() <= LIFETIME / 2 + Duration::from_millis(1));
    }
}
