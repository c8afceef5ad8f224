//! iceberg: an asynchronous function that authenticates the requests to a REST catalog.
//!
//! iceberg's catalog for Rust (0.10) has no extension point for it yet, and is heavy to build:
//! [`AuthManager`] has the signature of the function that its client calls for each request. A 401
//! does not reach that function. The recipe knows a rejected token by the request, which still
//! carries it when the host authenticates it once more.

use async_trait::async_trait;
use bearer_auth::{TokenCache, TokenError};
use http::header::AUTHORIZATION;

/// Authenticates requests to a catalog.
#[async_trait]
pub trait AuthManager: Send + Sync {
    /// Adds credentials to the request. After a 401, the same request comes again.
    ///
    /// # Errors
    ///
    /// Returns the reason if there is no token.
    async fn authenticate(&self, request: &mut reqwest::Request) -> Result<(), TokenError>;
}

/// Authenticates requests with tokens of a cache.
#[derive(Debug)]
pub struct BearerAuthManager(pub TokenCache);

#[async_trait]
impl AuthManager for BearerAuthManager {
    async fn authenticate(&self, request: &mut reqwest::Request) -> Result<(), TokenError> {
        let sent = request.headers().get(AUTHORIZATION);
        if let Some(token) = self
            .0
            .peek()
            .filter(|token| sent == Some(token.authorization()))
        {
            self.0.invalidate(&token);
        }
        let token = self.0.token().await?;
        request
            .headers_mut()
            .insert(AUTHORIZATION, token.authorization().clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bearer_auth::MockAuthServer;
    use http::{Method, StatusCode};

    use super::{AuthManager, BearerAuthManager};
    use crate::testing;

    /// Sends a request as a catalog's client would.
    async fn load_table(server: &MockAuthServer, auth: &dyn AuthManager) -> StatusCode {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/v1/namespaces/test/tables/orders", server.api_url());
        let mut request = reqwest::Request::new(Method::GET, url.parse().unwrap());
        auth.authenticate(&mut request).await.unwrap();
        let response = client.execute(request.try_clone().unwrap()).await.unwrap();
        if response.status() != StatusCode::UNAUTHORIZED {
            return response.status();
        }
        auth.authenticate(&mut request).await.unwrap();
        client.execute(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn heals_a_revoked_token() {
        let server = testing::server().await;
        let auth = BearerAuthManager(testing::cache(&server));

        assert_eq!(load_table(&server, &auth).await, StatusCode::OK);
        server.revoke_all();
        assert_eq!(load_table(&server, &auth).await, StatusCode::OK);

        testing::assert_healed(&server);
    }
}
