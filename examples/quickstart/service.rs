//! A few polite requests to a service of the user's.

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

/// What the environment names.
pub(crate) struct Service {
    api_url: Url,
    auth: BearerAuthLayer,
    token_requests: Arc<AtomicUsize>,
}

/// A source around another, which counts.
struct Counted<S> {
    inner: S,
    fetches: Arc<AtomicUsize>,
}

impl Service {
    /// `None` if no variable is set. One that is empty counts as not set.
    pub(crate) fn from_env() -> Result<Option<Self>, BoxError> {
        let mut set = BTreeMap::new();
        for name in REQUIRED.into_iter().chain(OPTIONAL) {
            match env::var(name) {
                Ok(value) if value.is_empty() => {}
                Ok(value) => {
                    set.insert(name, value);
                }
                Err(VarError::NotPresent) => {}
                // Without its value, which may be the secret.
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
            return Err(format!("{set} set, but not {missing}: set all of them, or none").into());
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
            return Err("API_URL: plain http would show the token, use https".into());
        }
        let token_requests = Arc::new(AtomicUsize::new(0));
        let cache = TokenCache::new(Counted {
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
        println!("{REQUESTS} GET requests at a time to the API_URL.");
        let client = Client::builder().timeout(Duration::from_secs(30)).build()?;

        report.step("Through reqwest-middleware, no token yet");
        let stack = reqwest_middleware::ClientBuilder::new(client.clone())
            .with(self.auth.clone())
            .build();
        let answers = (0..REQUESTS).map(|_| async {
            let response = stack.get(self.api_url.clone()).send().await?;
            Ok(response.status())
        });
        let answers = join_all(answers).await;
        let token = self.auth.cache().token().await?;
        self.conclude(report, &answers);
        let scope = token.scope().unwrap_or("not named: as asked for");
        report.note("token obtained, expires in", life(&token));
        report.note("scope granted", scope);

        report.step("The same through tower, around a bare reqwest::Client");
        let stack = ServiceBuilder::new()
            .layer(self.auth.clone())
            .service(client);
        let answers = (0..REQUESTS).map(|_| async {
            let request = Request::new(Method::GET, self.api_url.clone());
            let response = stack.clone().oneshot(request).await?;
            Ok(response.status())
        });
        self.conclude(report, &join_all(answers).await);
        Ok(())
    }

    fn conclude(&self, report: &mut Report, answers: &[Result<StatusCode, BoxError>]) {
        let mut counts = BTreeMap::new();
        for answer in answers {
            let text = match answer {
                Ok(status) => format!("answers {status}"),
                Err(error) => format!("no answer: {}", with_causes(&**error)),
            };
            *counts.entry(text).or_insert(0) += 1;
        }
        for (text, count) in counts {
            report.note(&text, count);
        }
        let unanswered = answers.iter().filter(|answer| answer.is_err());
        let refused = answers
            .iter()
            .filter(|answer| matches!(answer, Ok(StatusCode::UNAUTHORIZED)));
        let token_requests = self.token_requests.load(Ordering::Relaxed);
        report.check("requests without an answer", 0, unanswered.count());
        report.check("tokens refused (401)", 0, refused.count());
        report.check("token requests so far", 1, token_requests);
    }
}

#[async_trait]
impl<S: TokenSource> TokenSource for Counted<S> {
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
        _ => Err("CLIENT_AUTHENTICATION is none of post, basic, basic-raw".into()),
    }
}

fn life(token: &AccessToken) -> String {
    let left = token
        .expires_at()
        .map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
    left.map_or("no end".to_owned(), |left| format!("{} s", left.as_secs()))
}
