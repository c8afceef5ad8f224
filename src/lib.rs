//! OAuth 2.0 bearer tokens for HTTP clients, as a tower layer and a reqwest middleware.
//!
//! All callers share one fetch of a token. The token is refreshed in the background before it
//! expires, and replaced when an API rejects it.
//!
//! - [`BearerAuthLayer`] attaches the token to requests. It is a tower layer over `http` or around
//!   a `reqwest::Client`, and a middleware of `reqwest-middleware`. Call its
//!   [`allow_origin`](BearerAuthLayer::allow_origin).
//! - [`TokenCache`] keeps the tokens, one per [`TokenRequest`]. It can be used without the layer.
//! - [`TokenSource`] is the trait of a source of tokens: `ClientCredentials`, `TokenExchange` (RFC
//!   8693), `JwtBearer` (RFC 7523) and `RefreshTokenGrant` (RFC 6749 §6) with the feature
//!   `client-credentials`, `FileTokenSource` (feature `token-file`), [`EnvTokenSource`],
//!   [`StaticTokenSource`], [`FallbackTokenSource`], [`source_fn`]. `SharedTokenSource` (feature
//!   `fleet`) shares the tokens of any of them among processes.
//! - [`RequestAuth`] chooses the token of a request or, with the feature `task-local`, of a task.
//! - [`TokenError`] describes a failure and says what to do about it. [`TokenError::find`] finds it
//!   in the error of a client.
//! - [`Observer`] gets the [`Event`]s of a cache. The features `tracing` and `metrics` write them
//!   as log lines and metrics. [`TokenStatus`] is for readiness probes.
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
//! [`allow_origin`](BearerAuthLayer::allow_origin) names the only origin that gets the token.
//! Fetching a token requires a tokio runtime with timers. With the feature `tracing`,
//! `RUST_LOG=bearer_auth=debug` shows each fetch, and why a request got no token, in a program
//! whose subscriber reads that variable.
//!
//! The documentation with all features has the module `guide`: the defaults, what happens when
//! something fails, the order of layers, tenants, gRPC with tonic, recipes for other libraries, and
//! tests. To build it, run `cargo doc --open --no-deps --all-features`.
// The link is dead without all features, which docs.rs has.
#![cfg_attr(docsrs, doc = "[Open the guide](guide/index.html).")]
//!
//! # Features
//!
//! | features | what they add |
//! |---|---|
//! | `client-credentials` (default) | the grants that request tokens at a token endpoint |
//! | `reqwest`, `reqwest-middleware` (default) | stacks and token transport of reqwest 0.13 |
//! | `reqwest-0-12`, `reqwest-middleware-0-4` | the same for reqwest 0.12 |
//! | `rustls` (default), `native-tls` | TLS for reqwest's token transport |
//! | `private-key-jwt` | clients that authenticate by a private key |
//! | `private-key-jwt-rust-crypto` | the same without a C compiler; its RSA leaks through timing |
//! | `redis`, `fleet` | one token for many processes, through Redis or a store of your own |
//! | `token-file` | tokens in files |
//! | `serde`, `secrecy` | settings in any format, and secrets of the crate `secrecy` |
//! | `follow-redirect` | tower-http's `FollowRedirect` inside of the layer |
//! | `task-local` | a token for all requests of a task |
//! | `stream` | a stream of tokens, for connections that outlive one |
//! | `tracing`, `metrics` | log lines, spans and metrics |
//! | `mock`, `mock-server`, `test-util` | tests without an authorization server |
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
#[cfg(feature = "reqwest-0-12")]
#[allow(clippy::duplicate_mod)] // One source for both versions.
mod for_reqwest_0_12;
#[cfg(feature = "reqwest")]
#[allow(clippy::duplicate_mod)] // One source for both versions.
mod for_reqwest_0_13;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(
    any(doc, doctest),
    feature = "client-credentials",
    feature = "fleet",
    feature = "mock",
    feature = "mock-server",
    feature = "reqwest-middleware",
    feature = "serde",
    feature = "task-local",
    feature = "token-file"
))]
pub mod guide;
mod layer;
#[cfg(any(feature = "mock", feature = "mock-server"))]
mod mock;
mod observe;
mod policy;
mod request_auth;
mod secret;
mod service;
mod source;
#[cfg(feature = "fleet")]
mod store;
mod sync;
#[cfg(feature = "task-local")]
pub mod task_local;
mod token;
#[cfg(feature = "client-credentials")]
mod token_endpoint;

#[cfg(feature = "stream")]
pub use cache::TokenSubscription;
pub use cache::{TokenCache, TokenCacheBuilder, TokenState, TokenStatus};
pub use clock::Clock;
pub use error::{
    BoxError, InvalidSetting, InvalidToken, TokenError, TokenErrorBuilder, TokenErrorKind,
};
pub use layer::BearerAuthLayer;
#[cfg(feature = "mock-server")]
pub use mock::server::{
    ApiRecord, ClientAuthenticationSeen, MockAuthServer, MockAuthServerBuilder, TokenRecord,
};
#[cfg(feature = "mock")]
pub use mock::source::{Hold, MockTokenSource};
#[cfg(feature = "metrics")]
pub use observe::metrics::MetricsObserver;
#[cfg(feature = "tracing")]
pub use observe::tracing::TracingObserver;
pub use observe::{
    ClockStep, Event, FetchOutcome, NoTokenReason, Observer, RejectingResponse, RejectionOutcome,
    ReplayObstacle, ReplayOutcome, RequestOrigin, StoreFault, WaitOutcome,
};
pub use policy::rejection::{BearerChallenge, GrpcUnauthenticated, RejectionPolicy};
pub use policy::replay::buffered::ReplayBody;
pub use request_auth::RequestAuth;
pub use secret::Secret;
pub use service::{BearerAuth, ResponseFuture};
#[cfg(feature = "client-credentials")]
pub use source::client_credentials::{
    ClientCredentials, ClientCredentialsBuilder, ClientCredentialsGrant,
};
pub use source::context::{FetchContext, FetchReason};
pub use source::env::EnvTokenSource;
pub use source::fallback::FallbackTokenSource;
#[cfg(feature = "token-file")]
pub use source::file::FileTokenSource;
#[cfg(feature = "client-credentials")]
pub use source::jwt_bearer::{JwtBearer, JwtBearerBuilder, JwtBearerGrant};
#[cfg(feature = "client-credentials")]
pub use source::refresh_token::{
    InMemoryRefreshTokenStore, RefreshToken, RefreshTokenGrant, RefreshTokenGrantBuilder,
    RefreshTokenGrantSettings, RefreshTokenStore,
};
#[cfg(feature = "serde")]
pub use source::settings::ClientCredentialsSettings;
#[cfg(feature = "fleet")]
pub use source::shared::identity::FleetIdentity;
#[cfg(feature = "fleet")]
pub use source::shared::keys::SealingKeys;
#[cfg(feature = "fleet")]
pub use source::shared::{SharedTokenSource, UnnamedSharedTokenSource, UnsealedSharedTokenSource};
pub use source::static_token::StaticTokenSource;
pub use source::tenant_credentials::TenantCredentials;
#[cfg(feature = "client-credentials")]
pub use source::token_exchange::{TokenExchange, TokenExchangeBuilder, TokenExchangeGrant};
pub use source::{SourceFn, TokenSource, source_fn};
#[cfg(all(feature = "fleet", feature = "mock"))]
pub use store::conformance::token_store_conformance;
#[cfg(feature = "fleet")]
pub use store::memory::InMemoryTokenStore;
#[cfg(feature = "redis")]
pub use store::redis::RedisTokenStore;
#[cfg(feature = "fleet")]
pub use store::{Lease, LeaseOwner, Loaded, StoreError, StoreKey, StoreTime, TokenStore};
pub use token::AccessToken;
pub use token::request::TokenRequest;
#[cfg(feature = "client-credentials")]
pub use token::security_token::SecurityToken;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
pub use token_endpoint::assertion::key_file::PrivateKeyFile;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
pub use token_endpoint::assertion::private_key::{PrivateKeyJwt, SigningAlgorithm};
#[cfg(feature = "client-credentials")]
pub use token_endpoint::assertion::{Assertion, AssertionContext, ClientAssertion};
#[cfg(feature = "client-credentials")]
pub use token_endpoint::authentication::ClientAuthentication;
#[cfg(all(
    feature = "client-credentials",
    any(feature = "reqwest", feature = "reqwest-0-12")
))]
pub use token_endpoint::builder::transport::FactoryResult;
#[cfg(feature = "client-credentials")]
pub use token_endpoint::builder::{Grant, GrantBuilder};

// Compiles the README's code with the doctests, and runs it.
#[cfg(all(
    doctest,
    feature = "client-credentials",
    feature = "mock",
    feature = "mock-server",
    feature = "reqwest-middleware"
))]
#[doc = include_str!("../README.md")]
struct Readme;
