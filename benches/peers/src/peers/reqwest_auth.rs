//! reqwest-auth's middleware over a token source that is written by hand.
//!
//! The source is to return a token that is good, renewed where needed. This one keeps it behind a
//! read-write lock, looks again once it may write, fetches by the `oauth2` crate, and renews 1 s
//! before the expiry. The middleware is the last of its stack, as its README asks.

use std::sync::Arc;
use std::time::Instant;

use ::reqwest_auth::AuthorizationHeaderMiddleware;
use async_trait::async_trait;
use token_source::TokenSource;
use tokio::sync::RwLock;

use super::{BoxError, Client, NO_REACTION, Peer, RENEW_BEFORE, What};
use crate::scenarios::Scenario;
use crate::server::Target;
use crate::stack::reqwest::v12;
use crate::token_request::{Token, TokenEndpoint};

pub(super) struct ReqwestAuth;

#[async_trait]
impl Peer for ReqwestAuth {
    fn name(&self) -> &'static str {
        "reqwest-auth"
    }

    fn stack(&self) -> &'static str {
        "reqwest-middleware 0.4"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["reqwest-auth", "token-source", "oauth2"]
    }

    fn lacks(&self, scenario: Scenario) -> Option<&'static str> {
        (scenario == Scenario::Revocation).then_some(NO_REACTION)
    }

    async fn connect(&self, target: &Target, what: What) -> Result<Arc<dyn Client>, BoxError> {
        match what {
            What::Peer => {
                let endpoint = TokenEndpoint::new(target)?;
                let source: Arc<dyn TokenSource> = Arc::new(CachedTokens {
                    endpoint,
                    current: RwLock::default(),
                });
                let middleware = AuthorizationHeaderMiddleware::from(source);
                v12::client(target, Some(Arc::new(middleware)))
            }
            What::StaticHeader => v12::client(target, Some(v12::static_middleware())),
            What::Bare => v12::client(target, None),
        }
    }
}

#[derive(Debug)]
struct CachedTokens {
    endpoint: TokenEndpoint,
    current: RwLock<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    header: String,
    renew_at: Instant,
}

#[async_trait]
impl TokenSource for CachedTokens {
    async fn token(&self) -> Result<String, BoxError> {
        if let Some(header) = fresh(&*self.current.read().await) {
            return Ok(header);
        }
        let mut current = self.current.write().await;
        if let Some(header) = fresh(&current) {
            return Ok(header);
        }
        let Token { secret, expires_at } = self.endpoint.fetch().await?;
        let header = format!("Bearer {secret}");
        *current = Some(Cached {
            header: header.clone(),
            renew_at: expires_at - RENEW_BEFORE,
        });
        Ok(header)
    }
}

fn fresh(current: &Option<Cached>) -> Option<String> {
    let cached = current.as_ref()?;
    (Instant::now() < cached.renew_at).then(|| cached.header.clone())
}
