//! The crates under comparison: one module per peer, behind one small trait.

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

/// The time before expiry at which a token is refreshed, for peers with such a setting: a quarter
/// of the tokens' lifetime, and the resolution of the coarsest clock among the peers.
const REFRESH_BEFORE: Duration = Duration::from_secs(1);

const NO_CALLER_FETCHES: &str =
    "no caller fetches: the first token is fetched before the first call";

const NO_REACTION: &str = "no reaction to a 401: the caller gets it and the token stays in use";

/// One way to attach tokens to requests.
#[async_trait]
pub(crate) trait Peer: Send + Sync {
    fn name(&self) -> &'static str;

    /// Returns the name of the stack around the peer. Stacks differ in cost.
    fn stack(&self) -> &'static str;

    /// Returns the packages whose versions identify what was measured.
    fn packages(&self) -> &'static [&'static str];

    /// Returns the reason why the peer has nothing to measure in this scenario, or `None`.
    fn lacks(&self, _scenario: Scenario) -> Option<&'static str> {
        None
    }

    /// Creates a client that is ready for calls. A peer that fetches its first token ahead does so
    /// here.
    async fn connect(&self, target: &Target, auth: Auth) -> Result<Arc<dyn Client>, BoxError>;
}

/// The authorization in a peer's stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// The peer.
    Peer,
    /// A constant header.
    StaticHeader,
    /// None.
    Bare,
}

/// A stack that sends requests.
#[async_trait]
pub(crate) trait Client: Send + Sync {
    /// Sends one GET to the API, reads the body and returns the status.
    async fn call(&self) -> Result<u16, BoxError>;

    /// Calls the API `times` times in sequence and returns the time that this took.
    async fn repeat(&self, times: u32) -> Result<Duration, BoxError>;
}

/// A [`Client`] whose futures are not boxed.
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
                return Err(format!("unexpected status {status}").into());
            }
        }
        Ok(start.elapsed())
    }
}

/// Returns all peers, in the order of the tables.
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

/// Returns all peers, followed by the same load without tokens.
pub(crate) fn for_rollover() -> Vec<Box<dyn Peer>> {
    let mut peers = all();
    peers.push(Box::new(no_tokens::NoTokens));
    peers
}

/// Returns all peers, and bearer-auth also without replay, which most peers do not have.
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
