//! The server, and its control requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, ClientCredentials, TokenCache};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::servers::installation::Installation;
use crate::servers::process::Process;

static INSTALLATION: Installation = Installation::of("oauth2-mock-server");

/// After a failed flight. Longer than the default, so that even on a busy machine the call that is to
/// be within it is.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(1_500);

/// An authorization server and a protected resource of its own, which end when this is dropped.
pub(crate) struct Server {
    token_url: String,
    api_url: String,
    control_url: String,
    client: reqwest::Client,
    cases: AtomicUsize,
    _process: Process,
}

/// A client of the server's that no other test uses: what is forced is for this one alone, and so
/// are the counters.
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

/// What the server counted for one client. Control requests are not in it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) token_requests: usize,
    /// Those with HTTP Basic client authentication.
    pub(crate) token_requests_basic: usize,
    pub(crate) api_requests: usize,
    pub(crate) api_unauthorized: usize,
}

impl Server {
    /// Starts one; `None` if these tests are to be skipped.
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

    /// Replaces the key that tokens are signed with: the API honours none that was given so far.
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
    /// A layer of its own, with an empty cache and a scope to ask for.
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

    /// Where the API counts for this client.
    pub(crate) fn url(&self) -> String {
        format!("{}/{}/transactions", self.server.api_url, self.id)
    }

    /// Forces the answers to token requests, as the server's README says.
    pub(crate) async fn force(&self, answer: &Value) {
        self.server
            .post(&format!("force/{}", self.id), answer)
            .await;
    }

    /// Forces answers for the next few token requests only.
    pub(crate) async fn force_times(&self, times: usize, answer: &Value) {
        let mut answer = answer.clone();
        answer["times"] = json!(times);
        self.force(&answer).await;
    }

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
