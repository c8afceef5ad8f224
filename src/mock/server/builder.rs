//! The settings a server starts with.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::MockAuthServer;
use super::serve::Server;
use super::state::{Client, Settings, State};
use super::tokens::MAX_TOKEN_LEN;

/// Settings of a [`MockAuthServer`] that differ from the defaults.
#[derive(Clone)]
#[must_use = "nothing listens until `start` is called"]
pub struct MockAuthServerBuilder {
    client: Client,
    settings: Settings,
    token_len: usize,
}

impl MockAuthServerBuilder {
    /// How long a token lives, counted from when its request was received; default 900 s.
    ///
    /// Sent as `expires_in`, in seconds: a whole number where it is one, else with a fraction.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.lifetime = lifetime;
        self
    }

    /// How long the token endpoint waits, once it has read a request, with its answer; default 0.
    ///
    /// The token is issued after the wait: a client that hangs up meanwhile gets none.
    pub fn token_latency(mut self, latency: Duration) -> Self {
        self.settings.token_latency = latency;
        self
    }

    /// How long the API waits, once it has judged a request, with its answer; default 0.
    ///
    /// What happens to the token during the wait doesn't change that answer.
    pub fn api_latency(mut self, latency: Duration) -> Self {
        self.settings.api_latency = latency;
        self
    }

    /// The one client that the token endpoint knows; default `mock-client` with `mock-secret`.
    pub fn client(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.client.id = id.into();
        self.client.secret = secret.into();
        self
    }

    /// Takes id and secret in HTTP Basic as they were sent; default `false`.
    ///
    /// By default they are form-decoded first, as RFC 6749 §2.3.1 has it.
    pub fn raw_basic(mut self, raw: bool) -> Self {
        self.client.raw_basic = raw;
        self
    }

    /// Pads tokens to this many bytes, 64 KiB at most; default 0, which leaves them short.
    ///
    /// About 1,000 is the size of a JWT.
    pub fn token_len(mut self, bytes: usize) -> Self {
        self.token_len = bytes.min(MAX_TOKEN_LEN);
        self
    }

    /// Starts the server on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// The operating system's, if it gives no loopback socket or no thread.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops a server that was starting.
    pub async fn start(self) -> io::Result<MockAuthServer> {
        let state = Arc::new(State::new(self.client, self.settings, self.token_len));
        let (address, server) = Server::start(Arc::clone(&state)).await?;
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
            .finish_non_exhaustive()
    }
}
