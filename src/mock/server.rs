//! An authorization server and a protected API on loopback, for tests.
//!
//! The path of a request: `serve` (thread, connections, routes) → `token_endpoint` or `api` →
//! `state` (the settings, the `tokens` issued, the `record`s kept). `message` reads request bodies
//! and creates responses for both endpoints.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};

use self::serve::Server;
use self::state::State;

mod api;
mod builder;
mod message;
mod record;
mod serve;
mod state;
mod token_endpoint;
mod tokens;

pub use self::builder::MockAuthServerBuilder;
pub use self::record::{ApiRecord, ClientAuthenticationSeen, TokenRecord};

/// A token endpoint and a protected API for tests, served over HTTP/1.1 on 127.0.0.1.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
///
/// use bearer_auth::MockAuthServer;
///
/// let server = MockAuthServer::builder()
///     .client("my-client", "s3cret")
///     .lifetime(Duration::from_secs(60))
///     .start()
///     .await?;
/// assert_eq!(server.token_url(), format!("{}/token", server.origin()));
/// assert_eq!(server.api_url(), format!("{}/api", server.origin()));
///
/// // Point the client under test at `token_url` and `api_url`, and then:
/// server.revoke_all(); // The API rejects the client's token with a 401.
/// server.fail_token_requests(2, http::StatusCode::BAD_GATEWAY); // The next two fetches get a 502.
///
/// // The server counts and records the requests that it receives.
/// assert_eq!(server.token_requests(), 0);
/// assert!(server.api_log().is_empty());
///
/// server.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # Endpoints
///
/// - `/token`: the client credentials grant (RFC 6749 §4.4), with client authentication by form
///   fields or by HTTP Basic. An invalid request gets the error defined in RFC 6749 §5.2. Tokens
///   are named `mock-access-token-1`, `mock-access-token-2` and so on, in the order of issue.
/// - `/api` and every path below it: 200 with `{"ok":true,"scope":…}` for a token that this server
///   issued and that is neither expired nor revoked, otherwise 401 with a challenge (RFC 6750 §3):
///   without `error` if the request has no bearer token, with `invalid_token` if it has a bad one.
///   Two `Authorization` headers get a 400. The server first reads the whole body; one of more than
///   64 MiB gets a 413. The response header `x-mock-body-length` is the body's length in bytes.
/// - `/api/redirect?to=URL`: 307 to that URL, with any token or none.
/// - `/upload` and every path below it: 200 without a token, like a pre-signed upload URL.
///   [`api_log`](Self::api_log) shows which requests had an `Authorization` header nevertheless.
///
/// # Runtime
///
/// The server runs on its own thread with its own runtime, in real time: `tokio::time::pause()` in
/// a test neither skips its latencies nor expires its tokens. Dropping the server closes its
/// connections and its port and waits for its thread, which takes a moment.
/// [`shutdown`](Self::shutdown) does the same without blocking the caller's thread.
///
/// If `HTTP_PROXY` is set, reqwest sends loopback requests to the proxy too: build the client with
/// `no_proxy()`, for the calls and for the token transport.
///
/// # Limits
///
/// Each open connection uses a file descriptor in the server and another one in the client. For
/// 1,000 connections in one process, raise the usual limit of 1,024 descriptors.
pub struct MockAuthServer {
    state: Arc<State>,
    origin: String,
    token_url: String,
    api_url: String,
    server: Server,
}

impl MockAuthServer {
    /// Starts a server with default settings on a free port.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if it cannot create the loopback socket or the thread.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the server if it is still starting.
    pub async fn start() -> io::Result<MockAuthServer> {
        Self::builder().start().await
    }

    /// Returns a builder for a server with other settings.
    pub fn builder() -> MockAuthServerBuilder {
        MockAuthServerBuilder::new()
    }

    /// Returns the URL of the token endpoint, `http://127.0.0.1:PORT/token`.
    pub fn token_url(&self) -> &str {
        &self.token_url
    }

    /// Returns the URL of the protected API, `http://127.0.0.1:PORT/api`.
    ///
    /// The API also serves every path below it.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Returns the server's origin, `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the client id that the token endpoint accepts.
    ///
    /// It is `mock-client`, or the one set by [`MockAuthServerBuilder::client`].
    pub fn client_id(&self) -> &str {
        &self.state.client().id
    }

    /// Returns the client secret that the token endpoint accepts.
    ///
    /// It is `mock-secret`, or the one set by [`MockAuthServerBuilder::client`].
    pub fn client_secret(&self) -> &str {
        &self.state.client().secret
    }

    /// Revokes every token issued so far, so that the API rejects them.
    ///
    /// The layer starts at most one refresh per second because of rejections: let 1 s pass between
    /// two revocations, or the client gets the second 401.
    pub fn revoke_all(&self) {
        self.state.lock().tokens.revoke_all();
    }

    /// Revokes every token issued so far for this scope, so that the API rejects them.
    ///
    /// The scope must be written exactly as in the token request. Let 1 s pass between two
    /// revocations, as with [`revoke_all`](Self::revoke_all).
    pub fn revoke_scope(&self, scope: &str) {
        self.state.lock().tokens.revoke_scope(scope);
    }

    /// Returns true if the API would accept this token.
    ///
    /// It does if the server issued the token, if the token is neither expired nor revoked, and
    /// unless [`refuse_all`](Self::refuse_all) is set. Call this in an API of your own, such as a
    /// gRPC service.
    pub fn accepts(&self, token: &str) -> bool {
        let shared = self.state.lock();
        let known = shared.tokens.look_up(token, Instant::now());
        !shared.settings.refuse_all && known.is_some_and(|token| token.valid)
    }

    /// Sets whether the API rejects every token with a 401 and `invalid_token`.
    ///
    /// Requests without a token get the same response. Redirects and uploads need no token, so this
    /// does not affect them. Default: `false`.
    pub fn refuse_all(&self, refuse: bool) {
        self.state.lock().settings.refuse_all = refuse;
    }

    /// Sets whether every token request gets a 503.
    ///
    /// Responses queued by [`fail_token_requests`](Self::fail_token_requests) and the methods like
    /// it stay queued during the outage. Default: `false`.
    pub fn set_outage(&self, outage: bool) {
        self.state.lock().settings.outage = outage;
    }

    /// Makes the next `times` token requests fail with `status`.
    ///
    /// The body is an OAuth error: `invalid_request` for 400, `invalid_client` for 401,
    /// `unauthorized_client` for 403, `temporarily_unavailable` for 503, and `server_error` for any
    /// other 5xx. For other statuses it is a JSON object without an error code.
    ///
    /// Calls queue up: the failures of a second call follow those of the first.
    pub fn fail_token_requests(&self, times: usize, status: StatusCode) {
        let failure = token_endpoint::failure(status);
        self.state.lock().plan(times, failure);
    }

    /// Makes the next `times` token requests fail with `status` and a `Retry-After` header.
    ///
    /// The header is in whole seconds, rounded up. Everything else is as with
    /// [`fail_token_requests`](Self::fail_token_requests).
    pub fn fail_token_requests_with_retry_after(
        &self,
        times: usize,
        status: StatusCode,
        retry_after: Duration,
    ) {
        let failure = token_endpoint::failure_with_retry_after(status, retry_after);
        self.state.lock().plan(times, failure);
    }

    /// Makes the token endpoint answer the next `times` requests with `response`.
    ///
    /// Use it for a 200 with HTML or an `error`, a redirect, or an invalid token.
    ///
    /// The server sends the status, headers and body unchanged, except that `Content-Length` and
    /// `Transfer-Encoding` always fit the body. An informational status (1xx) is not a final
    /// response; the client sees a 500 or a broken connection instead. The response is queued
    /// after earlier failures.
    pub fn answer_token_requests(&self, times: usize, response: Response<impl Into<Bytes>>) {
        let response = response.map(Into::into);
        self.state.lock().plan(times, response);
    }

    /// Sets the lifetime of tokens issued from now on.
    ///
    /// See [`MockAuthServerBuilder::lifetime`].
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state.lock().settings.lifetime = lifetime;
    }

    /// Sets the latency of the token endpoint for requests received from now on.
    ///
    /// See [`MockAuthServerBuilder::token_latency`].
    pub fn set_token_latency(&self, latency: Duration) {
        self.state.lock().settings.token_latency = latency;
    }

    /// Sets the latency of the API for requests received from now on.
    ///
    /// See [`MockAuthServerBuilder::api_latency`].
    pub fn set_api_latency(&self, latency: Duration) {
        self.state.lock().settings.api_latency = latency;
    }

    /// Returns the number of requests that the token endpoint received, answered or not.
    pub fn token_requests(&self) -> usize {
        self.state.lock().token_requests
    }

    /// Returns the number of tokens issued.
    pub fn tokens_issued(&self) -> usize {
        self.state.lock().tokens.issued()
    }

    /// Returns the number of requests that the API received, answered or not.
    ///
    /// They are the requests to `/api`, `/upload` and every path below.
    pub fn api_requests(&self) -> usize {
        self.state.lock().api_requests
    }

    /// Returns the number of requests that the API answered with a 401.
    pub fn api_unauthorized(&self) -> usize {
        self.state.lock().api_unauthorized
    }

    /// Returns the token requests answered so far, in the order in which they were answered.
    ///
    /// The log keeps the latest 100,000 records. It contains a request before the client receives
    /// the response. If the client disconnects before that,
    /// [`token_requests`](Self::token_requests) counts the request and the log does not contain it.
    pub fn token_log(&self) -> Vec<TokenRecord> {
        self.state.lock().token_log.to_vec()
    }

    /// Returns the API requests read so far, in the order in which the API checked their tokens.
    ///
    /// The log keeps the latest 100,000 records. It contains a request before the client receives
    /// the response. If the client disconnects before the body is complete,
    /// [`api_requests`](Self::api_requests) counts the request and the log does not contain it.
    pub fn api_log(&self) -> Vec<ApiRecord> {
        self.state.lock().api_log.to_vec()
    }

    /// Stops the server and waits until its connections and its port are closed.
    ///
    /// Requests in progress are aborted. Dropping the server does the same, but blocks the current
    /// thread while the server stops.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the server, which also stops it.
    pub async fn shutdown(self) {
        self.server.stop().await;
    }

    fn new(state: Arc<State>, address: SocketAddr, server: Server) -> Self {
        let origin = format!("http://{address}");
        Self {
            state,
            token_url: format!("{origin}/token"),
            api_url: format!("{origin}/api"),
            origin,
            server,
        }
    }
}

impl fmt::Debug for MockAuthServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockAuthServer")
            .field("origin", &self.origin)
            .field("client_id", &self.client_id())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
