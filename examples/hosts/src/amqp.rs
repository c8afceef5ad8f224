//! AMQP: tokens for a connection that outlives them, of the shape of lapin's.
//!
//! RabbitMQ takes the token as the password. It closes the connection when the token expires,
//! unless `lapin::Connection::update_secret` brings a new one before. So connect with the first
//! token of [`TokenCache::subscribe`], and then, for as long as the connection is open, run
//! [`keep_authorized`] with the rest of the stream. If a connection is rejected,
//! [`invalidate`](bearer_auth::TokenCache::invalidate) its token and connect again with the next
//! one of the stream.
//!
//! No broker is needed here: in the test, the mock server's API stands for it.
//!
//! [`TokenCache::subscribe`]: bearer_auth::TokenCache::subscribe

use async_trait::async_trait;
use bearer_auth::TokenSubscription;
use futures::StreamExt;

/// The part of `lapin::Connection` that the recipe needs.
#[async_trait]
pub trait Connection: Sync {
    /// The error of the connection.
    type Error;

    /// Gives the broker a new password for this connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker does not accept it, or if the connection is closed.
    async fn update_secret(&self, new_secret: String, reason: String) -> Result<(), Self::Error>;
}

/// Gives the broker each token that follows, until the cache is closed.
///
/// If a fetch fails, the stream tries again after the pause, while the broker still accepts the
/// token that it has. The error is in [`status`](bearer_auth::TokenCache::status).
///
/// # Errors
///
/// Returns the error of the connection: connect again with the next token.
///
/// # Cancel safety
///
/// Cancel safe: a refresh that has begun goes on. A token that was not sent yet is still the
/// current one, which a new subscription returns first.
pub async fn keep_authorized<C: Connection>(
    connection: &C,
    tokens: &mut TokenSubscription,
) -> Result<(), C::Error> {
    while let Some(token) = tokens.next().await {
        let secret = token.expose_secret().to_owned();
        connection
            .update_secret(secret, "the token was refreshed".to_owned())
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;
    use bearer_auth::{MockTokenSource, TokenCache, TokenRequest};
    use futures::StreamExt;
    use http::StatusCode;
    use tokio::time::{Instant, timeout};

    use super::{Connection, keep_authorized};
    use crate::testing;

    #[tokio::test]
    async fn heals_a_revoked_token() {
        let server = testing::server().await;
        let cache = testing::cache(&server);
        let mut tokens = cache.subscribe(&TokenRequest::default());

        let token = tokens.next().await.unwrap();
        let connected = testing::status_with(&server, token.expose_secret()).await;
        assert_eq!(connected, StatusCode::OK);
        server.revoke_all();
        let refused = testing::status_with(&server, token.expose_secret()).await;
        assert_eq!(refused, StatusCode::UNAUTHORIZED);
        cache.invalidate(&token);
        let token = tokens.next().await.unwrap();
        let connected = testing::status_with(&server, token.expose_secret()).await;
        assert_eq!(connected, StatusCode::OK);

        testing::assert_healed(&server);
    }

    /// Notes what the broker gets, and when.
    struct Noted {
        opened: Instant,
        secrets: Mutex<Vec<(String, Duration)>>,
    }

    #[async_trait]
    impl Connection for Noted {
        type Error = Infallible;

        async fn update_secret(&self, new_secret: String, _: String) -> Result<(), Infallible> {
            let secret = (new_secret, self.opened.elapsed());
            self.secrets.lock().unwrap().push(secret);
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_broker_has_the_next_token_before_the_held_one_expires() {
        const LIFETIME: Duration = Duration::from_secs(60);
        let cache = TokenCache::new(MockTokenSource::new().with_lifetime(LIFETIME));
        let mut tokens = cache.subscribe(&TokenRequest::default());
        let first = tokens.next().await.unwrap();
        assert_eq!(first.expose_secret(), "mock-token-1");

        let connection = Noted {
            opened: Instant::now(),
            secrets: Mutex::default(),
        };
        let keeping = keep_authorized(&connection, &mut tokens);
        timeout(2 * LIFETIME, keeping).await.unwrap_err();

        let secrets = connection.secrets.into_inner().unwrap();
        let (mut held, mut since) = ("mock-token-1".to_owned(), Duration::ZERO);
        for (secret, at) in &secrets {
            assert_ne!(*secret, held);
            assert!(*at < since + LIFETIME, "{at:?}");
            (held, since) = (secret.clone(), *at);
        }
        assert!(secrets.len() >= 2, "{secrets:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_cache_is_closed() {
        let cache = TokenCache::new(MockTokenSource::new());
        let mut tokens = cache.subscribe(&TokenRequest::default());
        let connection = Noted {
            opened: Instant::now(),
            secrets: Mutex::default(),
        };
        let (ended, ()) = tokio::join!(keep_authorized(&connection, &mut tokens), async {
            tokio::task::yield_now().await;
            cache.close().await;
        });
        ended.unwrap();
    }
}
