//! reqwest-auth's middleware over a hand-written token source.
//!
//! The crate expects the source to return a valid token and to refresh it when necessary. This one
//! keeps the token behind a read-write lock, checks again after it has locked for writing, fetches
//! with the `oauth2` crate and refreshes 1 s before expiry. The middleware is the last one of its
//! stack, as its README requires.

use std::sync::Arc;
use std::time::Instant;

use ::reqwest_auth::AuthorizationHeaderMiddleware;
use async_trait::async_trait;
use token_source::TokenSource;
use tokio::sync::RwLock;

use super::{Auth, BoxError, Client, NO_REACTION, Peer, REFRESH_BEFORE};
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

    async fn connect(&self, target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError> {
        match auth {
            Auth::Peer => {
                let endpoint = TokenEndpoint::new(target)?;
                let source: Arc<dyn TokenSource> = Arc::new(CachedTokens {
                    endpoint,
                    current: RwLock::default(),
                });
                let middleware = AuthorizationHeaderMiddleware::from(source);
                v12::client(target, Some(Arc::new(middleware)))
            }
            Auth::StaticHeader => v12::client(target, Some(v12::static_middleware())),
            Auth::Bare => v12::client(target, None),
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
    refresh_at: Instant,
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
            refresh_at: expires_at - REFRESH_BEFORE,
        });
        Ok(header)
    }
}

fn fresh(current: &Option<Cached>) -> Option<String> {
    let cached = current.as_ref()?;
    (Instant::now() < cached.refresh_at).then(|| cached.header.clone())
}
