//! rmcp: an MCP client over streamable HTTP whose requests carry tokens.
//!
//! Give it to `StreamableHttpClientTransport::with_client`. The token that the transport names
//! itself (`auth_header` in its configuration) is ignored.
//!
//! - rmcp reports a 401 without `WWW-Authenticate`, which RFC 9110 §15.5.2 does not allow, as an
//!   unexpected response. It rejects no token.
//! - The limits for responses are rmcp's defaults. To set others, implement the methods of the
//!   trait that take limits, in the same way.
//! - Tokens go to every URL that rmcp is told to use, so make the client for one server.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bearer_auth::{AccessToken, TokenCache};
use futures::stream::BoxStream;
use http::{HeaderName, HeaderValue, StatusCode};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::streamable_http_client::{SseError, StreamableHttpClient};
use rmcp::transport::streamable_http_client::{StreamableHttpError, StreamableHttpPostResponse};
use sse_stream::Sse;

const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;

type McpResult<T> = Result<T, StreamableHttpError<reqwest::Error>>;
type Headers = HashMap<HeaderName, HeaderValue>;

/// Sends the requests of an MCP client with tokens of a cache.
#[derive(Clone, Debug)]
pub struct BearerMcpClient {
    /// The client that sends the requests.
    pub http: reqwest::Client,
    /// The cache of the tokens.
    pub cache: TokenCache,
}

impl BearerMcpClient {
    async fn token(&self) -> McpResult<AccessToken> {
        self.cache
            .token()
            .await
            .map_err(|error| io::Error::other(error).into())
    }

    /// Sends a request, and replays it once if the server rejects the token.
    async fn send<T, F>(&self, send: impl Fn(Option<String>) -> F) -> McpResult<T>
    where
        F: Future<Output = McpResult<T>>,
    {
        let token = self.token().await?;
        match send(Some(token.expose_secret().to_owned())).await {
            Err(error) if is_rejection(&error) => self.cache.invalidate(&token),
            result => return result,
        }
        send(Some(self.token().await?.expose_secret().to_owned())).await
    }
}

/// The end of a session reports a 401 as an error of the client.
fn is_rejection(error: &StreamableHttpError<reqwest::Error>) -> bool {
    matches!(error, StreamableHttpError::AuthRequired(_))
        || matches!(error, StreamableHttpError::Client(e) if e.status() == Some(UNAUTHORIZED))
}

impl StreamableHttpClient for BearerMcpClient {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        headers: Headers,
    ) -> McpResult<StreamableHttpPostResponse> {
        self.send(|token| {
            self.http.post_message(
                uri.clone(),
                message.clone(),
                session.clone(),
                token,
                headers.clone(),
            )
        })
        .await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        headers: Headers,
    ) -> McpResult<()> {
        self.send(|token| {
            self.http
                .delete_session(uri.clone(), session.clone(), token, headers.clone())
        })
        .await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _: Option<String>,
        headers: Headers,
    ) -> McpResult<BoxStream<'static, Result<Sse, SseError>>> {
        self.send(|token| {
            self.http.get_stream(
                uri.clone(),
                session.clone(),
                last_event.clone(),
                token,
                headers.clone(),
            )
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use bearer_auth::MockAuthServer;
    use rmcp::model::ClientJsonRpcMessage;
    use rmcp::transport::streamable_http_client::StreamableHttpClient;
    use serde_json::json;

    use super::BearerMcpClient;
    use crate::testing;

    fn client(server: &MockAuthServer) -> (BearerMcpClient, Arc<str>) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let client = BearerMcpClient {
            http,
            cache: testing::cache(server),
        };
        (client, format!("{}/mcp", server.api_url()).into())
    }

    // The mock server does not speak MCP: a notification, which needs no response, is enough.
    #[tokio::test]
    async fn heals_a_revoked_token_of_a_message() {
        let server = testing::server().await;
        let (client, uri) = client(&server);
        let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let message: ClientJsonRpcMessage = serde_json::from_value(notification).unwrap();
        let post = || client.post_message(uri.clone(), message.clone(), None, None, HashMap::new());

        post().await.unwrap();
        server.revoke_all();
        post().await.unwrap();

        testing::assert_healed(&server);
        assert!(server.api_log()[2].body_len() > 0);
    }

    #[tokio::test]
    async fn heals_a_revoked_token_of_a_stream() {
        let server = testing::server().await;
        let (client, uri) = client(&server);
        let open = || client.get_stream(uri.clone(), None, None, None, HashMap::new());

        open().await.map(drop).unwrap();
        server.revoke_all();
        open().await.map(drop).unwrap();

        testing::assert_healed(&server);
    }

    #[tokio::test]
    async fn heals_a_revoked_token_at_the_end_of_a_session() {
        let server = testing::server().await;
        let (client, uri) = client(&server);
        let end = || client.delete_session(uri.clone(), "1".into(), None, HashMap::new());

        end().await.unwrap();
        server.revoke_all();
        end().await.unwrap();

        testing::assert_healed(&server);
    }
}
