//! Tokens from elsewhere than a token endpoint, and the cache on its own, for what is not HTTP.
//!
//! `cargo run --example custom_source` needs no server.

use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{AccessToken, BearerAuthLayer, BoxError, TokenCache};
use bearer_auth::{TokenError, TokenRequest, TokenSource, source_fn};

/// Signs its tokens itself. A source only obtains them: to keep, to renew and to share them is the
/// cache's work.
struct Signer {
    role: &'static str,
}

#[async_trait]
impl TokenSource for Signer {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let scope = request.scopes().unwrap_or("read");
        if scope == "admin" {
            // What may pass by itself is `transient`, and tried again at once.
            return Err(TokenError::permanent("the role allows no admin"));
        }
        let token = AccessToken::new(format!("signed.{}.{scope}", self.role))?;
        Ok(token.with_lifetime(Duration::from_secs(900)))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A WebSocket, say, takes a token when it connects.
    let cache = TokenCache::new(Signer { role: "reporter" });
    let token = cache.token().await?;
    println!("connect with {}", token.expose_secret());

    // Refused? Say so, and connect with the next one. If others said so first, nothing happens.
    cache.invalidate(&token);
    let token = cache.token_for(&TokenRequest::scope("write")).await?;
    println!("connect with {}", token.expose_secret());

    let refused = cache.token_for(&TokenRequest::scope("admin")).await;
    let error = refused.err().ok_or("a token that no role allows")?;
    println!("admin: {error}");
    assert!(!error.is_transient());

    // HTTP requests take their tokens from the same cache.
    let _layer = BearerAuthLayer::from_cache(cache).allow_origin("https://api.example.com")?;

    // Without state, a function will do. This token names no life, so it gets the cache's default.
    let cache = TokenCache::new(source_fn(async |request: TokenRequest| {
        Ok(AccessToken::new(request.scopes().unwrap_or("none"))?)
    }));
    let token = cache.token_for(&TokenRequest::scope("a-tenant")).await?;
    assert_eq!(token.expose_secret(), "a-tenant");
    Ok(())
}
