//! The tokio runtime of a caller.

use std::future::{Future, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Handle;
use tokio::time::{Instant, Timeout, timeout_at};

use crate::error::{TokenError, TokenErrorKind};

/// Returns the caller's runtime, or an error if there is none or it has no timers.
pub(crate) fn current() -> Result<Handle, TokenError> {
    let handle = Handle::try_current().map_err(|error| no_runtime().with_cause(error))?;
    drop(within(Instant::now(), ready(()))?);
    Ok(handle)
}

/// Limits `future` to end by `deadline`. Returns an error on a runtime without timers.
pub(crate) fn within<F: Future>(deadline: Instant, future: F) -> Result<Timeout<F>, TokenError> {
    // tokio offers no check for timers: creating one panics if they are disabled.
    catch_unwind(AssertUnwindSafe(|| timeout_at(deadline, future))).map_err(|_| no_runtime())
}

fn no_runtime() -> TokenError {
    TokenError::new(TokenErrorKind::NoRuntime, false)
}
