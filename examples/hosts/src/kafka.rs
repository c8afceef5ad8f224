//! Kafka: a callback for SASL `OAUTHBEARER`, of the shape of rdkafka's.
//!
//! rdkafka is not built here, since librdkafka is written in C: [`ClientContext`] and
//! [`OAuthToken`] have the signatures of its `ClientContext` and `client::OAuthToken`, which the
//! recipe implements in the same way. Set `ENABLE_REFRESH_OAUTH_TOKEN` to `true`, and call
//! `rejected` from `error` for the code `Authentication`.
//!
//! A rejection does not make librdkafka ask for another token: it asks when 80 % of the lifetime
//! that it was told have passed. So it is told [`LONGEST_LIFETIME`] at most.
//!
//! librdkafka calls from threads of its own, so build the cache with
//! [`runtime`](bearer_auth::TokenCacheBuilder::runtime). A client that is polled by a task blocks
//! the task's thread during a fetch, so do not poll it on the only thread of that runtime.

use std::error::Error;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bearer_auth::{AccessToken, TokenCache};

/// The longest time until librdkafka asks again, which costs nothing while the token is fresh.
pub const LONGEST_LIFETIME: Duration = Duration::from_secs(60);

/// A token as librdkafka takes it.
#[derive(Clone)]
pub struct OAuthToken {
    /// The token itself.
    pub token: String,
    /// The name of the principal, which most brokers read from the token instead.
    pub principal_name: String,
    /// The end of the token's life in milliseconds since the Unix epoch.
    pub lifetime_ms: i64,
}

/// The callbacks of a Kafka client.
pub trait ClientContext: Send + Sync {
    /// Returns the token for the next connection.
    ///
    /// # Errors
    ///
    /// Returns the reason if there is no token. librdkafka calls again 10 s later.
    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>>;

    /// Learns that a broker failed to authenticate the client.
    fn rejected(&self);
}

/// Gives the tokens of a cache to a Kafka client.
#[derive(Debug)]
pub struct BearerContext {
    cache: TokenCache,
    given: Mutex<Option<AccessToken>>,
}

impl BearerContext {
    /// Returns a context with tokens of this cache.
    pub fn new(cache: TokenCache) -> Self {
        Self {
            cache,
            given: Mutex::default(),
        }
    }
}

impl ClientContext for BearerContext {
    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.cache.token_blocking()?;
        let soon = SystemTime::now() + LONGEST_LIFETIME;
        let end = token.expires_at().map_or(soon, |end| end.min(soon));
        *self.given.lock().map_err(|_| "poisoned")? = Some(token.clone());
        Ok(OAuthToken {
            token: token.expose_secret().to_owned(),
            principal_name: String::new(),
            lifetime_ms: i64::try_from(end.duration_since(UNIX_EPOCH)?.as_millis())?,
        })
    }

    fn rejected(&self) {
        let given = self.given.lock().ok().and_then(|mut given| given.take());
        given.iter().for_each(|token| self.cache.invalidate(token));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use bearer_auth::TokenCache;
    use http::StatusCode;
    use tokio::runtime::Handle;
    use tokio::sync::oneshot;

    use super::{BearerContext, ClientContext, LONGEST_LIFETIME, OAuthToken};
    use crate::testing;

    /// Calls back from a thread without a runtime, as librdkafka does.
    async fn called_back(context: &Arc<BearerContext>) -> OAuthToken {
        let (sender, token) = oneshot::channel();
        let context = Arc::clone(context);
        std::thread::spawn(move || {
            let token = context
                .generate_oauth_token(None)
                .map_err(|error| error.to_string());
            sender.send(token).ok();
        });
        token.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn heals_a_revoked_token() {
        let server = testing::server().await;
        let credentials = testing::credentials(&server);
        let cache = TokenCache::builder(credentials)
            .runtime(Handle::current())
            .build()
            .unwrap();
        let context = Arc::new(BearerContext::new(cache));

        let first = called_back(&context).await;
        assert_eq!(
            testing::status_with(&server, &first.token).await,
            StatusCode::OK
        );
        let end = UNIX_EPOCH + Duration::from_millis(first.lifetime_ms.try_into().unwrap());
        let now = SystemTime::now();
        assert!(end > now && end <= now + LONGEST_LIFETIME);

        server.revoke_all();
        let first = called_back(&context).await;
        assert_eq!(
            testing::status_with(&server, &first.token).await,
            StatusCode::UNAUTHORIZED
        );
        context.rejected();
        let second = called_back(&context).await;
        assert_eq!(
            testing::status_with(&server, &second.token).await,
            StatusCode::OK
        );

        testing::assert_healed(&server);
    }
}
