//! Bearer tokens for HTTP clients.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)
)]

mod cache;
mod challenge;
mod clock;
mod error;
mod exchange;
mod layer;
mod message;
#[cfg(feature = "mock-server")]
mod mock_server;
mod policy;
mod request_auth;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
mod service;
mod source;
#[cfg(feature = "task-local")]
pub mod task_local;
mod token;
#[cfg(feature = "client-credentials")]
mod token_endpoint;
mod token_request;

pub use cache::{TokenCache, TokenCacheBuilder};
pub use clock::Clock;
pub use error::{BoxError, InvalidSetting, InvalidToken, TokenError, TokenErrorKind};
pub use layer::BearerAuthLayer;
#[cfg(feature = "mock-server")]
pub use mock_server::{
    ApiRecord, ClientAuthenticationSeen, MockAuthServer, MockAuthServerBuilder, TokenRecord,
};
pub use policy::rejection::{BearerChallenge, RejectionPolicy};
pub use request_auth::RequestAuth;
pub use service::{BearerAuth, ResponseFuture};
#[cfg(feature = "client-credentials")]
pub use source::client_credentials::{ClientCredentials, ClientCredentialsBuilder};
#[cfg(feature = "mock")]
pub use source::mock::{Hold, MockTokenSource};
pub use source::static_token::StaticTokenSource;
pub use source::{SourceFn, TokenSource, source_fn};
pub use token::AccessToken;
#[cfg(feature = "client-credentials")]
pub use token_endpoint::request::ClientAuthentication;
pub use token_request::TokenRequest;
