//! A few requests to the user's own service.

use std::collections::BTreeMap;
use std::env::{self, VarError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, BearerAuthLayer, BoxError, ClientAuthentication, ClientCredentials, TokenCache,
    TokenError, TokenRequest, TokenSource,
};
use futures_util::future::join_all;
use http::Method;
use reqwest::{Client, Request, StatusCode, Url};
use tower::{ServiceBuilder, ServiceExt};

use crate::report::Report;
use crate::with_causes;

const REQUIRED: [&str; 4] = ["TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "API_URL"];
const OPTIONAL: [&str; 2] = ["SCOPE", "CLIENT_AUTHENTICATION"];

const REQUESTS: usize = 20;

/// The service that the environment variables describe.
pub(crate) struct Service {
    api_url: Url,
    auth: BearerAuthLayer,
    token_requests: Arc<AtomicUsize>,
}

/// A source that counts the fetches of another.
struct CountingSource<S> {
    inner: S,
    fetches: Arc<AtomicUsize>,
}

impl Service {
    /// Returns `None` if no variable is set. An empty variable counts as not set.
    pub(crate) fn from_env() -> Result<Option<Self>, BoxError> {
        let mut set = BTreeMap::new();
        for name in REQUIRED.into_iter().chain(OPTIONAL) {
            match env::var(name) {
                Ok(value) if value.is_empty() => {}
                Ok(value) => {
                    set.insert(name, value);
                }
                Err(VarError::NotPresent) => {}
                // The value is not in the text, since it may be the secret.
                Err(VarError::NotUnicode(_)) => return Err(format!("{name} is not UTF-8").into()),
            }
        }
        if set.is_empty() {
            return Ok(None);
        }
        let missing: Vec<_> = REQUIRED
            .into_iter()
            .filter(|name| !set.contains_key(name))
            .collect();
        if !missing.is_empty() {
            let set: Vec<_> = set.into_keys().collect();
            let (set, missing) = (set.join(", "), missing.join(", "));
            return Err(format!("missing: {missing}; set them too, or unset {set}").into());
        }
        let value = |name| set.get(name).map(String::as_str).unwrap_or_default();
        let source = ClientCredentials::builder(value("TOKEN_URL"))
            .client_id(value("CLIENT_ID"))
            .client_secret(value("CLIENT_SECRET"))
            .client_authentication(authentication(value("CLIENT_AUTHENTICATION"))?)
            .scope(value("SCOPE"))
            .build()?;
        Self::new(source, value("API_URL")).map(Some)
    }

    fn new(source: ClientCredentials, api_url: &str) -> Result<Self, BoxError> {
        let api_url = Url::parse(api_url).map_err(|error| format!("API_URL: {error}"))?;
        let loopback = matches!(
            api_url.host_str(),
            Some("localhost" | "127.0.0.1" | "[::1]")
        );
        if api_url.scheme() == "http" && !loopback {
            return Err("API_URL: plain http would expose the token, use https".into());
        }
        let token_requests = Arc::new(AtomicUsize::new(0));
        let cache = TokenCache::new(CountingSource {
            inner: source,
            fetches: Arc::clone(&token_requests),
        });
        let auth = BearerAuthLayer::from_cache(cache)
            .allow_origin(api_url.origin().ascii_serialization())
            .map_err(|error| format!("API_URL: {error}"))?;
        Ok(Self {
            api_url,
            auth,
            token_requests,
        })
    }

    pub(crate) async fn try_out(self, report: &mut Report) -> Result<(), BoxError> {
        println!("Sending {REQUESTS} concurrent GET requests to API_URL in each step.");
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;

        report.step("reqwest-middleware, without a token yet");
        let stack = reqwest_middleware::ClientBuilder::new(client.clone())
            .with(self.auth.clone())
            .build();
        let responses = (0..REQUESTS).map(|_| async {
            let response = stack.get(self.api_url.clone()).send().await?;
            Ok(response.status())
        });
        let responses = join_all(responses).await;
        let token = self.auth.cache().token().await?;
        self.check(report, &responses);
        let scope = token.scope().unwrap_or("not in the response: as requested");
        report.note("lifetime left of the token", lifetime(&token));
        report.note("scope of the token", scope);

        report.step("The same with tower around a reqwest::Client");
        let stack = ServiceBuilder::new()
            .layer(self.auth.clone())
            .service(client);
        let responses = (0..REQUESTS).map(|_| async {
            let request = Request::new(Method::GET, self.api_url.clone());
            let response = stack.clone().oneshot(request).await?;
            Ok(response.status())
        });
        self.check(report, &join_all(responses).await);
        Ok(())
    }

    fn check(&self, report: &mut Report, responses: &[Result<StatusCode, BoxError>]) {
        let mut counts = BTreeMap::new();
        for response in responses {
            let text = match response {
                Ok(status) => format!("responses with {status}"),
                Err(error) => format!("error: {}", with_causes(&**error)),
            };
            *counts.entry(text).or_insert(0) += 1;
        }
        for (text, count) in counts {
            report.note(&text, count);
        }
        let failed = responses.iter().filter(|response| response.is_err());
        let rejected = responses
            .iter()
            .filter(|response| matches!(response, Ok(StatusCode::UNAUTHORIZED)));
        let token_requests = self.token_requests.load(Ordering::Relaxed);
        report.check("requests without a response", 0, failed.count());
        report.check("requests rejected (401)", 0, rejected.count());
        report.check("token requests so far", 1, token_requests);
    }
}

#[async_trait]
impl<S: TokenSource> TokenSource for CountingSource<S> {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.inner.fetch(request).await
    }
}

fn authentication(name: &str) -> Result<ClientAuthentication, BoxError> {
    match name {
        "" | "post" => Ok(ClientAuthentication::SecretPost),
        "basic" => Ok(ClientAuthentication::SecretBasic),
        "basic-raw" => Ok(ClientAuthentication::SecretBasicRaw),
        _ => Err("CLIENT_AUTHENTICATION must be post, basic or basic-raw".into()),
    }
}

fn lifetime(token: &AccessToken) -> String {
    let left = token
        .expires_at()
        .map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
    left.map_or("unlimited".to_owned(), |left| {
        format!("{} s", left.as_secs())
    })
}
