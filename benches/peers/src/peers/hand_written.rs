//! A tower layer over the `oauth2` crate, as it is often written by hand.
//!
//! It keeps the token behind a tokio mutex, which it holds while it fetches, so that callers wait
//! for one token request instead of sending their own. It refreshes the token 1 s before it
//! expires, and keeps the finished header value.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use tokio::sync::Mutex;
use tower::{Layer, Service};

use super::bearer_auth_tower::without_peer;
use super::{Auth, BoxError, Client, NO_REACTION, Peer, REFRESH_BEFORE};
use crate::scenarios::Scenario;
use crate::server::{Api, Target};
use crate::stack::tower as stack;
use crate::token_request::TokenEndpoint;

pub(super) struct HandWritten;

#[async_trait]
impl Peer for HandWritten {
    fn name(&self) -> &'static str {
        "hand-written, tower"
    }

    fn stack(&self) -> &'static str {
        "tower over http"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["oauth2", "tower"]
    }

    fn lacks(&self, scenario: Scenario) -> Option<&'static str> {
        (scenario == Scenario::Revocation).then_some(NO_REACTION)
    }

    async fn connect(&self, target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError> {
        if auth != Auth::Peer {
            return without_peer(target, auth);
        }
        let tokens = Tokens {
            endpoint: TokenEndpoint::new(target)?,
            current: Mutex::default(),
        };
        let layer = BearerLayer {
            tokens: Arc::new(tokens),
        };
        match target.api {
            Api::Loopback => stack::client(target, layer.layer(stack::http_client())),
            _ => stack::client(target, layer.layer(stack::canned(target))),
        }
    }
}

struct Tokens {
    endpoint: TokenEndpoint,
    current: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Tokens {
    async fn header(&self) -> Result<HeaderValue, BoxError> {
        let mut current = self.current.lock().await;
        if let Some((header, refresh_at)) = &*current
            && Instant::now() < *refresh_at
        {
            return Ok(header.clone());
        }
        let token = self.endpoint.fetch().await?;
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.secret))?;
        header.set_sensitive(true);
        *current = Some((header.clone(), token.expires_at - REFRESH_BEFORE));
        Ok(header)
    }
}

#[derive(Clone)]
struct BearerLayer {
    tokens: Arc<Tokens>,
}

impl<S> Layer<S> for BearerLayer {
    type Service = Bearer<S>;

    fn layer(&self, inner: S) -> Bearer<S> {
        Bearer {
            inner,
            tokens: Arc::clone(&self.tokens),
        }
    }
}

#[derive(Clone)]
struct Bearer<S> {
    inner: S,
    tokens: Arc<Tokens>,
}

impl<S, B> Service<Request<B>> for Bearer<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // Calls the service that was polled ready, and keeps the unpolled clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let tokens = Arc::clone(&self.tokens);
        Box::pin(async move {
            request
                .headers_mut()
                .insert(AUTHORIZATION, tokens.header().await?);
            inner.call(request).await.map_err(Into::into)
        })
    }
}
