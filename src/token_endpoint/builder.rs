//! The settings that all grants share: the endpoint, the client's credentials, the transport.

use std::fmt;
use std::time::Duration;

use crate::error::InvalidSetting;
use crate::policy::origin::Origin;
use crate::token::request::TokenRequest;
use crate::token_endpoint::authentication::Authentication;
use crate::token_endpoint::builder::credentials::CredentialSettings;
use crate::token_endpoint::builder::transport::ChosenTransport;
use crate::token_endpoint::client::{Address, TokenEndpoint};
use crate::token_endpoint::discovery::{Discovery, is_protected};
use crate::token_endpoint::form::{check_param, check_scope};
use crate::token_endpoint::url::token_url;

mod credentials;
pub(crate) mod transport;

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
    endpoint: EndpointSetting,
    allowed_origins: Vec<Origin>,
    credentials: CredentialSettings,
    scope: String,
    params: Vec<(String, String)>,
    allow_http: bool,
    transport: ChosenTransport,
    try_timeout: Duration,
}

/// The token URL or the issuer, as it was set.
enum EndpointSetting {
    Url(String),
    Issuer(String),
}

impl<G: Grant> GrantBuilder<G> {
    pub(crate) fn new(grant: G, token_url: String) -> Self {
        Self::at(grant, EndpointSetting::Url(token_url))
    }

    /// Creates a builder for the token endpoint that the issuer's metadata names.
    pub(crate) fn discover(grant: G, issuer: String) -> Self {
        Self::at(grant, EndpointSetting::Issuer(issuer))
    }

    fn at(grant: G, endpoint: EndpointSetting) -> Self {
        Self {
            grant,
            endpoint,
            allowed_origins: Vec::new(),
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
    /// Anyone on the network path can then read the secret. RFC 6749 §3.2 forbids it. With an
    /// issuer instead of a token URL it is an error of [`build`](Self::build).
    ///
    /// Default: not allowed.
    pub fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Allows the issuer's metadata to name a token endpoint at this origin, in addition to the
    /// issuer's own. See [`discover`](crate::ClientCredentials::discover).
    ///
    /// Call this again for further origins. It also allows an endpoint for clients with a
    /// certificate (RFC 8705 §5).
    ///
    /// Default: only the issuer's origin.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if `origin` is not just scheme, host and port, or is plain http
    /// to a host other than loopback.
    pub fn allow_token_origin(mut self, origin: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        const SETTING: &str = "allow_token_origin";
        let origin = Origin::parse(SETTING, origin.as_ref())?;
        if !is_protected(origin.as_target()) {
            return Err(InvalidSetting::new(
                SETTING,
                "must be an https origin, since plain http would expose the credentials",
            ));
        }
        self.allowed_origins.push(origin);
        Ok(self)
    }

    /// Sets the time limit of one try, from connecting to the end of the response.
    ///
    /// A try that reaches it, or the connect timeout of the HTTP client, may be tried again within
    /// the fetch, so that a dead connection or an address that does not answer costs one try. Keep
    /// it well below [`fetch_timeout`](crate::TokenCacheBuilder::fetch_timeout), which limits all
    /// tries together. It holds for every transport, including the time until a tower service is
    /// ready. The first request for an issuer's metadata has a limit of its own of the same length.
    ///
    /// Default: 10 s. Must be greater than zero and at most one day.
    pub fn try_timeout(mut self, limit: Duration) -> Self {
        self.try_timeout = limit;
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
    /// - The issuer is not an https URL (or http to loopback) without query and fragment, or
    ///   [`allow_http`](Self::allow_http) is set with it.
    /// - [`allow_token_origin`](Self::allow_token_origin) is set with a token URL.
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
        let authentication = self.credentials.build(&self.endpoint, G::CLIENT);
        let uses_certificate = authentication
            .as_ref()
            .is_ok_and(Authentication::uses_certificate);
        // The first setting that is wrong is the first one that a reader looks at.
        let address =
            self.endpoint
                .address(self.allowed_origins, self.allow_http, uses_certificate)?;
        let authentication = authentication?;
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
            address,
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

impl EndpointSetting {
    fn address(
        self,
        allowed: Vec<Origin>,
        allow_http: bool,
        uses_certificate: bool,
    ) -> Result<Address, InvalidSetting> {
        match self {
            Self::Url(url) => {
                if !allowed.is_empty() {
                    return Err(InvalidSetting::new(
                        "allow_token_origin",
                        "must not be set with a token URL: it is for `discover`",
                    ));
                }
                token_url(&url, allow_http).map(Address::Url)
            }
            Self::Issuer(issuer) => {
                if allow_http {
                    return Err(InvalidSetting::new(
                        "allow_http",
                        "must not be set with `discover`: whoever can change the metadata gets the \
                         credentials",
                    ));
                }
                let discovery = Discovery::new(issuer, allowed, uses_certificate)?;
                Ok(Address::Issuer(Box::new(discovery)))
            }
        }
    }
}
