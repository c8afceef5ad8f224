//! The state that the server and the test share.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use super::record::{ApiLog, TokenLog};
use super::tokens::Tokens;

/// The state shared by the server's thread and the [`MockAuthServer`](super::MockAuthServer).
pub(super) struct State {
    client: Client,
    started: Instant,
    shared: Mutex<Shared>,
}

impl State {
    pub(super) fn new(client: Client, settings: Settings, token_len: usize) -> Self {
        Self {
            client,
            started: Instant::now(),
            shared: Mutex::new(Shared {
                settings,
                planned: VecDeque::new(),
                token_requests: 0,
                api_requests: 0,
                api_unauthorized: 0,
                tokens: Tokens::new(token_len),
                token_log: TokenLog::default(),
                api_log: ApiLog::default(),
            }),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the time from the server's start to `moment`.
    pub(super) fn since_start(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// Locks the shared state. Never hold the lock across an await.
    ///
    /// A poisoned lock is used anyway: every change leaves the state consistent.
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) token_requests: usize,
    pub(super) api_requests: usize,
    pub(super) api_unauthorized: usize,
    pub(super) tokens: Tokens,
    pub(super) token_log: TokenLog,
    pub(super) api_log: ApiLog,
    /// Responses queued for the token endpoint, each with the number of times left to send it.
    planned: VecDeque<(usize, Response<Bytes>)>,
}

impl Shared {
    /// Queues a response for the next `times` token requests.
    pub(super) fn plan(&mut self, times: usize, response: Response<Bytes>) {
        if times > 0 {
            self.planned.push_back((times, response));
        }
    }

    /// Takes the next queued response, if there is one.
    pub(super) fn next_planned(&mut self) -> Option<Response<Bytes>> {
        let (times, response) = self.planned.front_mut()?;
        if *times > 1 {
            *times -= 1;
            return Some(response.clone());
        }
        self.planned.pop_front().map(|(_, response)| response)
    }
}

/// The settings that a test can change at any time.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) lifetime: Duration,
    pub(super) token_latency: Duration,
    pub(super) api_latency: Duration,
    pub(super) outage: bool,
    pub(super) refuse_all: bool,
}

/// The client that the token endpoint accepts.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
    /// HTTP Basic carries the id and secret without form encoding.
    pub(super) raw_basic: bool,
}
