//! The events that observers get.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::error::TokenError;
use crate::policy::origin::{Target, default_port};
use crate::source::context::FetchReason;
use crate::token::request::TokenRequest;

/// Something that happened to a token or to a request. It contains no secret.
///
/// Every fetch is [`FetchQueued`](Self::FetchQueued), then either
/// [`FetchDropped`](Self::FetchDropped) or [`FetchStarted`](Self::FetchStarted), once per attempt,
/// and [`FetchFinished`](Self::FetchFinished). Every [`PauseBegan`](Self::PauseBegan) is followed
/// by a [`PauseEnded`](Self::PauseEnded), unless the cache is dropped before.
///
/// A request with a fresh token causes no event.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A fetch was decided on. It waits until
    /// [`max_concurrent_fetches`](crate::TokenCacheBuilder::max_concurrent_fetches) allows it.
    #[non_exhaustive]
    FetchQueued {
        /// The token that is to be fetched.
        token_request: &'a TokenRequest,
        /// The reason for the fetch.
        reason: FetchReason,
    },
    /// A queued fetch was dropped before the source was called: no caller was left, its runtime has
    /// ended, its token was [forgotten](crate::TokenCache::forget), or the cache was closed.
    #[non_exhaustive]
    FetchDropped {
        /// The token that was to be fetched.
        token_request: &'a TokenRequest,
        /// The reason for the fetch.
        reason: FetchReason,
    },
    /// The source is called.
    #[non_exhaustive]
    FetchStarted {
        /// The token that is fetched.
        token_request: &'a TokenRequest,
        /// The reason for the fetch.
        reason: FetchReason,
        /// The number of the call within this fetch, from 1.
        attempt: u32,
    },
    /// A fetch has ended, after its last attempt. The cache has stored the outcome, but the callers
    /// that wait do not have it yet.
    #[non_exhaustive]
    FetchFinished {
        /// The token that was fetched.
        token_request: &'a TokenRequest,
        /// The reason for the fetch.
        reason: FetchReason,
        /// The outcome.
        outcome: FetchOutcome<'a>,
        /// The time since the first attempt started.
        duration: Duration,
        /// The time until the new token expires; `None` if it never does, or if there is none.
        life: Option<Duration>,
        /// The number of fetches that failed in a row, including this one. If this one returned a
        /// token, the number of those before it: more than 0 means a recovery.
        failures: u32,
        /// True if this failure is permanent, and the one before it was transient: the outage has
        /// turned into one that waiting does not end.
        has_become_permanent: bool,
    },
    /// A fetch failed, and the source is not called again for this token before the pause ends.
    #[non_exhaustive]
    PauseBegan {
        /// The token that could not be fetched.
        token_request: &'a TokenRequest,
        /// The failure.
        error: &'a TokenError,
        /// The length of the pause.
        duration: Duration,
    },
    /// A pause has ended. The next caller that needs a token starts a fetch.
    #[non_exhaustive]
    PauseEnded {
        /// The token that could not be fetched.
        token_request: &'a TokenRequest,
    },
    /// A caller that had to wait for a token waits no longer.
    #[non_exhaustive]
    WaitEnded {
        /// The token that the caller needs.
        token_request: &'a TokenRequest,
        /// The outcome.
        outcome: WaitOutcome<'a>,
        /// The time that the caller waited.
        duration: Duration,
    },
    /// A response rejected the token of its request.
    #[non_exhaustive]
    TokenRejected {
        /// The token that was rejected.
        token_request: &'a TokenRequest,
        /// The effect of the rejection.
        outcome: RejectionOutcome,
        /// The response.
        response: RejectingResponse<'a>,
    },
    /// Several new tokens were rejected in a row, so that only one in 10 s is fetched because of a
    /// rejection. Not repeated before [`NewTokensAccepted`](Self::NewTokensAccepted).
    #[non_exhaustive]
    NewTokensRejected {
        /// The tokens.
        token_request: &'a TokenRequest,
        /// The last response that rejected one.
        response: RejectingResponse<'a>,
    },
    /// A token was accepted after [`NewTokensRejected`](Self::NewTokensRejected). If the API had
    /// accepted some requests all the time, the response to a replay decides.
    #[non_exhaustive]
    NewTokensAccepted {
        /// The token.
        token_request: &'a TokenRequest,
    },
    /// The replay of a request whose token was rejected has ended, or none was possible.
    #[non_exhaustive]
    ReplayFinished {
        /// The token that was rejected.
        token_request: &'a TokenRequest,
        /// The outcome.
        outcome: ReplayOutcome,
    },
    /// A request passes through without a token from the cache.
    #[non_exhaustive]
    SentWithoutToken {
        /// The reason.
        reason: NoTokenReason,
        /// The origin that the request goes to.
        origin: RequestOrigin<'a>,
        /// True if an earlier request of the same layer was seen to go to an allowed origin.
        ///
        /// Requests that got a fresh token are not seen, so this can be false in a layer whose
        /// cache already had its token.
        has_matched: bool,
    },
    /// The wall clock was set by 5 s or more since the last fetch, which notices it. It also steps
    /// forward when the machine was suspended.
    ///
    /// It does not extend the life of a token. But a signed assertion from a clock that is wrong is
    /// expired or not yet valid for the token endpoint.
    #[non_exhaustive]
    ClockStepped {
        /// The step.
        step: ClockStep,
    },
    /// The store of a `SharedTokenSource` (feature `fleet`) cannot be used: this process fetches
    /// tokens for itself, as without a store.
    ///
    /// Fetches notice it, so each cache gets the event with its first fetch during the fault.
    #[non_exhaustive]
    StoreUnavailable {
        /// The fault.
        fault: StoreFault,
        /// The last error of the store. It contains no secret, unless a store of your own puts one
        /// there.
        error: Option<&'a (dyn Error + Send + Sync + 'static)>,
    },
    /// The store can be used again. Follows each
    /// [`StoreUnavailable`](Self::StoreUnavailable) with the same fault, once a fetch has noticed.
    #[non_exhaustive]
    StoreAvailable {
        /// The fault that has ended.
        fault: StoreFault,
    },
    /// The metadata of an issuer could not be refreshed, see `ClientCredentials::discover`: the
    /// token endpoint that is known stays in use, and the next try is an hour later.
    ///
    /// It is noticed by a fetch, so each cache gets the event with its first fetch since. Metadata
    /// that was never obtained is an error of the fetch instead.
    #[non_exhaustive]
    MetadataNotRefreshed {
        /// The issuer, as it is configured.
        issuer: &'a str,
        /// The reason.
        error: &'a TokenError,
    },
    /// The metadata of an issuer was refreshed again. Follows each
    /// [`MetadataNotRefreshed`](Self::MetadataNotRefreshed), once a fetch has noticed.
    #[non_exhaustive]
    MetadataRefreshed {
        /// The issuer, as it is configured.
        issuer: &'a str,
    },
    /// The cache has an entry for another token. The default token request has no event: its entry
    /// is there from the beginning.
    #[non_exhaustive]
    EntryAdded {
        /// The token of the entry.
        token_request: &'a TokenRequest,
        /// The number of entries, not counting the default one.
        entries: usize,
    },
    /// An entry was evicted to keep within
    /// [`max_entries`](crate::TokenCacheBuilder::max_entries), or by
    /// [`TokenCache::forget`](crate::TokenCache::forget).
    #[non_exhaustive]
    EntryEvicted {
        /// The token of the entry.
        token_request: &'a TokenRequest,
        /// The number of entries, not counting the default one.
        entries: usize,
    },
}

/// A response that rejects a token, without anything that could be a secret.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RejectingResponse<'a> {
    /// The status, such as 401. A gRPC response may have 200.
    pub status: StatusCode,
    /// The origin that the request went to: `(none)` if it is not known, as for a path without
    /// [`assume_origin`](crate::BearerAuthLayer::assume_origin), or for a body that cannot be
    /// replayed in a tower stack without [`allow_origin`](crate::BearerAuthLayer::allow_origin).
    pub origin: RequestOrigin<'a>,
    /// The error code of the challenge (RFC 6750 §3.1), such as `invalid_token` or one of the
    /// vendor's own, if it is 1 to 64 of `[A-Za-z0-9_.-]`. That of a Bearer challenge comes first.
    pub challenge_error: Option<&'a str>,
}

/// A step of the wall clock, compared with the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockStep {
    /// The clock was set forward, or the machine was suspended for that long.
    Forward(Duration),
    /// The clock was set back.
    Back(Duration),
}

/// The reason why the store of a fleet cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreFault {
    /// Several reads, leases or writes in a row failed or took too long. If the store can be read,
    /// its tokens are still used.
    Failing,
    /// Records are sealed with a key that this process does not have, or were written by a later
    /// version of this crate. Tokens whose records can be opened are still shared.
    UnknownKey,
}

/// The outcome of a fetch.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum FetchOutcome<'a> {
    /// The source returned a token.
    Token,
    /// The fetch failed.
    Failed(&'a TokenError),
    /// The source returned a token that an API has rejected in the meantime. It is not used.
    Discarded,
    /// The fetch was ended through no fault of the source: its runtime has ended or was not polled,
    /// its token was [forgotten](crate::TokenCache::forget), or the cache was closed or dropped.
    Abandoned,
}

/// The outcome of a wait for a token.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum WaitOutcome<'a> {
    /// The caller got a token.
    Token,
    /// The caller got an error.
    Failed(&'a TokenError),
    /// The caller was dropped.
    Cancelled,
}

/// The effect of a response that rejects a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionOutcome {
    /// Another token is fetched.
    Effective,
    /// Another token is there or on its way already.
    Superseded,
    /// The last rejection was too recent: the token stays in use, and the caller gets the response.
    Spaced,
}

/// The outcome of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayOutcome {
    /// The response to the replay does not reject the new token.
    Accepted,
    /// The response to the replay rejects the new token, too. The caller gets that response.
    Refused,
    /// The replay was sent, and failed with an error of the inner service.
    Failed,
    /// The request was not sent again: the caller gets the response that rejects the token.
    NotPossible(ReplayObstacle),
    /// The caller dropped the request before there was a response to the replay.
    Cancelled,
}

/// The reason why a request is not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplayObstacle {
    /// The layer, the request or its task disables replays.
    Disabled,
    /// The body cannot be sent twice. See
    /// [`replay_body`](crate::BearerAuthLayer::replay_body).
    Body,
    /// The request was redirected, and its method is not safe.
    Redirected,
    /// The refresh failed or is paused. The error is in the response's extensions.
    NoToken,
    /// The source returned the rejected token again.
    SameToken,
    /// The inner service did not become ready, or shed the replay.
    NotReady,
}

/// The reason why a request got no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoTokenReason {
    /// The token may not go to the origin of the request. See
    /// [`allow_origin`](crate::BearerAuthLayer::allow_origin).
    OriginNotAllowed,
    /// The request already had an `Authorization` header.
    HeaderIsSet,
    /// The request or its task chose [`RequestAuth::skip`](crate::RequestAuth::skip).
    Skipped,
    /// The request has as many headers as its map can hold.
    TooManyHeaders,
}

/// The origin that a request goes to: scheme, host and port, without userinfo, path and query.
///
/// `Display` writes `https://api.example.com`, with the port if it is not the scheme's default, and
/// `(none)` if the request's URI has no origin or none of http.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestOrigin<'a>(pub(crate) Target<'a>);

impl fmt::Display for RequestOrigin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.parsed() {
            Target::Origin { https, host, port } => {
                let scheme = if https { "https" } else { "http" };
                write!(f, "{scheme}://{host}")?;
                match port == default_port(https) {
                    true => Ok(()),
                    false => write!(f, ":{port}"),
                }
            }
            Target::Unparsed { .. } | Target::PathOnly | Target::Other => f.write_str("(none)"),
        }
    }
}

impl fmt::Debug for RequestOrigin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    fn origin(uri: &'static str) -> String {
        RequestOrigin(Target::of_uri(&Uri::from_static(uri))).to_string()
    }

    #[test]
    fn an_origin_has_neither_userinfo_nor_path_nor_query() {
        let cases = [
            (
                "https://user:s3cret@a.example/s3cret?s3cret",
                "https://a.example",
            ),
            ("https://a.example:443/", "https://a.example"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("/path", "(none)"),
            ("a.example:80", "(none)"),
        ];
        for (uri, expected) in cases {
            assert_eq!(origin(uri), expected, "{uri}");
        }
    }
}
