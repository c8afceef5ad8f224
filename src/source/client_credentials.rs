//! The client credentials grant (RFC 6749 §4.4).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{InvalidSetting, TokenError};
use crate::source::TokenSource;
use crate::source::context::FetchContext;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;
use crate::token_endpoint::builder::{Client, Grant, GrantBuilder, sealed};
use crate::token_endpoint::client::TokenEndpoint;

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
    endpoint: Arc<TokenEndpoint>,
}

/// Builds a [`ClientCredentials`] source. [`build`](GrantBuilder::build) checks the settings.
pub type ClientCredentialsBuilder = GrantBuilder<ClientCredentialsGrant>;

/// The client credentials grant: it has no settings of its own.
#[derive(Clone, Copy, Debug)]
pub struct ClientCredentialsGrant(());

impl ClientCredentials {
    /// Creates a builder for a source that requests tokens at `token_url`.
    ///
    /// The URL must be https, or plain http to loopback, unless
    /// [`allow_http`](GrantBuilder::allow_http) is set.
    pub fn builder(token_url: impl Into<String>) -> ClientCredentialsBuilder {
        GrantBuilder::new(ClientCredentialsGrant(()), token_url.into())
    }

    /// Creates a builder for a source that asks the issuer's metadata for the token endpoint
    /// (RFC 8414, OpenID Connect Discovery 1.0).
    ///
    /// The issuer must come from your configuration, never from an end user. It is https, or plain
    /// http to loopback, and must be equal to the `issuer` of its metadata to the last slash. It is
    /// also the default [`audience`](GrantBuilder::audience) of assertions.
    ///
    /// The metadata is fetched before the first token request, from
    /// `/.well-known/oauth-authorization-server` or else `/.well-known/openid-configuration`,
    /// without credentials and redirects, up to 256 KiB. It is fetched again after 24 h, in at most
    /// 2 s; if that fails, the known endpoint stays, the next try is an hour later, and observers
    /// get [`MetadataNotRefreshed`](crate::Event::MetadataNotRefreshed).
    ///
    /// The token endpoint must be at the issuer's origin or at one that
    /// [`allow_token_origin`](GrantBuilder::allow_token_origin) names. Once found, its origin is
    /// pinned: metadata that names another one later is ignored. A client with
    /// [`TlsClientAuth`](crate::ClientAuthentication::TlsClientAuth) uses the endpoint of
    /// `mtls_endpoint_aliases` if there is one (RFC 8705 §5).
    ///
    /// Metadata that cannot be used is an error of the kind
    /// [`Discovery`](crate::TokenErrorKind::Discovery), and no credentials are sent.
    ///
    /// ```
    /// use bearer_auth::ClientCredentials;
    ///
    /// let source = ClientCredentials::discover("https://issuer.example.com")
    ///     .client_id("my-client")
    ///     .client_assertion_file("/var/run/secrets/tokens/idp")
    ///     .build()?;
    /// # Ok::<(), bearer_auth::InvalidSetting>(())
    /// ```
    pub fn discover(issuer: impl Into<String>) -> ClientCredentialsBuilder {
        GrantBuilder::discover(ClientCredentialsGrant(()), issuer.into())
    }
}

impl sealed::Sealed for ClientCredentialsGrant {
    const BUILDER: &'static str = "ClientCredentialsBuilder";
    const CLIENT: Client = Client::Authenticated;
}

impl Grant for ClientCredentialsGrant {
    type Source = ClientCredentials;

    fn build(self, endpoint: sealed::Endpoint) -> Result<ClientCredentials, InvalidSetting> {
        Ok(ClientCredentials {
            endpoint: Arc::new(endpoint.0),
        })
    }
}

#[async_trait]
impl TokenSource for ClientCredentials {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        without_subject(request)?;
        let sent = self.endpoint.send("client_credentials", &[], request);
        Ok(sent.await?.token)
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        let outcome = self.fetch(request).await;
        self.endpoint.report(context);
        outcome
    }
}

/// Rejects a subject: the token would not be the subject's.
fn without_subject(request: &TokenRequest) -> Result<(), InvalidSetting> {
    match request.subject_key() {
        None => Ok(()),
        Some(_) => Err(InvalidSetting::new(
            "subject",
            "must not be set with the client credentials grant, which has no subject: use \
             `TokenExchange` or `JwtBearer`",
        )),
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ClientCredentials");
        self.endpoint.debug(&mut debug);
        debug.finish_non_exhaustive()
    }
}
