//! The settings that all grants share: the endpoint, the client's credentials, the transport.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use crate::error::{BoxError, InvalidSetting};
#[cfg(feature = "reqwest-0-12")]
use crate::for_reqwest_0_12::transport::ReqwestTransport as Reqwest012Transport;
#[cfg(all(feature = "reqwest-0-12", not(feature = "reqwest")))]
use crate::for_reqwest_0_12::transport::default_client;
#[cfg(feature = "reqwest")]
use crate::for_reqwest_0_13::transport::{ReqwestTransport, default_client};
use crate::token::request::TokenRequest;
use crate::token_endpoint::builder::credentials::CredentialSettings;
use crate::token_endpoint::client::TokenEndpoint;
use crate::token_endpoint::form::{check_param, check_scope};
use crate::token_endpoint::transport::{TowerTransport, Transport};
use crate::token_endpoint::url::token_url;

mod credentials;

const DEFAULT_TRY_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TRY_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A grant of RFC 6749 or of one of its extensions, of which a [`GrantBuilder`] makes a source.
///
/// Implemented by this crate only.
pub trait Grant: sealed::Sealed + Sized {
    /// The source of tokens by this grant.
    type Source;

    /// Builds the source.
    #[doc(hidden)]
    fn build(self, endpoint: sealed::Endpoint) -> Result<Self::Source, InvalidSetting>;
}

/// The least that a grant requires of the client.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It authenticates.
    Authenticated,
    /// It has an id.
    Identified,
    /// Nothing.
    Optional,
}

pub(crate) mod sealed {
    use super::TokenEndpoint;

    /// Keeps the trait from being implemented elsewhere.
    pub trait Sealed {
        /// The name of the builder.
        const BUILDER: &'static str;
        /// The least that the grant requires of the client.
        const CLIENT: super::Client;
    }

    /// The client of a token endpoint, which is no public type.
    #[allow(missing_debug_implementations)]
    pub struct Endpoint(pub(crate) TokenEndpoint);
}

/// Builds a source of tokens by a grant. [`build`](Self::build) checks the settings.
#[must_use]
pub struct GrantBuilder<G> {
    pub(crate) grant: G,
    token_url: String,
    credentials: CredentialSettings,
    scope: String,
    params: Vec<(String, String)>,
    allow_http: bool,
    transport: ChosenTransport,
    try_timeout: Duration,
}

enum ChosenTransport {
    Default,
    #[cfg(feature = "reqwest")]
    Reqwest(Box<reqwest::ClientBuilder>),
    #[cfg(feature = "reqwest-0-12")]
    Reqwest012(Box<reqwest_0_12::ClientBuilder>),
    Service(Box<dyn Transport>),
}

impl<G: Grant> GrantBuilder<G> {
    pub(crate) fn new(grant: G, token_url: String) -> Self {
        Self {
            grant,
            token_url,
            credentials: CredentialSettings::default(),
            scope: String::new(),
            params: Vec::new(),
            allow_http: false,
            transport: ChosenTransport::Default,
            try_timeout: DEFAULT_TRY_TIMEOUT,
        }
    }

    /// Sets the scope to request (RFC 6749 §3.3), as names separated by spaces. A [`TokenRequest`]
    /// can override it.
    ///
    /// Default: none is sent.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Adds a field to the form, such as `resource` (RFC 8707 §2) or `audience`.
    ///
    /// Call this again for further fields.
    ///
    /// The standard fields (such as `grant_type`, `client_id`, `client_secret`, `client_assertion`
    /// and `scope`) cannot be set this way: `build` returns an error.
    ///
    /// Default: none.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Allows a token URL with plain http to a host other than loopback.
    ///
    /// Anyone on the network path can then read the secret. RFC 6749 §3.2 forbids it.
    ///
    /// Default: not allowed.
    pub fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Sets the time limit of one try, from connecting to the end of the response.
    ///
    /// A try that reaches it, or the connect timeout of the HTTP client, may be tried again within
    /// the fetch, so that a dead connection or an address that does not answer costs one try. Keep
    /// it well below [`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout), which limits all
    /// tries together. It holds for every transport, including the time until a tower service is
    /// ready.
    ///
    /// Default: 10 s. Must be greater than zero and at most one day.
    pub fn try_timeout(mut self, limit: Duration) -> Self {
        self.try_timeout = limit;
        self
    }

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

    /// Builds the source. This sends nothing.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`], which names the setting, in these cases:
    ///
    /// - The token URL is not an absolute URL, has userinfo or a fragment, or is plain http to a
    ///   host other than loopback without [`allow_http`](Self::allow_http).
    /// - The id or the secret is empty or has control characters, or the id has a colon with
    ///   [`SecretBasicRaw`](crate::ClientAuthentication::SecretBasicRaw).
    /// - There are two proofs of the client's identity, such as a secret and an assertion.
    /// - An assertion needs an [`audience`](Self::audience) that is not set.
    /// - The scope has characters that RFC 6749 §3.3 does not allow.
    /// - The name of a parameter is empty or that of a standard field.
    /// - `try_timeout` is zero or more than one day.
    /// - The reqwest client cannot be built.
    /// - There is no transport, which is possible only without a feature for reqwest.
    pub fn build(self) -> Result<G::Source, InvalidSetting> {
        let url = token_url(&self.token_url, self.allow_http)?;
        let authentication = self.credentials.build(&self.token_url, G::CLIENT)?;
        check_scope(&self.scope)?;
        self.params
            .iter()
            .try_for_each(|(name, _)| check_param(name))?;
        if self.try_timeout.is_zero() || self.try_timeout > LONGEST_TRY_TIMEOUT {
            let requirement = format!(
                "must be greater than zero and at most one day, but is {:?}",
                self.try_timeout
            );
            return Err(InvalidSetting::new("try_timeout", requirement));
        }
        let endpoint = TokenEndpoint {
            url,
            authentication,
            scope: TokenRequest::scope(&self.scope),
            params: self.params,
            transport: self.transport.build()?,
            try_timeout: self.try_timeout,
        };
        self.grant.build(sealed::Endpoint(endpoint))
    }
}

impl<G: Grant> fmt::Debug for GrantBuilder<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(G::BUILDER)
            .field("client_id", &self.credentials.client_id)
            .field("client_authentication", self.credentials.style())
            .field("scope", &self.scope)
            .field("allow_http", &self.allow_http)
            .field("try_timeout", &self.try_timeout)
            .finish_non_exhaustive()
    }
}

impl ChosenTransport {
    fn build(self) -> Result<Box<dyn Transport>, InvalidSetting> {
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
            #[cfg(feature = "reqwest-0-12")]
            Self::Reqwest012(builder) => {
                let transport = Reqwest012Transport::new("reqwest_0_12_builder", *builder);
                Ok(Box::new(transport?))
            }
        }
    }
}
