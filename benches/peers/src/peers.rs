//! What is compared: one module a peer, behind one small trait.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::scenarios::Scenario;
use crate::server::Target;

mod aliri;
mod azure;
mod bearer_auth_reqwest;
mod bearer_auth_tower;
mod hand_written;
mod middle;
mod no_tokens;
mod reqwest_auth;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// How long before its expiry a token is renewed, by peers that let it be set. A quarter of the
/// life of the tokens here, and the unit of the coarsest clock among the peers.
const RENEW_BEFORE: Duration = Duration::from_secs(1);

const NO_CALLER_FETCHES: &str = "no caller fetches: the first token is there before the first call";

const NO_REACTION: &str = "no reaction to a 401: it goes to the caller, the token stays";

/// One way to put tokens into requests.
#[async_trait]
pub(crate) trait Peer: Send + Sync {
    fn name(&self) -> &'static str;

    /// What it is a part of: the stack around it, which differs in cost.
    fn stack(&self) -> &'static str;

    /// The packages whose versions tell what was measured.
    fn packages(&self) -> &'static [&'static str];

    /// Why there is nothing to measure; `None` if there is.
    fn lacks(&self, _scenario: Scenario) -> Option<&'static str> {
        None
    }

    /// A client that is ready for calls. A peer that fetches its first token ahead does it here.
    async fn connect(&self, target: &Target, what: What) -> Result<Arc<dyn Client>, BoxError>;
}

/// What is in the place of the authorization in a peer's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The peer.
    Peer,
    /// The cheapest thing that works: a header, ready to be copied.
    StaticHeader,
    /// Nothing.
    Bare,
}

/// A stack to send requests with.
#[async_trait]
pub(crate) trait Client: Send + Sync {
    /// One GET of the API, its body read. The status.
    async fn call(&self) -> Result<u16, BoxError>;

    /// The time that so many calls take, one after the other.
    async fn repeat(&self, times: u32) -> Result<Duration, BoxError>;
}

/// A [`Client`] whose calls need no box.
pub(crate) trait Call: Send + Sync + 'static {
    fn call(&self) -> impl Future<Output = Result<u16, BoxError>> + Send;
}

#[async_trait]
impl<C: Call> Client for C {
    async fn call(&self) -> Result<u16, BoxError> {
        Call::call(self).await
    }

    async fn repeat(&self, times: u32) -> Result<Duration, BoxError> {
        let start = Instant::now();
        for _ in 0..times {
            let status = Call::call(self).await?;
            if status != 200 {
                return Err(format!("answered {status}").into());
            }
        }
        Ok(start.elapsed())
    }
}

/// All of them, in the order of the tables.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(bearer_auth_reqwest::BearerAuthReqwest::default()),
        Box::new(bearer_auth_tower::BearerAuthTower::default()),
        Box::new(aliri::Aliri),
        Box::new(middle::Middle),
        Box::new(reqwest_auth::ReqwestAuth),
        Box::new(hand_written::HandWritten),
        Box::new(azure::Azure),
    ]
}

/// Those, and last the same load without tokens.
pub(crate) fn for_rollover() -> Vec<Box<dyn Peer>> {
    let mut peers = all();
    peers.push(Box::new(no_tokens::NoTokens));
    peers
}

/// All peers, and bearer-auth with its sending again turned off, as most peers have no such thing.
pub(crate) fn for_hot_path() -> Vec<Box<dyn Peer>> {
    let mut peers = all();
    peers.insert(
        1,
        Box::new(bearer_auth_reqwest::BearerAuthReqwest::without_replay()),
    );
    peers.insert(
        3,
        Box::new(bearer_auth_tower::BearerAuthTower::without_replay()),
    );
    peers
}
