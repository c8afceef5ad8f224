//! A custom token source, and the cache on its own for protocols other than HTTP.
//!
//! `cargo run --example custom_source` needs no server.

use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{AccessToken, BearerAuthLayer, BoxError, TokenCache};
use bearer_auth::{TokenError, TokenRequest, TokenSource, source_fn};

/// A source that signs its own tokens. A source only fetches tokens: the cache keeps, refreshes and
/// shares them.
struct Signer {
    role: &'static str,
}

#[async_trait]
impl TokenSource for Signer {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let scope = request.scopes().unwrap_or("read");
        if scope == "admin" {
            // Use `TokenError::transient` for a failure that may pass. The cache retries those.
            return Err(TokenError::permanent("the role does not allow this scope"));
        }
        let token = AccessToken::new(format!("signed.{}.{scope}", self.role))?;
        Ok(token.with_lifetime(Duration::from_secs(900)))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A WebSocket client, for example, needs a token when it connects.
    let cache = TokenCache::new(Signer { role: "reporter" });
    let token = cache.token().await?;
    assert_eq!(token.expose_secret(), "signed.reporter.read");
    println!("connected");

    // The server rejected the token: invalidate it and connect with the next one. This does nothing
    // if another caller has already invalidated it.
    cache.invalidate(&token);
    let token = cache.token_for(&TokenRequest::scope("write")).await?;
    assert_eq!(token.expose_secret(), "signed.reporter.write");
    println!("connected with another scope");

    let result = cache.token_for(&TokenRequest::scope("admin")).await;
    let error = result.err().ok_or("expected an error for `admin`")?;
    println!("admin: {error}");
    assert!(!error.is_transient());

    // HTTP requests use tokens from the same cache.
    let _layer = BearerAuthLayer::from_cache(cache).allow_origin("https://api.example.com")?;

    // A source without state can be a function. This token has no lifetime, so the cache uses its
    // `default_lifetime`.
    let cache = TokenCache::new(source_fn(async |request: TokenRequest| {
        Ok(AccessToken::new(request.scopes().unwrap_or("none"))?)
    }));
    let token = cache.token_for(&TokenRequest::scope("a-tenant")).await?;
    assert_eq!(token.expose_secret(), "a-tenant");
    Ok(())
}
