//! The names of values in log lines and metrics.

use crate::error::TokenErrorKind;
use crate::observe::{
    FetchOutcome, NoTokenReason, RejectionOutcome, ReplayObstacle, ReplayOutcome, StoreFault,
    WaitOutcome,
};
use crate::source::context::FetchReason;

macro_rules! names {
    ($($type:ty { $($variant:pat => $name:literal),* $(,)? })*) => {
        $(impl $type {
            /// Returns the name in log lines and metrics.
            pub fn as_str(&self) -> &'static str {
                match self {
                    $($variant => $name),*
                }
            }
        })*
    };
}

names! {
    FetchReason {
        Self::First => "first",
        Self::Due => "due",
        Self::Late => "late",
        Self::Expired => "expired",
        Self::Rejected => "rejected",
        Self::Invalidated => "invalidated",
    }
    TokenErrorKind {
        Self::Connection => "connection",
        Self::Timeout => "timeout",
        Self::Throttled => "throttled",
        Self::Unavailable => "unavailable",
        Self::InvalidResponse => "invalid_response",
        Self::InvalidClient => "invalid_client",
        Self::InvalidScope => "invalid_scope",
        Self::Refused => "refused",
        Self::Redirected => "redirected",
        Self::Discovery => "discovery",
        Self::Source => "source",
        Self::SourcePanicked => "source_panicked",
        Self::InvalidToken => "invalid_token",
        Self::InvalidSetting => "invalid_setting",
        Self::NoRuntime => "no_runtime",
        Self::Closed => "closed",
        Self::FetchCycle => "fetch_cycle",
        Self::CredentialFile => "credential_file",
            Self::LoginRequired => "login_required",
        Self::RequestAuthMissing => "request_auth_missing",
    }
    FetchOutcome<'_> {
        Self::Token => "token",
        Self::Failed(_) => "failed",
        Self::Discarded => "discarded",
        Self::Abandoned => "abandoned",
    }
    WaitOutcome<'_> {
        Self::Token => "token",
        Self::Failed(_) => "failed",
        Self::Cancelled => "cancelled",
    }
    RejectionOutcome {
        Self::Effective => "effective",
        Self::Superseded => "superseded",
        Self::Spaced => "spaced",
    }
    ReplayOutcome {
        Self::Accepted => "accepted",
        Self::Refused => "refused",
        Self::Failed => "failed",
        Self::NotPossible(_) => "not_possible",
        Self::Cancelled => "cancelled",
    }
    ReplayObstacle {
        Self::Disabled => "disabled",
        Self::Body => "body",
        Self::Redirected => "redirected",
        Self::NoToken => "no_token",
        Self::SameToken => "same_token",
        Self::NotReady => "not_ready",
    }
    StoreFault {
        Self::Failing => "failing",
        Self::UnknownKey => "unknown_key",
    }
    NoTokenReason {
        Self::OriginNotAllowed => "origin_not_allowed",
        Self::HeaderIsSet => "header_is_set",
        Self::Skipped => "skipped",
        Self::TooManyHeaders => "too_many_headers",
    }
}
