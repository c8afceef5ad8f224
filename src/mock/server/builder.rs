//! The builder of the mock server.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::MockAuthServer;
use super::serve::Server;
use super::state::{Client, Settings, State};
use super::tokens::MAX_TOKEN_LEN;

/// A builder for a [`MockAuthServer`].
#[derive(Clone)]
#[must_use = "the server does not run until `start` is called"]
pub struct MockAuthServerBuilder {
    client: Client,
    settings: Settings,
    token_len: usize,
    port: u16,
}

impl MockAuthServerBuilder {
    /// Sets the lifetime of tokens, counted from the receipt of the token request.
    ///
    /// The server sends it as `expires_in` in seconds, with a fraction only if needed.
    ///
    /// Default: 900 s.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.lifetime = lifetime;
        self
    }

    /// Sets how long the token endpoint waits between reading a request and answering it.
    ///
    /// The token is issued after the wait, so none is issued if the client disconnects meanwhile.
    ///
    /// Default: zero.
    pub fn token_latency(mut self, latency: Duration) -> Self {
        self.settings.token_latency = latency;
        self
    }

    /// Sets how long the API waits between checking the token and answering the request.
    ///
    /// A token that expires or is revoked during the wait does not change the response.
    ///
    /// Default: zero.
    pub fn api_latency(mut self, latency: Duration) -> Self {
        self.settings.api_latency = latency;
        self
    }

    /// Sets the id and secret of the only client that the token endpoint accepts.
    ///
    /// Default: `mock-client` and `mock-secret`.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.client.id = id.into();
        self.client.secret = secret.into();
        self
    }

    /// Sets whether the id and secret in HTTP Basic are taken without form decoding.
    ///
    /// With `false` the server form-decodes them first, as RFC 6749 §2.3.1 requires.
    ///
    /// Default: `false`.
    pub fn raw_basic(mut self, raw: bool) -> Self {
        self.client.raw_basic = raw;
        self
    }

    /// Sets the minimum length of tokens in bytes; shorter tokens are padded.
    ///
    /// A typical JWT has about 1,000 bytes. More than 64 KiB is reduced to 64 KiB.
    ///
    /// Default: 0, no padding.
    pub fn token_len(mut self, bytes: usize) -> Self {
        self.token_len = bytes.min(MAX_TOKEN_LEN);
        self
    }

    /// Sets the port, such as that of an earlier server, for a test whose server starts late or
    /// comes back.
    ///
    /// [`start`](Self::start) returns an error if the port is in use.
    ///
    /// Default: 0, a free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts the server on 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if it cannot create the loopback socket or the thread.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the server if it is still starting.
    pub async fn start(self) -> io::Result<MockAuthServer> {
        let state = Arc::new(State::new(self.client, self.settings, self.token_len));
        let (address, server) = Server::start(Arc::clone(&state), self.port).await?;
        Ok(MockAuthServer::new(state, address, server))
    }

    pub(super) fn new() -> Self {
        Self {
            client: Client {
                id: "mock-client".to_owned(),
                secret: "mock-secret".to_owned(),
                raw_basic: false,
            },
            settings: Settings {
                lifetime: Duration::from_secs(900),
                token_latency: Duration::ZERO,
                api_latency: Duration::ZERO,
                outage: false,
                refuse_all: false,
            },
            token_len: 0,
            port: 0,
        }
    }
}

impl fmt::Debug for MockAuthServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockAuthServerBuilder")
            .field("client_id", &self.client.id)
            .field("raw_basic", &self.client.raw_basic)
            .field("lifetime", &self.settings.lifetime)
            .field("token_latency", &self.settings.token_latency)
            .field("api_latency", &self.settings.api_latency)
            .field("token_len", &self.token_len)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
