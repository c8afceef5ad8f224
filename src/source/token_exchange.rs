//! The token exchange grant (RFC 8693).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::clock;
use crate::error::{InvalidSetting, TokenError, TokenErrorKind};
use crate::source::TokenSource;
use crate::source::context::FetchContext;
use crate::source::provider::Provider;
use crate::token::request::TokenRequest;
use crate::token::security_token::SecurityToken;
use crate::token::{AccessToken, Lifetime};
use crate::token_endpoint::builder::{Client, Grant, GrantBuilder, sealed};
use crate::token_endpoint::client::TokenEndpoint;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The longest life of an exchanged token of which the server names no lifetime.
const UNSPECIFIED_LIFE: Duration = Duration::from_secs(300);

/// A [`TokenSource`] for the token exchange grant (RFC 8693): a service calls another one on behalf
/// of a user.
///
/// **The key of a subject decides whose token is served.** The cache returns the exchanged token to
/// every request that names the same key with [`TokenRequest::subject`], without looking at the
/// subject token again. Derive the key from what you have verified: issuer, subject and session.
///
/// An exchanged token is never used for longer than its subject token is valid, as far as that is
/// known: from the `exp` claim of a JWT, or from
/// [`with_expires_at`](SecurityToken::with_expires_at).
///
/// ```
/// use bearer_auth::{RequestAuth, SecurityToken, TokenError, TokenExchange, TokenRequest};
///
/// # async fn session_token(key: &str) -> Option<String> { None }
/// let source = TokenExchange::builder("https://identity.example.com/token")
///     .client_id("orders")
///     .client_secret("s3cret")
///     // Called once per exchange, with the key of the subject.
///     .subject_token(|key| async move {
///         let token = session_token(&key).await;
///         let token = token.ok_or_else(|| TokenError::permanent("logged out"))?;
///         Ok(SecurityToken::access_token(token))
///     })
///     .build()?;
///
/// // Verified before: the issuer, the subject and the session of the caller's own token.
/// let key = "https://identity.example.com|248289761001|session-7";
/// let auth = RequestAuth::token(TokenRequest::subject(key).with_audience("billing"));
/// # let _ = (source, auth);
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
///
/// # Errors
///
/// - [`InvalidSetting`](TokenErrorKind::InvalidSetting): the request names no subject.
/// - [`LoginRequired`](TokenErrorKind::LoginRequired): the subject token has expired.
/// - An error of the function is returned as it is.
/// - [`InvalidResponse`](TokenErrorKind::InvalidResponse): the issued token is not a bearer token
///   (`token_type` of `N_A`, RFC 8693 §2.2.1).
#[derive(Clone)]
pub struct TokenExchange {
    endpoint: Arc<TokenEndpoint>,
    subject: Provider,
    actor: Option<Provider>,
}

/// Builds a [`TokenExchange`] source. [`build`](GrantBuilder::build) checks the settings.
pub type TokenExchangeBuilder = GrantBuilder<TokenExchangeGrant>;

/// The settings of the token exchange grant.
#[derive(Clone, Default)]
pub struct TokenExchangeGrant {
    subject: Option<Provider>,
    actor: Option<Provider>,
}

impl TokenExchange {
    /// Creates a builder for a source that exchanges tokens at `token_url`.
    ///
    /// A `resource` or an `audience` of the exchange (RFC 8693 §2.1) and a `requested_token_type`
    /// are parameters of the request or of the builder.
    pub fn builder(token_url: impl Into<String>) -> TokenExchangeBuilder {
        GrantBuilder::new(TokenExchangeGrant::default(), token_url.into())
    }

    /// Creates a builder for a source that asks the issuer's metadata for the token endpoint, as
    /// [`ClientCredentials::discover`](crate::ClientCredentials::discover) does.
    pub fn discover(issuer: impl Into<String>) -> TokenExchangeBuilder {
        GrantBuilder::discover(TokenExchangeGrant::default(), issuer.into())
    }
}

impl GrantBuilder<TokenExchangeGrant> {
    /// Sets the function that returns the token of the subject with the given key.
    ///
    /// It is called once per exchange, so a token that was refreshed meanwhile is picked up.
    ///
    /// Default: none. It is required.
    pub fn subject_token<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SecurityToken, TokenError>> + Send + 'static,
    {
        let key = |request: &TokenRequest| request.subject_key().unwrap_or_default().to_owned();
        self.grant.subject = Some(Provider::new(key, f));
        self
    }

    /// Sets the function that returns the token of the acting party (RFC 8693 §2.1), usually a
    /// token of the service itself.
    ///
    /// Default: none is sent.
    pub fn actor_token<F, Fut>(mut self, f: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SecurityToken, TokenError>> + Send + 'static,
    {
        self.grant.actor = Some(Provider::new(|_| (), move |()| f()));
        self
    }
}

impl sealed::Sealed for TokenExchangeGrant {
    const BUILDER: &'static str = "TokenExchangeBuilder";
    const CLIENT: Client = Client::Identified;
}

impl Grant for TokenExchangeGrant {
    type Source = TokenExchange;

    fn build(self, endpoint: sealed::Endpoint) -> Result<TokenExchange, InvalidSetting> {
        let missing = || InvalidSetting::new("subject_token", "must be set for a token exchange");
        Ok(TokenExchange {
            endpoint: Arc::new(endpoint.0),
            subject: self.subject.ok_or_else(missing)?,
            actor: self.actor,
        })
    }
}

#[async_trait]
impl TokenSource for TokenExchange {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        if request.subject_key().is_none() {
            return Err(InvalidSetting::new(
                "subject",
                "must be named by the request: use `TokenRequest::subject`",
            )
            .into());
        }
        let subject = self.subject.provide(request).await?;
        let expires_at = subject.expires_at();
        remaining_life(expires_at)?;
        let (value, token_type) = subject.into_parts();
        let mut fields = vec![
            ("subject_token", value),
            (
                "subject_token_type",
                Zeroizing::new(token_type.into_owned()),
            ),
        ];
        if let Some(actor) = &self.actor {
            let (value, token_type) = actor.provide(request).await?.into_parts();
            fields.push(("actor_token", value));
            fields.push(("actor_token_type", Zeroizing::new(token_type.into_owned())));
        }
        let sent = self.endpoint.send(GRANT_TYPE, &fields, request);
        let token = sent.await?.token;
        Ok(match remaining_life(expires_at)? {
            Some(life) => no_longer_than(token, life),
            None => token,
        })
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

/// Returns the remaining life of the subject token, if it is known.
fn remaining_life(expires_at: Option<SystemTime>) -> Result<Option<Duration>, TokenError> {
    let Some(expires_at) = expires_at else {
        return Ok(None);
    };
    match expires_at.duration_since(clock::wall_now()) {
        Ok(life) if !life.is_zero() => Ok(Some(life)),
        _ => Err(TokenError::new(TokenErrorKind::LoginRequired, false)
            .with_cause("the subject token has expired")),
    }
}

fn no_longer_than(token: AccessToken, life: Duration) -> AccessToken {
    match token.lifetime() {
        Lifetime::Limited(own) => token.with_lifetime(own.min(life)),
        Lifetime::Unspecified | Lifetime::Unlimited => {
            token.with_lifetime(UNSPECIFIED_LIFE.min(life))
        }
        Lifetime::Ended => token,
    }
}

impl fmt::Debug for TokenExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TokenExchange");
        self.endpoint.debug(&mut debug);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenExchangeGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenExchangeGrant").finish_non_exhaustive()
    }
}
