//! OAuth 2.0 bearer tokens for HTTP clients. A token is fetched once for all who need it, renewed in
//! the background before it expires, and fetched anew when an API refuses it.
//!
//! - [`BearerAuthLayer`] puts the token into requests: a tower layer over `http`, or around a
//!   `reqwest::Client`, and a reqwest middleware. Call its
//!   [`allow_origin`](BearerAuthLayer::allow_origin).
//! - [`TokenCache`] keeps tokens, one per [`TokenRequest`]. It is of use on its own too.
//! - [`TokenSource`] is where tokens come from: `ClientCredentials` (feature `client-credentials`),
//!   [`StaticTokenSource`], [`source_fn`].
//! - [`RequestAuth`] says by request, or by task (feature `task-local`), which token it gets, if any.
//! - [`TokenError`] says what went wrong and what to do about it.
//! - `MockTokenSource` (feature `mock`) and `MockAuthServer` (feature `mock-server`) are for tests.
//!
//! ```
//! # #[cfg(all(feature = "client-credentials", feature = "reqwest-middleware"))]
//! # fn main() -> Result<(), bearer_auth::InvalidSetting> {
//! use bearer_auth::{BearerAuthLayer, ClientCredentials};
//!
//! let source = ClientCredentials::builder("https://identity.example.com/connect/token")
//!     .client_id("my-client")
//!     .client_secret("s3cret")
//!     .scope("tenant/4f1c2d3e")
//!     .build()?;
//! let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
//!     .with(BearerAuthLayer::new(source).allow_origin("https://api.example.com")?)
//!     .build();
//! # let _ = client;
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "client-credentials", feature = "reqwest-middleware")))]
//! # fn main() {}
//! ```
//!
//! The README has the other stacks, all features and defaults, what happens when things go wrong, and
//! where to put other layers. Fetching a token needs a tokio runtime with timers.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unwrap_used)
)]

mod cache;
mod clock;
mod error;
mod exchange;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod layer;
#[cfg(any(feature = "mock", feature = "mock-server"))]
mod mock;
mod policy;
mod request_auth;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
mod service;
mod source;
mod sync;
#[cfg(feature = "task-local")]
pub mod task_local;
mod token;
#[cfg(feature = "client-credentials")]
mod token_endpoint;

pub use cache::{TokenCache, TokenCacheBuilder};
pub use clock::Clock;
#[cfg(feature = "coarse-clock")]
pub use clock::CoarseClock;
pub use error::{BoxError, InvalidSetting, InvalidToken, TokenError, TokenErrorKind};
pub use layer::BearerAuthLayer;
#[cfg(feature = "mock-server")]
pub use mock::server::{
    ApiRecord, ClientAuthenticationSeen, MockAuthServer, MockAuthServerBuilder, TokenRecord,
};
#[cfg(feature = "mock")]
pub use mock::source::{Hold, MockTokenSource};
pub use policy::rejection::{BearerChallenge, GrpcUnauthenticated, RejectionPolicy};
pub use request_auth::RequestAuth;
pub use service::{BearerAuth, ResponseFuture};
#[cfg(feature = "client-credentials")]
pub use source::client_credentials::{ClientCredentials, ClientCredentialsBuilder};
pub use source::static_token::StaticTokenSource;
pub use source::{SourceFn, TokenSource, source_fn};
pub use token::AccessToken;
pub use token::request::TokenRequest;
#[cfg(feature = "client-credentials")]
pub use token_endpoint::request::ClientAuthentication;

// The README's code is compiled, and run, with the doctests.
#[cfg(all(
    doctest,
    feature = "client-credentials",
    feature = "mock",
    feature = "mock-server",
    feature = "reqwest-middleware"
))]
#[doc = include_str!("../README.md")]
struct Readme;
