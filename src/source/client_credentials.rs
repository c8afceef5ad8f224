//! The client credentials grant (RFC 6749 §4.4).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::error::{BoxError, InvalidSetting, TokenError};
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;
use crate::token_endpoint::request::{
    ClientAuthentication, TokenRequestTemplate, check_param, check_scope, token_url,
};
use crate::token_endpoint::response;
use crate::token_endpoint::transport::{TowerTransport, Transport};

/// A [`TokenSource`] by the client credentials grant (RFC 6749 §4.4): a form POST to a token URL.
///
/// The client secret goes nowhere but to that URL: no redirect is followed. It is wiped when the last
/// clone is dropped; the HTTP client's own buffers are out of this crate's reach.
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
    /// In single blanks.
    scope: TokenRequest,
    transport: Box<dyn Transport>,
}

impl ClientCredentials {
    /// Begins a source that asks at this URL: https, or plain http to loopback.
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
        } = &*self.shared;
        let scope = request.scopes().or(scope.scopes()).unwrap_or_default();
        check_scope(scope)?;
        let params: Vec<_> = request.params().collect();
        params.iter().try_for_each(|(name, _)| check_param(name))?;
        let raw = transport.send(template.request(scope, &params)).await?;
        response::parse(raw.status, &raw.headers, raw.body.as_deref())
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

/// Makes [`ClientCredentials`]. See [`build`](ClientCredentialsBuilder::build) for what it refuses.
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
}

enum ChosenTransport {
    Default,
    #[cfg(feature = "reqwest")]
    Reqwest(Box<reqwest::ClientBuilder>),
    Service(Box<dyn Transport>),
}

impl ClientCredentialsBuilder {
    /// The client's id (RFC 6749 §2.2). Required.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// The client's secret (RFC 6749 §2.3.1). Required.
    pub fn client_secret(mut self, secret: impl Into<String>) -> Self {
        self.client_secret = Zeroizing::new(secret.into());
        self
    }

    /// How id and secret are sent (RFC 6749 §2.3.1).
    ///
    /// Default: [`ClientAuthentication::SecretPost`].
    pub fn client_authentication(mut self, style: ClientAuthentication) -> Self {
        self.authentication = style;
        self
    }

    /// The scope to ask for (RFC 6749 §3.3), unless a [`TokenRequest`] names another.
    ///
    /// Default: none is sent.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// One more field of the form, such as `resource` (RFC 8707) or `audience`; again for more.
    ///
    /// The standard fields can't be set this way: `build` refuses them. Default: none.
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }

    /// Allows a plain http token URL off loopback.
    ///
    /// Whoever is on the way reads the secret; RFC 6749 §3.2 forbids it.
    ///
    /// Default: refused.
    pub fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Sends token requests by a reqwest client made of this: for a proxy, a CA of your own, mTLS.
    ///
    /// Redirects are turned off on it.
    ///
    /// Default: `reqwest::Client::builder()`.
    #[cfg(feature = "reqwest")]
    pub fn reqwest_builder(mut self, builder: reqwest::ClientBuilder) -> Self {
        self.transport = ChosenTransport::Reqwest(Box::new(builder));
        self
    }

    /// Sends token requests by a tower service, such as a hyper client.
    ///
    /// What it does with redirects is up to it: it should follow none, since the request holds the client
    /// secret.
    ///
    /// Default: a reqwest client, see `reqwest_builder`; without the feature
    /// `reqwest` there is none, and a transport has to be named.
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

    /// Makes the source. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`], naming the setting: a token URL that can't be read, has userinfo or a
    /// fragment, or is plain http off loopback without [`allow_http`](Self::allow_http); an empty id
    /// or secret, or one with control characters; a scope outside of RFC 6749 §3.3; a parameter that
    /// is one of the standard ones; a reqwest client that can't be built; no transport at all (without
    /// the feature `reqwest`).
    pub fn build(self) -> Result<ClientCredentials, InvalidSetting> {
        let token_url = token_url(&self.token_url, self.allow_http)?;
        check_credential("client_id", &self.client_id)?;
        check_credential("client_secret", &self.client_secret)?;
        if self.authentication == ClientAuthentication::SecretBasicRaw
            && self.client_id.contains(':')
        {
            return Err(InvalidSetting::new(
                "client_id",
                "no colon with `SecretBasicRaw`, which could not tell id and secret apart",
            ));
        }
        check_scope(&self.scope)?;
        self.params
            .iter()
            .try_for_each(|(name, _)| check_param(name))?;
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
            .finish_non_exhaustive()
    }
}

impl ChosenTransport {
    fn build(self) -> Result<Box<dyn Transport>, InvalidSetting> {
        match self {
            Self::Service(transport) => Ok(transport),
            #[cfg(feature = "reqwest")]
            Self::Default => Self::Reqwest(Box::default()).build(),
            #[cfg(feature = "reqwest")]
            Self::Reqwest(builder) => {
                match crate::token_endpoint::transport::ReqwestTransport::new(*builder) {
                    Ok(transport) => Ok(Box::new(transport)),
                    Err(error) => Err(InvalidSetting::new(
                        "reqwest_builder",
                        format!("a client that can be built: {error}"),
                    )),
                }
            }
            #[cfg(not(feature = "reqwest"))]
            Self::Default => Err(InvalidSetting::new(
                "transport",
                "a tower service to send token requests by (or the feature `reqwest`)",
            )),
        }
    }
}

fn check_credential(setting: &'static str, value: &str) -> Result<(), InvalidSetting> {
    if value.is_empty() {
        Err(InvalidSetting::new(setting, "not empty"))
    } else if value.chars().any(char::is_control) {
        Err(InvalidSetting::new(
            setting,
            "no control characters (a line end read with it?)",
        ))
    } else {
        Ok(())
    }
}
