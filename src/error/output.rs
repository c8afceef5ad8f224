//! The texts of [`TokenError`]: for people in `Display`, with all figures in `Debug`.

use std::fmt;
use std::time::Duration;

use super::{Limited, TokenError, TokenErrorKind};

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.details;
        match (details.kind, details.shown_cause(), details.limit) {
            (TokenErrorKind::InvalidToken, Some(cause), _) => write!(f, "{cause}")?,
            (TokenErrorKind::InvalidSetting, Some(cause), _) => {
                write!(f, "invalid setting or request parameter: {cause}")?;
            }
            (TokenErrorKind::Timeout, _, Some(limit)) => {
                let (before, after) = self.limit_text();
                f.write_str(before)?;
                write_limit(f, limit)?;
                f.write_str(after)?;
            }
            (kind, ..) => f.write_str(kind.text(details.transient))?,
        }
        match (details.status, &details.oauth_error) {
            (Some(status), Some(code)) => write!(f, " ({code}, HTTP {})", status.as_u16())?,
            (Some(status), None) => write!(f, " (HTTP {})", status.as_u16())?,
            (None, Some(code)) => write!(f, " ({code})")?,
            (None, None) => {}
        }
        match (self.retry_after, details.transient) {
            (Some(Duration::ZERO), true) => f.write_str("; it may be retried now"),
            (Some(_), true) => f.write_str("; it may be retried after a pause, see `retry_after`"),
            (Some(Duration::ZERO), false) => {
                f.write_str("; a retry fails until the cause is fixed")
            }
            (Some(_), false) => f.write_str(
                "; a retry fails until the cause is fixed, and the source is called again only \
                 after a pause, see `retry_after`",
            ),
            (None, _) => Ok(()),
        }
    }
}

impl TokenError {
    /// Returns the texts before and after the time limit that was reached.
    fn limit_text(&self) -> (&'static str, &'static str) {
        const QUEUED: &str =
            ": raise `max_concurrent_fetches`, or wait until fewer are in progress";

        match self.details.limited {
            Limited::Fetch => (
                "the token endpoint did not answer within ",
                ": check that it is reachable, or raise `fetch_timeout`",
            ),
            Limited::Wait => (
                "the fetch was still in progress after ",
                ": check that the token endpoint is reachable, or raise `wait_timeout`",
            ),
            Limited::Queue if self.is_unsent() => ("the fetch was still queued after ", QUEUED),
            Limited::Queue => ("the fetch was queued for most of ", QUEUED),
        }
    }
}

/// Writes whole seconds as `30 s`, and anything else in milliseconds, rounded up.
fn write_limit(f: &mut fmt::Formatter<'_>, limit: Duration) -> fmt::Result {
    if limit.subsec_nanos() == 0 {
        write!(f, "{} s", limit.as_secs())
    } else {
        write!(f, "{} ms", limit.as_nanos().div_ceil(1_000_000))
    }
}

impl fmt::Debug for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenError")
            .field("kind", &self.details.kind)
            .field("transient", &self.details.transient)
            .field("limit", &self.details.limit)
            .field("status", &self.details.status)
            .field("oauth_error", &self.details.oauth_error)
            .field("retry_after", &self.retry_after)
            .field("is_paused", &self.is_paused)
            .field("token_request", &self.details.token_request)
            .field("token_endpoint", &self.details.token_endpoint)
            .field("cause", &self.details.cause)
            .finish_non_exhaustive()
    }
}
