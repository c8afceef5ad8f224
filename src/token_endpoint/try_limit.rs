//! The time limit of one try of a token request.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::iter::successors;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::error::{TokenError, TokenErrorKind};

/// A deadline that the steps of one try share.
#[derive(Clone, Copy)]
pub(crate) struct TryLimit {
    limit: Duration,
    deadline: Instant,
}

impl TryLimit {
    /// Starts a try that may take this long.
    pub(crate) fn start(limit: Duration) -> Self {
        Self {
            limit,
            deadline: Instant::now() + limit,
        }
    }

    /// Runs `step` until the deadline. Returns a typed error on a runtime without timers.
    pub(crate) async fn run<T>(
        self,
        step: impl Future<Output = Result<T, TokenError>>,
    ) -> Result<T, TokenError> {
        // tokio offers no check for timers: creating one panics if they are disabled.
        let step = catch_unwind(AssertUnwindSafe(|| timeout_at(self.deadline, step)))
            .map_err(|_| TokenError::new(TokenErrorKind::NoRuntime, false))?;
        step.await
            .unwrap_or_else(|_| Err(timed_out(NoResponse(self.limit))))
    }
}

/// Returns the error of a try that a time limit ended, which may be tried again whatever it took.
pub(crate) fn timed_out(cause: impl Into<crate::error::BoxError>) -> TokenError {
    TokenError::new(TokenErrorKind::Timeout, true)
        .with_cause(cause)
        .with_retryable_timeout()
}

/// Returns true if the operating system or a connector gave up waiting for the peer.
pub(crate) fn is_io_timeout(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |&error| error.source()).any(|error| {
        error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}

/// The cause of a try that reached its limit.
#[derive(Debug)]
struct NoResponse(Duration);

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no complete response within `try_timeout` ({:?}), which includes the time for credentials",
            self.0
        )
    }
}

impl Error for NoResponse {}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_steps_share_one_deadline() {
        let limit = TryLimit::start(Duration::from_secs(10));
        let sleep = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(())
        };
        let start = Instant::now();
        limit.run(sleep(9)).await.unwrap();
        let error = limit.run(sleep(9)).await.unwrap_err();
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        assert_eq!(error.kind(), TokenErrorKind::Timeout);
        assert!(error.is_transient() && error.is_retryable_timeout());
        assert!(error.source().unwrap().to_string().contains("(10s)"));
    }

    #[test]
    fn without_timers_there_is_an_error_instead_of_a_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let limit = TryLimit::start(Duration::from_secs(10));
        let error = runtime
            .block_on(limit.run(pending::<Result<(), _>>()))
            .unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::NoRuntime);
    }

    #[test]
    fn a_timeout_of_the_operating_system_is_found_in_the_chain() {
        let inner = io::Error::new(io::ErrorKind::TimedOut, "x");
        let outer = TokenError::transient(inner);
        assert!(is_io_timeout(&outer));
        assert!(!is_io_timeout(&io::Error::other("x")));
    }
}
