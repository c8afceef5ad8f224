//! The inputs and results of the state machine.

use std::time::Duration;

use crate::cache::lifespan::Lifespan;
use crate::cache::state::RejectionId;
use crate::clock::Moment;
use crate::error::TokenError;
use crate::token::AccessToken;

/// The number of a fetch. Later fetches have higher numbers.
///
/// At most one fetch is in progress at a time; it ends with `complete`, `fail` or `abandon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FetchId(pub(super) u64);

/// The token that is served until it expires.
#[derive(Clone, Debug)]
pub(crate) struct CurrentToken {
    /// The token as the source returned it.
    pub(crate) token: AccessToken,
    /// Identifies the token's value: fetching the same value again keeps it.
    pub(crate) generation: u64,
    /// The fetch that returned the token.
    pub(crate) fetch: FetchId,
    pub(crate) lifespan: Lifespan,
    /// The time just before the source was called.
    pub(crate) requested: Moment,
}

/// A token that a source returned.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) token: AccessToken,
    /// Differs from the generation of every other token in the process.
    pub(crate) generation: u64,
    /// The time just before the source was called.
    pub(crate) started: Moment,
    /// Between 0 and 1.
    pub(crate) jitter: f64,
}

/// The next step of a caller that needs a token.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Use the current token.
    Use,
    /// Use the current token and start this fetch in the background, after `delay`.
    Refresh { fetch: FetchId, delay: Duration },
    /// Start this fetch after `delay` and wait for it.
    Fetch { fetch: FetchId, delay: Duration },
    /// Wait for the fetch in progress.
    Wait,
    /// Start this fetch at once and wait for it, for at most `LATE_WAIT`. Then use the current
    /// token.
    FetchLate { fetch: FetchId },
    /// Wait for the fetch in progress, for at most this long. Then use the current token.
    WaitLate { limit: Duration },
    /// Fail: there is no token, and the source must not be called yet.
    Fail(TokenError),
}

/// The outcome of a fetch that returned a token.
#[derive(Debug)]
pub(crate) enum Completed {
    /// The callers that waited get the [current](crate::cache::state::State::current) token.
    Stored,
    /// The token was rejected in the meantime: they decide again.
    Discarded,
    /// The token is of no use: they get this error.
    Failed(TokenError),
}

/// The meaning of a response that rejects a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The token is invalid (`invalid_token`, RFC 6750 §3.1): no request uses it again.
    Invalid,
    /// The request was refused for a reason that may not concern other requests, which use the
    /// token until its successor arrives.
    Refused,
}

/// A change in what is known of new tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewTokens {
    /// So many were rejected in a row that the spacing of rejections has reached its end.
    Rejected,
    /// One was accepted after that.
    Accepted,
}

/// The effect of a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Another token is needed. The caller reports what becomes of its replay under this id.
    Effective(RejectionId),
    /// Another token is there or needed, which no rejection has to be counted for.
    Superseded,
    /// The last rejection was too recent: the token stays current.
    Spaced,
}
