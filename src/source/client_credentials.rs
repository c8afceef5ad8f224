//! The client credentials grant (RFC 6749 §4.4).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::error::{BoxError, InvalidSetting, TokenError};
#[cfg(feature = "reqwest-0-12")]
use crate::for_reqwest_0_12::transport::ReqwestTransport as Reqwest012Transport;
#[cfg(all(feature = "reqwest-0-12", not(feature = "reqwest")))]
use crate::for_reqwest_0_12::transport::default_client;
#[cfg(feature = "reqwest")]
use crate::for_reqwest_0_13::transport::{ReqwestTransport, default_client};
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;
use crate::token_endpoint::request::{
    ClientAuthentication, TokenRequestTemplate, check_param, check_scope, token_url,
};
use crate::token_endpoint::response;
use crate::token_endpoint::transport::{TowerTransport, Transport};
use crate::token_endpoint::try_limit::TryLimit;

const DEFAULT_TRY_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TRY_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A [`TokenSource`] for the client credentials grant (RFC 6749 §4.4).
///
/// It posts a form to a token URL. The client secret is sent only to that URL: the reqwest client
/// built here follows no redirect. The secret is zeroed when the last clone is dropped, but this
/// crate cannot zero the HTTP client's own buffers.
///
/// ```
/// use bearer_auth::ClientCredentials;
///
/// let source = ClientCredentials::builder("https://identity.example.com/connect/token")
///     .client_id("my-client")
///     .client_secret("s3cret")
///     .scope("tenant/4f1c2d3e")
///     .build()?;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
#[derive(Clone)]
pub struct ClientCredentials {
    shared: Arc<Shared>,
}

struct Shared {
    template: TokenRequestTemplate,
    /// The default scope, with its names separated by single spaces.
    scope: TokenRequest,
    transport: Box<dyn Transport>,
    try_timeout: Duration,
}

impl ClientCredentials {
    /// Creates a builder for a source that requests tokens at `token_url`.
    ///
    /// The URL must be https, or plain http to loopback, unless
    /// [`allow_http`](ClientCredentialsBuilder::allow_http) is set.
    pub fn builder(token_url: impl Into<String>) -> ClientCredentialsBuilder {
        ClientCredentialsBuilder {
            token_url: token_url.into(),
            client_id: String::new(),
            client_secret: Zeroizing::default(),
            authentication: ClientAuthentication::default(),
            scope: String::new(),
            params: Vec::new(),
            allow_http: false,
            transport: ChosenTransport::Default,
            try_timeout: DEFAULT_TRY_TIMEOUT,
        }
    }
}

#[async_trait]
impl TokenSource for ClientCredentials {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let Shared {
            template,
            scope,
            transport,
            try_timeout,
        } = &*self.shared;
        let scope = request.scopes().or(scope.scopes()).unwrap_or_default();
        check_scope(scope)?;
        let params: Vec<_> = request.params().collect();
        params.iter().try_for_each(|(name, _)| check_param(name))?;
        let limit = TryLimit::start(*try_timeout);
        let sent = transport
            .send(template.request(scope, &params), limit)
            .await;
        sent.and_then(|raw| response::parse(raw.status, &raw.headers, raw.body.as_deref()))
            .map_err(|error| {
                error.with_token_endpoint(template.token_url.host().unwrap_or_default())
            })
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let template = &self.shared.template;
        f.debug_struct("ClientCredentials")
            .field("token_endpoint", &template.token_url.host())
            .field("client_id", &template.client_id)
            .field("client_authentication", &template.authentication)
            .field("scope", &self.shared.scope.scopes())
            .finish_non_exhaustive()
    }
}

/// Builds a [`ClientCredentials`] source. [`build`](ClientCredentialsBuilder::build) checks the
/// settings.
#[must_use]
pub struct ClientCredentialsBuilder {
    token_url: String,
    client_id: String,
    client_secret: Zeroizing<String>,
    authentication: ClientAuthentication,
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

impl ClientCredentialsBuilder {
    /// Sets the client's id (RFC 6749 §2.2).
    ///
    /// Default: none. It is required.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// Sets the client's secret (RFC 6749 §2.3.1).
    ///
    /// Default: none. It is required.
    pub fn client_secret(mut self, secret: impl Into<String>) -> Self {
        self.client_secret = Zeroizing::new(secret.into());
        self
    }

    /// Sets the way in which id and secret are sent (RFC 6749 §2.3.1).
    ///
    /// Default: [`ClientAuthentication::SecretPost`].
    pub fn client_authentication(mut self, style: ClientAuthentication) -> Self {
        self.authentication = style;
        self
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
    /// The standard fields (`grant_type`, `client_id`, `client_secret`, `scope`) cannot be set this
    /// way: `build` returns an error.
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
    ///   [`ClientAuthentication::SecretBasicRaw`].
    /// - The scope has characters that RFC 6749 §3.3 does not allow.
    /// - The name of a parameter is empty or that of a standard field.
    /// - `try_timeout` is zero or more than one day.
    /// - The reqwest client cannot be built.
    /// - There is no transport, which is possible only without the features `reqwest` and
    ///   `reqwest-0-12`.
    pub fn build(self) -> Result<ClientCredentials, InvalidSetting> {
        let token_url = token_url(&self.token_url, self.allow_http)?;
        check_credential("client_id", &self.client_id)?;
        check_credential("client_secret", &self.client_secret)?;
        if self.authentication == ClientAuthentication::SecretBasicRaw
            && self.client_id.contains(':')
        {
            return Err(InvalidSetting::new(
                "client_id",
                "must not contain a colon with `SecretBasicRaw`, since a colon separates id and secret",
            ));
        }
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
        let transport = self.transport.build()?;
        let template = TokenRequestTemplate {
            token_url,
            client_id: self.client_id,
            client_secret: self.client_secret,
            authentication: self.authentication,
            params: self.params,
        };
        let scope = TokenRequest::scope(&self.scope);
        Ok(ClientCredentials {
            shared: Arc::new(Shared {
                template,
                scope,
                transport,
                try_timeout: self.try_timeout,
            }),
        })
    }
}

impl fmt::Debug for ClientCredentialsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentialsBuilder")
            .field("client_id", &self.client_id)
            .field("client_authentication", &self.authentication)
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

fn check_credential(setting: &'static str, value: &str) -> Result<(), InvalidSetting> {
    if value.is_empty() {
        Err(InvalidSetting::new(setting, "must not be empty"))
    } else if value.chars().any(char::is_control) {
        Err(InvalidSetting::new(
            setting,
            "must not contain control characters (was a line break read with it?)",
        ))
    } else {
        Ok(())
    }
}
