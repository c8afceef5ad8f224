//! An authorization server and a protected API on loopback, for tests.
//!
//! One request's way: `serve` (thread, connections, routes) → `token_endpoint` or `api` → `state`
//! (what the test asked for, the `tokens` issued, the `record`s kept).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use self::serve::Server;
use self::state::State;

mod api;
mod builder;
mod record;
mod serve;
mod state;
mod token_endpoint;
mod tokens;

pub use self::builder::MockAuthServerBuilder;
pub use self::record::{ApiRecord, ClientAuthenticationSeen, TokenRecord};

/// A token endpoint and a protected API, real HTTP/1.1 on 127.0.0.1, for tests.
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
/// server.revoke_all(); // Its next call is answered 401,
/// server.fail_token_requests(2, http::StatusCode::BAD_GATEWAY); // its next two fetches 502.
///
/// assert_eq!(server.token_requests(), 0); // what it really sent
/// assert!(server.api_log().is_empty());
///
/// server.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// # What it serves
///
/// - `/token`: the client credentials grant (RFC 6749 §4.4), client authentication by form fields
///   or by HTTP Basic. A wrong request gets the error that RFC 6749 §5.2 names. Tokens are called
///   `mock-access-token-1`, `mock-access-token-2`, … in the order they were issued.
/// - `/api` and every path below: 200 with `{"ok":true,"scope":…}` for a token that is known,
///   unexpired and not revoked, else 401 with a challenge (RFC 6750 §3): without `error` if no
///   bearer token came, with `invalid_token` if a bad one did. Two `Authorization` headers are a
///   400. The whole body is read first (64 MiB at most, else 413); `x-mock-body-length` in the
///   answer tells its length in bytes.
/// - `/api/redirect?to=URL`: 307 to that URL, whatever token came.
/// - `/upload` and every path below: 200 without a token, as a pre-signed upload URL would;
///   [`api_log`](Self::api_log) says whether an `Authorization` header came all the same.
///
/// # Where it runs
///
/// On a thread and a runtime of its own, in real time: `tokio::time::pause()` in a test neither
/// stops its latencies nor expires its tokens. Dropping it closes its connections and its port and
/// waits for that thread, which never blocks; [`shutdown`](Self::shutdown) waits without blocking
/// the caller's thread.
///
/// A reqwest client that finds `HTTP_PROXY` in the environment sends loopback requests there too:
/// build it with `no_proxy()`, for the calls and for the token transport.
///
/// # Limits
///
/// Each open connection costs a file descriptor here and one in the client: for 1,000 of them in
/// one process, the usual limit of 1,024 descriptors has to be raised.
pub struct MockAuthServer {
    state: Arc<State>,
    origin: String,
    token_url: String,
    api_url: String,
    server: Server,
}

impl MockAuthServer {
    /// Starts a server with every setting at its default, on a free port.
    ///
    /// # Errors
    ///
    /// The operating system's, if it gives no loopback socket or no thread.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops a server that was starting.
    pub async fn start() -> io::Result<MockAuthServer> {
        Self::builder().start().await
    }

    /// Sets up a server that differs from the defaults.
    pub fn builder() -> MockAuthServerBuilder {
        MockAuthServerBuilder::new()
    }

    /// The token endpoint's URL, `http://127.0.0.1:PORT/token`.
    pub fn token_url(&self) -> &str {
        &self.token_url
    }

    /// The protected API's URL, `http://127.0.0.1:PORT/api`; any path below it is served too.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Scheme, host and port, `http://127.0.0.1:PORT`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The client id that the token endpoint knows; `mock-client` unless the builder named another.
    pub fn client_id(&self) -> &str {
        &self.state.client().id
    }

    /// That client's secret; `mock-secret` unless the builder named another.
    pub fn client_secret(&self) -> &str {
        &self.state.client().secret
    }

    /// From now on the API refuses every token issued so far.
    pub fn revoke_all(&self) {
        self.state.lock().tokens.revoke_all();
    }

    /// From now on the API refuses every token issued so far for this scope.
    ///
    /// Only for a scope written exactly as the token request wrote it.
    pub fn revoke_scope(&self, scope: &str) {
        self.state.lock().tokens.revoke_scope(scope);
    }

    /// While `true`, every API request that needs a token is answered 401 `invalid_token`.
    ///
    /// `false` at the start. Redirects and uploads need none.
    pub fn refuse_all(&self, refuse: bool) {
        self.state.lock().settings.refuse_all = refuse;
    }

    /// While `true`, every token request is answered 503; `false` at the start.
    ///
    /// An outage uses up none of the failures that
    /// [`fail_token_requests`](Self::fail_token_requests) queued.
    pub fn set_outage(&self, outage: bool) {
        self.state.lock().settings.outage = outage;
    }

    /// The next `times` token requests are answered with `status`, whatever they ask.
    ///
    /// The body is an OAuth error: `invalid_request` for 400, `invalid_client` for 401,
    /// `unauthorized_client` for 403, `temporarily_unavailable` for 503, `server_error` for any
    /// other 5xx, and a JSON object without a code for the rest. Calls queue up: the failures
    /// of a second call follow those of the first.
    pub fn fail_token_requests(&self, times: usize, status: StatusCode) {
        let failure = token_endpoint::failure(status);
        self.state.lock().plan(times, failure);
    }

    /// As [`fail_token_requests`](Self::fail_token_requests), with a `Retry-After` header.
    ///
    /// In whole seconds, rounded up.
    pub fn fail_token_requests_with_retry_after(
        &self,
        times: usize,
        status: StatusCode,
        retry_after: Duration,
    ) {
        let failure = token_endpoint::failure_with_retry_after(status, retry_after);
        self.state.lock().plan(times, failure);
    }

    /// The next `times` token requests are answered with this response.
    ///
    /// For what servers also send: HTML or an `error` in a 200, a redirect, a token that is none.
    /// Status, headers and body are sent as they are, except that `Content-Length` and
    /// `Transfer-Encoding` always fit the body. An informational status (1xx) is no final answer;
    /// the client sees a 500 or a broken connection. Queues up behind earlier failures.
    pub fn answer_token_requests(&self, times: usize, response: Response<impl Into<Bytes>>) {
        let response = response.map(Into::into);
        self.state.lock().plan(times, response);
    }

    /// How long tokens live that are issued from now on; see [`MockAuthServerBuilder::lifetime`].
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state.lock().settings.lifetime = lifetime;
    }

    /// How long the token endpoint waits with its answer to requests received from now on; see
    /// [`MockAuthServerBuilder::token_latency`].
    pub fn set_token_latency(&self, latency: Duration) {
        self.state.lock().settings.token_latency = latency;
    }

    /// How long the API waits with its answer to requests received from now on; see
    /// [`MockAuthServerBuilder::api_latency`].
    pub fn set_api_latency(&self, latency: Duration) {
        self.state.lock().settings.api_latency = latency;
    }

    /// Requests received by the token endpoint, answered or not.
    pub fn token_requests(&self) -> usize {
        self.state.lock().token_requests
    }

    /// Tokens issued.
    pub fn tokens_issued(&self) -> usize {
        self.state.lock().tokens.issued()
    }

    /// Requests received by the API (`/api`, `/upload` and every path below), answered or not.
    pub fn api_requests(&self) -> usize {
        self.state.lock().api_requests
    }

    /// How many of them the API answered 401.
    pub fn api_unauthorized(&self) -> usize {
        self.state.lock().api_unauthorized
    }

    /// The token requests answered so far, in the order of their answers.
    ///
    /// Of more than 100,000, the latest. A client that has its answer finds it here. A request
    /// whose client hung up before the answer is counted by
    /// [`token_requests`](Self::token_requests) only.
    pub fn token_log(&self) -> Vec<TokenRecord> {
        self.state.lock().token_log.to_vec()
    }

    /// The API requests read and judged so far, in the order of their judgement.
    ///
    /// Of more than 100,000, the latest. A client that has its answer finds it here. A request
    /// whose client hung up before its body had arrived is counted by
    /// [`api_requests`](Self::api_requests) only.
    pub fn api_log(&self) -> Vec<ApiRecord> {
        self.state.lock().api_log.to_vec()
    }

    /// Stops the server and waits until its connections and its port are closed.
    ///
    /// Requests under way are cut off. Dropping the server does the same, but blocks the thread for
    /// the moment that takes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the server, which stops all the same.
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
