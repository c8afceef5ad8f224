//! bearer-auth as a tower layer, with the same settings as the middleware.

use std::sync::Arc;

use async_trait::async_trait;
use tower::Layer;

use super::bearer_auth_reqwest::layer;
use super::{Auth, BoxError, Client, Peer};
use crate::server::{Api, Target};
use crate::stack::tower::{self as stack, StaticHeaderLayer};

#[derive(Default)]
pub(super) struct BearerAuthTower {
    without_replay: bool,
}

impl BearerAuthTower {
    pub(super) fn without_replay() -> Self {
        Self {
            without_replay: true,
        }
    }
}

#[async_trait]
impl Peer for BearerAuthTower {
    fn name(&self) -> &'static str {
        if self.without_replay {
            "bearer-auth, tower, without_replay"
        } else {
            "bearer-auth, tower"
        }
    }

    fn stack(&self) -> &'static str {
        "tower over http"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["bearer-auth"]
    }

    async fn connect(&self, target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError> {
        if auth != Auth::Peer {
            return without_peer(target, auth);
        }
        let mut layer = layer(target)?;
        if self.without_replay {
            layer = layer.without_replay();
        }
        match target.api {
            Api::Loopback => stack::client(target, layer.layer(stack::http_client())),
            _ => stack::client(target, layer.layer(stack::canned(target))),
        }
    }
}

/// Creates a tower stack without the peer, for comparison.
pub(super) fn without_peer(target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError> {
    match (auth, target.api) {
        (Auth::Bare, Api::Loopback) => stack::client(target, stack::http_client()),
        (Auth::Bare, _) => stack::client(target, stack::canned(target)),
        (_, Api::Loopback) => stack::client(target, StaticHeaderLayer.layer(stack::http_client())),
        (_, _) => stack::client(target, StaticHeaderLayer.layer(stack::canned(target))),
    }
}
