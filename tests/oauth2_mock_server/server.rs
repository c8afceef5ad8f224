//! The server and its control requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, ClientCredentials, TokenCache};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::node::installation::Installation;
use crate::support::node::process::Process;

static INSTALLATION: Installation = Installation::new("oauth2-mock-server");

/// The pause after a failed fetch. It is longer than the default, so that on a busy machine too the
/// next call is within it.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(1_500);

/// An authorization server and a protected API, which are stopped when this is dropped.
pub(crate) struct Server {
    token_url: String,
    api_url: String,
    control_url: String,
    client: reqwest::Client,
    cases: AtomicUsize,
    _process: Process,
}

/// A client of the server that no other test uses, with forced responses and counters of its own.
pub(crate) struct Case<'a> {
    server: &'a Server,
    pub(crate) id: String,
}

/// The line that the server prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    token_url: String,
    api_url: String,
    control_url: String,
}

/// The server's counters for one client, without control requests.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) token_requests: usize,
    /// Token requests with HTTP Basic client authentication.
    pub(crate) token_requests_basic: usize,
    pub(crate) api_requests: usize,
    pub(crate) api_unauthorized: usize,
}

impl Server {
    /// Starts a server, or returns `None` if these tests must be skipped.
    pub(crate) async fn start() -> Option<Self> {
        let (process, ready) = Process::start(&INSTALLATION).await?;
        let Ready {
            token_url,
            api_url,
            control_url,
        } = ready;
        Some(Self {
            token_url,
            api_url,
            control_url,
            client: reqwest::Client::new(),
            cases: AtomicUsize::new(0),
            _process: process,
        })
    }

    pub(crate) fn case(&self) -> Case<'_> {
        let number = self.cases.fetch_add(1, Ordering::Relaxed);
        Case {
            server: self,
            id: format!("client-{number}"),
        }
    }

    /// Replaces the key that tokens are signed with, so that the API rejects all earlier ones.
    pub(crate) async fn rotate_key(&self) {
        self.post("rotate-key", &Value::Null).await;
    }

    async fn post(&self, action: &str, body: &Value) {
        let request = self.client.post(format!("{}/{action}", self.control_url));
        let response = request.json(body).send().await.unwrap();
        response.error_for_status().unwrap();
    }
}

impl Case<'_> {
    /// Returns a new layer with an empty cache and a scope to request.
    pub(crate) fn layer(&self) -> BearerAuthLayer {
        let source = ClientCredentials::builder(&self.server.token_url)
            .client_id(&self.id)
            .client_secret("secret")
            .scope("tenant/42 tenant/7")
            .build()
            .unwrap();
        let cache = TokenCache::builder(source)
            .first_pause(FIRST_PAUSE)
            .build()
            .unwrap();
        BearerAuthLayer::from_cache(cache)
            .allow_origin(&self.server.api_url)
            .unwrap()
    }

    /// Returns a URL of the API that is counted for this client.
    pub(crate) fn url(&self) -> String {
        format!("{}/{}/transactions", self.server.api_url, self.id)
    }

    /// Forces the responses to token requests, as the server's README describes.
    pub(crate) async fn force(&self, response: &Value) {
        let action = format!("force/{}", self.id);
        self.server.post(&action, response).await;
    }

    /// Forces the responses to the next few token requests only.
    pub(crate) async fn force_times(&self, times: usize, response: &Value) {
        let mut response = response.clone();
        response["times"] = json!(times);
        self.force(&response).await;
    }

    /// Stops forcing responses.
    pub(crate) async fn release(&self) {
        let action = format!("release/{}", self.id);
        self.server.post(&action, &Value::Null).await;
    }

    pub(crate) async fn counters(&self) -> Counters {
        let url = format!("{}/stats/{}", self.server.control_url, self.id);
        let response = self.server.client.get(url).send().await.unwrap();
        response.json().await.unwrap()
    }
}
