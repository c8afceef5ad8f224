//! The settings of the transport for token requests.

#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use crate::error::{BoxError, InvalidSetting};
#[cfg(all(feature = "reqwest-0-12", not(feature = "reqwest")))]
use crate::for_reqwest_0_12::transport::default_client;
#[cfg(feature = "reqwest-0-12")]
use crate::for_reqwest_0_12::transport::{
    ReqwestFactory as Reqwest012Factory, ReqwestTransport as Reqwest012Transport,
};
#[cfg(feature = "reqwest")]
use crate::for_reqwest_0_13::transport::{ReqwestFactory, ReqwestTransport, default_client};
use crate::token_endpoint::builder::{Grant, GrantBuilder};
#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
use crate::token_endpoint::transport::Factory;
use crate::token_endpoint::transport::{TowerTransport, Transport};

/// The transport as it was set.
pub(super) enum ChosenTransport {
    Default,
    #[cfg(feature = "reqwest")]
    Reqwest(Box<reqwest::ClientBuilder>),
    #[cfg(feature = "reqwest")]
    Factory(Factory<reqwest::ClientBuilder>),
    #[cfg(feature = "reqwest-0-12")]
    Reqwest012(Box<reqwest_0_12::ClientBuilder>),
    #[cfg(feature = "reqwest-0-12")]
    Factory012(Factory<reqwest_0_12::ClientBuilder>),
    Service(Box<dyn Transport>),
}

/// The result of a function that builds HTTP clients: a builder, or a `Result` with one.
///
/// Implemented by this crate only.
#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
pub trait FactoryResult<B>: private::Sealed<B> {
    /// Returns the builder.
    #[doc(hidden)]
    fn into_result(self) -> Result<B, BoxError>;
}

#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
mod private {
    pub trait Sealed<B> {}

    impl<B> Sealed<B> for B {}
    impl<B, E> Sealed<B> for Result<B, E> {}
}

#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
impl<B> FactoryResult<B> for B {
    fn into_result(self) -> Result<B, BoxError> {
        Ok(self)
    }
}

#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
impl<B, E: Into<BoxError>> FactoryResult<B> for Result<B, E> {
    fn into_result(self) -> Result<B, BoxError> {
        self.map_err(Into::into)
    }
}

impl<G: Grant> GrantBuilder<G> {
    /// Sends token requests through a reqwest client built from `builder`, for example with a
    /// proxy, your own CA or mTLS.
    ///
    /// The builder keeps its protocol, time limits and `User-Agent`. Set a `connect_timeout` that
    /// is shorter than [`try_timeout`](Self::try_timeout): without one, a host whose first address
    /// does not answer uses up each try.
    ///
    /// Redirects are disabled on it, and so are the `Referer` header and the pool of idle
    /// connections. Each token request, even with HTTP/2, uses a connection of its own, since an
    /// idle one may be dead without a sign of it.
    ///
    /// Default: a client with HTTP/1.1 only, a connect timeout of 5 s and the `User-Agent`
    /// `bearer-auth/` with the version of this crate.
    #[cfg(feature = "reqwest")]
    pub fn reqwest_builder(mut self, builder: reqwest::ClientBuilder) -> Self {
        self.transport = ChosenTransport::Reqwest(Box::new(builder));
        self
    }

    /// Sends token requests through a client of reqwest 0.12 built from `builder`.
    ///
    /// All else is as with `reqwest_builder`, which takes the builder of reqwest 0.13.
    ///
    /// Default: a client of reqwest 0.13. With the feature `reqwest-0-12` but not `reqwest`, a
    /// client of reqwest 0.12 with the same settings.
    #[cfg(feature = "reqwest-0-12")]
    pub fn reqwest_0_12_builder(mut self, builder: reqwest_0_12::ClientBuilder) -> Self {
        self.transport = ChosenTransport::Reqwest012(Box::new(builder));
        self
    }

    /// Sends token requests through reqwest clients built by `factory`, for a client certificate
    /// that something else rotates (RFC 8705).
    ///
    /// The function is called for each try of a token request, on a thread that may block, and
    /// never before the first. So a token request always presents the certificate as it is at that
    /// time, and a token that is bound to it belongs to the current one. No connection and no TLS
    /// session of an earlier client is used again. If the server does not accept a client with
    /// [`TlsClientAuth`](crate::ClientAuthentication::TlsClientAuth) (`invalid_client`, or 401
    /// without a code), the function is called and the token request sent once more. An error of
    /// the function is transient, since a certificate and its key may not match during a rotation.
    ///
    /// Building a client takes some milliseconds, mostly to load the system's root certificates.
    /// Use [`reqwest_builder`](Self::reqwest_builder) for settings that do not change. All that it
    /// says about the builder holds here, too.
    ///
    /// The function returns a builder, or a `Result` with one:
    ///
    /// ```
    /// use bearer_auth::{BoxError, ClientAuthentication, ClientCredentials};
    ///
    /// fn client() -> Result<reqwest::ClientBuilder, BoxError> {
    ///     let certificate = std::fs::read("/run/secrets/client/tls.pem")?;
    ///     # #[cfg(feature = "rustls")]
    ///     let identity = reqwest::Identity::from_pem(&certificate)?;
    ///     # #[cfg(feature = "rustls")]
    ///     return Ok(reqwest::Client::builder().identity(identity));
    ///     # #[cfg(not(feature = "rustls"))]
    ///     # Ok(reqwest::Client::builder())
    /// }
    ///
    /// let source = ClientCredentials::builder("https://mtls.example.com/token")
    ///     .client_id("my-client")
    ///     .client_authentication(ClientAuthentication::TlsClientAuth)
    ///     .reqwest_factory(client)
    ///     .build()?;
    /// # Ok::<(), bearer_auth::InvalidSetting>(())
    /// ```
    ///
    /// Default: one client for all token requests, see [`reqwest_builder`](Self::reqwest_builder).
    #[cfg(feature = "reqwest")]
    pub fn reqwest_factory<F, R>(mut self, factory: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: FactoryResult<reqwest::ClientBuilder>,
    {
        self.transport = ChosenTransport::Factory(Arc::new(move || factory().into_result()));
        self
    }

    /// Sends token requests through clients of reqwest 0.12 built by `factory`.
    ///
    /// All else is as with `reqwest_factory`, whose function returns the builder of reqwest 0.13.
    ///
    /// Default: one client for all token requests.
    #[cfg(feature = "reqwest-0-12")]
    pub fn reqwest_0_12_factory<F, R>(mut self, factory: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: FactoryResult<reqwest_0_12::ClientBuilder>,
    {
        self.transport = ChosenTransport::Factory012(Arc::new(move || factory().into_result()));
        self
    }

    /// Sends token requests through a tower service, such as a hyper client.
    ///
    /// The service must not follow redirects, since the request contains the client secret. This
    /// crate cannot disable them.
    ///
    /// The service's own pool decides if a try uses a new connection. A client of HTTP/1.1 closes
    /// the connection of a try that reached [`try_timeout`](Self::try_timeout). A client of HTTP/2
    /// keeps it: enable its keep-alive pings, or the next try may use the same dead connection.
    ///
    /// Default: a reqwest client, see `reqwest_builder`. Without the features `reqwest` and
    /// `reqwest-0-12` there is no default, and a transport is required.
    pub fn transport<S, R>(mut self, service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        R: Body + Send + 'static,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        self.transport = ChosenTransport::Service(Box::new(TowerTransport::new(service)));
        self
    }
}

impl ChosenTransport {
    pub(super) fn build(self) -> Result<Box<dyn Transport>, InvalidSetting> {
        match self {
            Self::Service(transport) => Ok(transport),
            #[cfg(feature = "reqwest")]
            Self::Default => Self::Reqwest(Box::new(default_client())).build(),
            #[cfg(all(feature = "reqwest-0-12", not(feature = "reqwest")))]
            Self::Default => Self::Reqwest012(Box::new(default_client())).build(),
            #[cfg(not(any(feature = "reqwest", feature = "reqwest-0-12")))]
            Self::Default => Err(InvalidSetting::new(
                "transport",
                "must be set to a tower service, unless the feature `reqwest` or `reqwest-0-12` is \
                 enabled",
            )),
            #[cfg(feature = "reqwest")]
            Self::Reqwest(builder) => {
                let transport = ReqwestTransport::new("reqwest_builder", *builder);
                Ok(Box::new(transport?))
            }
            #[cfg(feature = "reqwest")]
            Self::Factory(factory) => Ok(Box::new(ReqwestFactory(factory))),
            #[cfg(feature = "reqwest-0-12")]
            Self::Reqwest012(builder) => {
                let transport = Reqwest012Transport::new("reqwest_0_12_builder", *builder);
                Ok(Box::new(transport?))
            }
            #[cfg(feature = "reqwest-0-12")]
            Self::Factory012(factory) => Ok(Box::new(Reqwest012Factory(factory))),
        }
    }
}
