//! The source behind the callers, which records each of its tries.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bearer_auth::{AccessToken, ClientCredentials, TokenError, TokenRequest, TokenSource};
use tokio::runtime::{self, Handle};
use tokio::task;

use crate::plan::Plan;
use crate::{TRY_TIMEOUT, now};

/// One try of a fetch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// The task of the fetch: all its tries have the same.
    pub(crate) fetch: task::Id,
    /// Runs on a runtime that is polled only while a caller is there.
    pub(crate) is_undriven: bool,
    pub(crate) tenant: usize,
    pub(crate) started: Duration,
    /// `None` if it was still running when the test ended.
    pub(crate) ended: Option<Duration>,
    pub(crate) end: AttemptEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// By the time limit of the fetch, or with its runtime.
    Dropped,
    Token,
    Error,
}

/// The tries in the order of their numbers.
pub(super) type Attempts = Arc<Mutex<Vec<Attempt>>>;

pub(super) fn take(attempts: &Attempts) -> Vec<Attempt> {
    std::mem::take(&mut *attempts.lock().unwrap())
}

/// A source that gets each new secret some time after the server requires it, and numbers its
/// tries.
pub(super) struct Rotating {
    plan: Arc<Plan>,
    secrets: Vec<ClientCredentials>,
    attempts: Attempts,
    main_runtime: runtime::Id,
}

impl Rotating {
    pub(super) fn new(plan: &Arc<Plan>, endpoint: SocketAddr, attempts: &Attempts) -> Self {
        let secret = |nth| {
            ClientCredentials::builder(format!("http://{endpoint}/token"))
                .client_id("chaos")
                .client_secret(format!("s3cret-{nth}"))
                .try_timeout(TRY_TIMEOUT)
                .build()
                .unwrap()
        };
        Self {
            plan: Arc::clone(plan),
            secrets: (0..=plan.rotations.len()).map(secret).collect(),
            attempts: Arc::clone(attempts),
            main_runtime: Handle::current().id(),
        }
    }
}

/// Records the end of a try, also if it is dropped.
struct Ending<'a> {
    attempts: &'a Mutex<Vec<Attempt>>,
    number: usize,
    end: AttemptEnd,
}

#[async_trait]
impl TokenSource for Rotating {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let tenant = request.scopes().unwrap().strip_prefix("tenant/").unwrap();
        let number = {
            let mut attempts = self.attempts.lock().unwrap();
            attempts.push(Attempt {
                fetch: task::id(),
                is_undriven: Handle::current().id() != self.main_runtime,
                tenant: tenant.parse().unwrap(),
                started: now(),
                ended: None,
                end: AttemptEnd::Dropped,
            });
            attempts.len() - 1
        };
        let mut ending = Ending {
            attempts: &self.attempts,
            number,
            end: AttemptEnd::Dropped,
        };
        let request = request.clone().with_param("number", number.to_string());
        let secret = &self.secrets[self.plan.secret_known(now())];
        let result = secret.fetch(&request).await;
        ending.end = match result {
            Ok(_) => AttemptEnd::Token,
            Err(_) => AttemptEnd::Error,
        };
        result
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Ok(mut attempts) = self.attempts.lock() {
            let attempt = &mut attempts[self.number];
            (attempt.ended, attempt.end) = (Some(now()), self.end);
        }
    }
}
