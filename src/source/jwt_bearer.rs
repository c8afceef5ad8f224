//! The JWT bearer grant (RFC 7523 §2.1).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{InvalidSetting, TokenError};
use crate::source::TokenSource;
use crate::source::context::FetchContext;
use crate::source::provider::Provider;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;
use crate::token::security_token::SecurityToken;
use crate::token_endpoint::builder::{Client, Grant, GrantBuilder, sealed};
use crate::token_endpoint::client::TokenEndpoint;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A [`TokenSource`] for the JWT bearer grant (RFC 7523 §2.1): a signed assertion is exchanged for
/// an access token, as Google service accounts, Salesforce and DocuSign do it.
///
/// The grant needs no client authentication (RFC 7521 §4.1). Without
/// [`client_authentication`](GrantBuilder::client_authentication), it sends none, and `client_id`
/// only if it is set.
///
/// ```
/// use bearer_auth::{JwtBearer, SecurityToken, TokenRequest};
///
/// # fn sign(subject: Option<&str>) -> String { String::new() }
/// let source = JwtBearer::builder("https://identity.example.com/token")
///     // Called once per token request, so that each has an assertion of its own.
///     .assertion(|request: TokenRequest| async move {
///         Ok(SecurityToken::jwt(sign(request.subject_key())))
///     })
///     .build()?;
/// # let _ = source;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
#[derive(Clone)]
pub struct JwtBearer {
    endpoint: Arc<TokenEndpoint>,
    assertion: Provider,
}

/// Builds a [`JwtBearer`] source. [`build`](GrantBuilder::build) checks the settings.
pub type JwtBearerBuilder = GrantBuilder<JwtBearerGrant>;

/// The settings of the JWT bearer grant.
#[derive(Clone, Default)]
pub struct JwtBearerGrant {
    assertion: Option<Provider>,
}

impl JwtBearer {
    /// Creates a builder for a source that requests tokens at `token_url`.
    pub fn builder(token_url: impl Into<String>) -> JwtBearerBuilder {
        GrantBuilder::new(JwtBearerGrant::default(), token_url.into())
    }

    /// Creates a builder for a source that asks the issuer's metadata for the token endpoint, as
    /// [`ClientCredentials::discover`](crate::ClientCredentials::discover) does.
    pub fn discover(issuer: impl Into<String>) -> JwtBearerBuilder {
        GrantBuilder::discover(JwtBearerGrant::default(), issuer.into())
    }
}

impl GrantBuilder<JwtBearerGrant> {
    /// Sets the function that returns the assertion for a request.
    ///
    /// It is called for each token request. A request may name the subject of the assertion with
    /// [`TokenRequest::subject`]. [`TokenRequest::with_subject`] says what its key must be made of.
    ///
    /// Default: none. It is required.
    pub fn assertion<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(TokenRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SecurityToken, TokenError>> + Send + 'static,
    {
        self.grant.assertion = Some(Provider::new(TokenRequest::clone, f));
        self
    }
}

impl sealed::Sealed for JwtBearerGrant {
    const BUILDER: &'static str = "JwtBearerBuilder";
    const CLIENT: Client = Client::Optional;
}

impl Grant for JwtBearerGrant {
    type Source = JwtBearer;

    fn build(self, endpoint: sealed::Endpoint) -> Result<JwtBearer, InvalidSetting> {
        let missing = || InvalidSetting::new("assertion", "must be set for the JWT bearer grant");
        Ok(JwtBearer {
            endpoint: Arc::new(endpoint.0),
            assertion: self.assertion.ok_or_else(missing)?,
        })
    }
}

#[async_trait]
impl TokenSource for JwtBearer {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let (assertion, _) = self.assertion.provide(request).await?.into_parts();
        let fields = [("assertion", assertion)];
        let sent = self.endpoint.send(GRANT_TYPE, &fields, request);
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

impl fmt::Debug for JwtBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("JwtBearer");
        self.endpoint.debug(&mut debug);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Debug for JwtBearerGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtBearerGrant").finish_non_exhaustive()
    }
}
