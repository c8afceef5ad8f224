//! The records of the server.

use std::time::Duration;

use crate::plan::TENANTS;

/// An issued token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(super) value: String,
    pub(crate) tenant: usize,
    /// The number of the try that got it.
    pub(crate) number: usize,
    /// The arrival of the token request.
    pub(crate) issued: Duration,
    pub(crate) lifetime: Duration,
    /// The time from the arrival to the response.
    pub(crate) latency: Duration,
    pub(crate) revoked: Option<Duration>,
    /// The number of requests that were answered 200.
    pub(super) accepted: usize,
}

/// One request to the token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct TokenRecord {
    pub(crate) tenant: usize,
    /// The number that the source gave the try.
    pub(crate) number: usize,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was no response before the client's time limit, or none at all.
    Unanswered,
    /// The same, because the connection was dead.
    Dead,
    Issued,
    /// A failure that may be retried at once.
    Transient,
    /// A response with this `Retry-After`, in seconds.
    RetryAfter(u64),
    /// The secret was wrong.
    InvalidClient,
}

/// One request to the API, with the redirects that its client followed.
#[derive(Clone, Debug)]
pub(crate) struct ApiRecord {
    pub(crate) call: usize,
    /// The tenant in the path.
    pub(crate) tenant: usize,
    /// The index of the token, or `None` for a value that the server did not issue.
    pub(crate) token: Option<usize>,
    pub(crate) is_safe: bool,
    pub(crate) sent: Duration,
    pub(crate) received: Duration,
    pub(crate) is_redirected: bool,
    /// The last response, if there was one.
    pub(crate) response: Option<ApiResponse>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiResponse {
    pub(crate) at: Duration,
    pub(crate) status: u16,
    /// It came from another origin.
    pub(crate) is_foreign: bool,
    /// It said `invalid_token`.
    pub(crate) is_invalid_token: bool,
}

/// A request that followed a redirect.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    /// The index of the request that was redirected.
    pub(crate) request: usize,
    /// It went to another origin, or came from there.
    pub(crate) is_foreign: bool,
    pub(crate) has_authorization: bool,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) tokens: Vec<Token>,
    pub(crate) token_requests: Vec<TokenRecord>,
    pub(crate) api_requests: Vec<ApiRecord>,
    pub(crate) hops: Vec<Hop>,
    /// The number of responses with a `Retry-After` as a date by a wrong clock.
    pub(crate) wrong_dates: usize,
    /// The number of the plan's revocations that have been applied.
    pub(super) revocations: usize,
    /// The number of tokens by tenant that will be revoked as soon as they are issued.
    pub(super) revoked_in_advance: [usize; TENANTS],
    pub(super) requests_of: [usize; TENANTS],
    pub(super) connections: usize,
}

impl ApiRecord {
    /// Returns true if the response rejects the token.
    pub(crate) fn was_rejected(&self) -> bool {
        self.response
            .is_some_and(|it| it.status == 401 && !it.is_foreign)
    }

    /// Returns true if the response rejects the token for all other requests, too.
    pub(crate) fn was_invalid_token(&self) -> bool {
        self.was_rejected() && self.response.is_some_and(|it| it.is_invalid_token)
    }

    pub(crate) fn responded_at(&self) -> Option<Duration> {
        self.response.map(|it| it.at)
    }

    /// Returns the latency of the network.
    pub(crate) fn delay(&self) -> Duration {
        self.received.saturating_sub(self.sent)
    }
}
