//! What the server and the test share.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;

use super::record::{ApiLog, TokenLog};
use super::tokens::Tokens;

/// What the server's thread and the test share.
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

    /// The offset of `moment` from the server's start.
    pub(super) fn since_start(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.started)
    }

    /// Held for a look-up or a note, never across an await. Nothing panics under it; if something
    /// did, what it guards would still be whole.
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
    /// Answers of the token endpoint that a test asked for, each with how often it is still due.
    planned: VecDeque<(usize, Response<Bytes>)>,
}

impl Shared {
    pub(super) fn plan(&mut self, times: usize, response: Response<Bytes>) {
        if times > 0 {
            self.planned.push_back((times, response));
        }
    }

    pub(super) fn next_planned(&mut self) -> Option<Response<Bytes>> {
        let (times, response) = self.planned.front_mut()?;
        if *times > 1 {
            *times -= 1;
            return Some(response.clone());
        }
        self.planned.pop_front().map(|(_, response)| response)
    }
}

/// What a test may change at any time.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) lifetime: Duration,
    pub(super) token_latency: Duration,
    pub(super) api_latency: Duration,
    pub(super) outage: bool,
    pub(super) refuse_all: bool,
}

#[derive(Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
    /// HTTP Basic carries both without the form encoding.
    pub(super) raw_basic: bool,
}
