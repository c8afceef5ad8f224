//! The token request of the hand-written peers.

use std::time::{Duration, Instant};

use oauth2::basic::BasicClient;
use oauth2::{ClientId, ClientSecret, EndpointNotSet, EndpointSet, TokenResponse as _, TokenUrl};

use crate::peers::BoxError;
use crate::server::Target;
use crate::stack::reqwest::v12;

type Client =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// A client of the `oauth2` crate, as in its documentation: one HTTP client without redirects.
#[derive(Debug)]
pub(crate) struct TokenEndpoint {
    client: Client,
    http: reqwest_012::Client,
}

pub(crate) struct Token {
    pub(crate) secret: String,
    /// Computed from the time at which the token request was sent.
    pub(crate) expires_at: Instant,
}

impl TokenEndpoint {
    pub(crate) fn new(target: &Target) -> Result<Self, BoxError> {
        let client = BasicClient::new(ClientId::new(target.client_id.clone()))
            .set_client_secret(ClientSecret::new(target.client_secret.clone()))
            .set_token_uri(TokenUrl::new(target.token_url.clone())?);
        Ok(Self {
            client,
            http: v12::http_client()?,
        })
    }

    pub(crate) async fn fetch(&self) -> Result<Token, BoxError> {
        let requested_at = Instant::now();
        let response = self
            .client
            .exchange_client_credentials()
            .request_async(&self.http)
            .await?;
        let lifetime = response.expires_in().unwrap_or(Duration::from_secs(300));
        Ok(Token {
            secret: response.access_token().secret().clone(),
            expires_at: requested_at + lifetime,
        })
    }
}
