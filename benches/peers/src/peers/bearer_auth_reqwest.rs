//! bearer-auth as a reqwest middleware.
//!
//! It has its default settings and `allow_origin`, as its documentation recommends. The first
//! caller after 2.6 s starts the refresh of a token of 4 s.

use std::sync::Arc;

use async_trait::async_trait;
use bearer_auth::{BearerAuthLayer, ClientCredentials, TokenCache};

use super::{Auth, BoxError, Client, Peer};
use crate::server::Target;
use crate::stack::reqwest::v13;

#[derive(Default)]
pub(super) struct BearerAuthReqwest {
    without_replay: bool,
}

impl BearerAuthReqwest {
    pub(super) fn without_replay() -> Self {
        Self {
            without_replay: true,
        }
    }
}

#[async_trait]
impl Peer for BearerAuthReqwest {
    fn name(&self) -> &'static str {
        if self.without_replay {
            "bearer-auth, reqwest, without_replay"
        } else {
            "bearer-auth, reqwest"
        }
    }

    fn stack(&self) -> &'static str {
        "reqwest-middleware 0.5"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["bearer-auth"]
    }

    async fn connect(&self, target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError> {
        match auth {
            Auth::Peer => {
                let mut layer = layer(target)?;
                if self.without_replay {
                    layer = layer.without_replay();
                }
                v13::client(target, Some(Arc::new(layer)))
            }
            Auth::StaticHeader => v13::client(target, Some(v13::static_middleware())),
            Auth::Bare => v13::client(target, None),
        }
    }
}

pub(super) fn layer(target: &Target) -> Result<BearerAuthLayer, BoxError> {
    let source = ClientCredentials::builder(&target.token_url)
        .client_id(&target.client_id)
        .client_secret(&target.client_secret)
        .reqwest_builder(reqwest::Client::builder().no_proxy())
        .build()?;
    // The mock server enables `test-util`, which other programs do not.
    let cache = TokenCache::builder(source).system_clock().build()?;
    Ok(BearerAuthLayer::from_cache(cache).allow_origin(&target.origin)?)
}
