//! The token endpoint and the API that all peers use.

use std::time::{Duration, Instant};

use bearer_auth::MockAuthServer;

use crate::peers::BoxError;
use crate::stats::rounded;

/// bearer-auth's mock server, which runs on its own thread and records all requests.
pub(crate) struct Server {
    mock: MockAuthServer,
    started: Instant,
    target: Target,
}

/// The URLs and credentials for a peer.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) token_url: String,
    pub(crate) api_url: String,
    /// A path of the API that needs no token.
    pub(crate) open_url: String,
    /// Scheme, host and port of the API.
    pub(crate) origin: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) api: Api,
}

/// The part of the system that responds to calls of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// The server, over HTTP/1.1 on loopback.
    Loopback,
    /// The last part of the client's stack, without a socket: 200 if there is a bearer token.
    Canned,
    /// The same, but always with 200.
    CannedOpen,
}

impl Server {
    pub(crate) async fn start(
        api: Api,
        lifetime: Duration,
        token_latency: Duration,
    ) -> Result<Self, BoxError> {
        let started = Instant::now();
        let mock = MockAuthServer::builder()
            .lifetime(lifetime)
            .token_latency(token_latency)
            .start()
            .await?;
        let target = Target {
            token_url: mock.token_url().to_owned(),
            api_url: mock.api_url().to_owned(),
            open_url: format!("{}/upload", mock.origin()),
            origin: mock.origin().to_owned(),
            client_id: mock.client_id().to_owned(),
            client_secret: mock.client_secret().to_owned(),
            api,
        };
        Ok(Self {
            mock,
            started,
            target,
        })
    }

    pub(crate) fn mock(&self) -> &MockAuthServer {
        &self.mock
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the number of token requests and the number of API requests.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.mock.token_requests(), self.mock.api_requests())
    }

    /// Returns the times of the token requests after `start`, in seconds since `start`.
    pub(crate) fn token_requests_since(&self, start: Instant) -> Vec<f64> {
        let start = start.duration_since(self.started);
        let log = self.mock.token_log();
        let after = log.iter().filter_map(|it| it.at().checked_sub(start));
        let mut times: Vec<_> = after.map(|at| rounded(at.as_secs_f64())).collect();
        times.sort_by(f64::total_cmp);
        times
    }
}
