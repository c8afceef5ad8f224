//! The faults that servers inject.

use std::time::Duration;

/// A server's behaviour towards one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    pub(crate) latency: Duration,
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A regular response.
    Serve,
    /// The connection is closed without a response.
    Close,
    /// 429, with Retry-After or without.
    Throttle(Option<RetryAfter>),
    /// A 5xx.
    Fail(u16),
    /// A 200 without a token.
    Garble(usize),
    /// A redirect with this status.
    Redirect(u16, Detour),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryAfter {
    Seconds(u64),
    /// An HTTP date, this number of seconds after the `Date` of the response, by whatever clock the
    /// server has.
    Date(u64),
}

impl RetryAfter {
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Self::Seconds(seconds) | Self::Date(seconds) => seconds,
        }
    }
}

/// The way that a redirect of the API leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detour {
    /// To the same origin, which judges the token as it is.
    SameOrigin,
    /// To a route of the same origin that answers 401 to every token.
    OtherScheme,
    /// To another origin, which answers 401.
    OtherOrigin,
    /// To another origin and back. The client has dropped the token on the way, so the API answers
    /// 401.
    AndBack,
}

/// The fate of a connection to the token endpoint or the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// The number of requests that it answers before.
    pub(crate) answers: usize,
    pub(crate) end: ConnectionEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    Never,
    /// It stays open, but no request is answered.
    Dead,
    /// It is closed this long after the last response, which did not announce it.
    Closed(Duration),
}
