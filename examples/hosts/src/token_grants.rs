//! huskarl: its grants as a source of tokens, with the cache, the origins and the replays of this
//! crate.
//!
//! Use it for what huskarl signs or discovers. Do not put huskarl's own cache inside: it would
//! return the token that was rejected. Tokens that are bound to a key (DPoP) need huskarl's
//! authorizer instead, since this crate sends bearer tokens.

use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{AccessToken, TokenError, TokenRequest, TokenSource};
use huskarl::core::{Error, RetryAdvice};
use huskarl::grant::client_credentials::ClientCredentialsGrant;
use huskarl::grant::client_credentials::ClientCredentialsGrantParameters as Parameters;
use huskarl::grant::core::OAuth2ExchangeGrant;

/// Fetches tokens by a grant of huskarl.
pub struct GrantSource(pub ClientCredentialsGrant);

#[async_trait]
impl TokenSource for GrantSource {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let scope = request.scopes().map(|scopes| vec![scopes.to_owned()]);
        let parameters = Parameters::builder().maybe_scope(scope).build();
        let response = self.0.exchange(parameters).await.map_err(token_error)?;
        let token = AccessToken::new(response.access_token().token().expose_secret())?;
        // Without `expires_in`, the lifetime is zero, which stands for an unknown one.
        Ok(token.with_lifetime(response.access_token().effective_lifetime(Duration::ZERO)))
    }
}

fn token_error(error: Error) -> TokenError {
    match error.retry_advice() {
        RetryAdvice::Retry { after: Some(wait) } => {
            TokenError::transient(error).with_retry_after(wait)
        }
        RetryAdvice::Retry { .. } => TokenError::transient(error),
        _ => TokenError::permanent(error),
    }
}

#[cfg(test)]
mod tests {
    use bearer_auth::{BearerAuthLayer, BoxError, MockAuthServer, RequestAuth, TokenError};
    use http::{Request, StatusCode};
    use huskarl::core::client_auth::ClientSecret;
    use huskarl::core::secrets::{ProvidedSecret, SecretString};
    use huskarl::grant::client_credentials::ClientCredentialsGrant;
    use huskarl_reqwest::ReqwestClient;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use tower::{Layer, ServiceExt};

    use super::GrantSource;
    use crate::testing;

    fn layer(server: &MockAuthServer, secret: &str) -> BearerAuthLayer {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let grant = ClientCredentialsGrant::builder()
            .client_id(server.client_id())
            .client_auth(ClientSecret::new(ProvidedSecret::new(SecretString::new(
                secret,
            ))))
            .token_endpoint(server.token_url().parse().unwrap())
            .http_client(ReqwestClient::from(http))
            .build();
        BearerAuthLayer::new(GrantSource(grant))
            .allow_origin(server.origin())
            .unwrap()
    }

    async fn call(auth: &BearerAuthLayer, url: &str) -> Result<StatusCode, BoxError> {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let mut request = Request::get(url).body(String::new())?;
        request
            .extensions_mut()
            .insert(RequestAuth::scope("tenant/42 read"));
        Ok(auth.layer(http).oneshot(request).await?.status())
    }

    #[tokio::test]
    async fn heals_a_revoked_token() {
        let server = testing::server().await;
        let auth = layer(&server, server.client_secret());

        assert_eq!(call(&auth, server.api_url()).await.unwrap(), StatusCode::OK);
        server.revoke_all();
        assert_eq!(call(&auth, server.api_url()).await.unwrap(), StatusCode::OK);

        testing::assert_healed(&server);
        assert_eq!(server.api_log()[2].scope(), Some("tenant/42 read"));
    }

    #[tokio::test]
    async fn a_wrong_secret_is_a_permanent_error() {
        let server = testing::server().await;
        let auth = layer(&server, "wrong");

        let error = call(&auth, server.api_url()).await.unwrap_err();
        assert!(!TokenError::find(&*error).unwrap().is_transient());
        assert_eq!(server.token_requests(), 1);
    }
}
