//! A baseline instead of a peer: requests without a token, to a path that needs none.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Auth, BoxError, Client, Peer};
use crate::server::Target;
use crate::stack::reqwest::v13;

pub(super) struct NoTokens;

#[async_trait]
impl Peer for NoTokens {
    fn name(&self) -> &'static str {
        "(no tokens at all)"
    }

    fn stack(&self) -> &'static str {
        "reqwest-middleware 0.5"
    }

    fn packages(&self) -> &'static [&'static str] {
        &[]
    }

    async fn connect(&self, target: &Target, _: Auth) -> Result<Arc<dyn Client>, BoxError> {
        let target = Target {
            api_url: target.open_url.clone(),
            ..target.clone()
        };
        v13::client(&target, None)
    }
}
