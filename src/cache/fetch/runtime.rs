//! The tokio runtime that fetches and waiting callers use.

use std::cell::Cell;
use std::future::{Future, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Timeout, timeout_at};

use crate::error::{TokenError, TokenErrorKind};

/// The runtimes without timers that were met. Each costs one panic, so it is remembered.
static WITHOUT_TIMERS: Mutex<Vec<Id>> = Mutex::new(Vec::new());
/// The list is not empty: it need not be locked before.
static ANY_WITHOUT_TIMERS: AtomicBool = AtomicBool::new(false);
/// A program with more of them gets more panics rather than a longer list.
const MAX_REMEMBERED: usize = 64;

thread_local! {
    /// The last runtime of this thread that was found to have timers. The check takes longer than
    /// all else that a caller does before it waits.
    static WITH_TIMERS: Cell<Option<Id>> = const { Cell::new(None) };
}

/// Returns the caller's runtime, or an error if there is none or it has no timers.
pub(crate) fn current() -> Result<Handle, TokenError> {
    let handle = Handle::try_current().map_err(|error| no_runtime().with_cause(error))?;
    let id = Some(handle.id());
    if WITH_TIMERS.get() == id {
        Ok(handle)
    } else if has_timers(&handle) {
        WITH_TIMERS.set(id);
        Ok(handle)
    } else {
        Err(no_runtime())
    }
}

/// Returns true if the runtime has timers.
pub(crate) fn has_timers(handle: &Handle) -> bool {
    let _context = handle.enter();
    within(Instant::now(), ready(())).is_ok()
}

/// Limits `future` to end by `deadline`. Returns an error on a runtime without timers.
///
/// The caller is in the context of the runtime whose timer is used.
pub(crate) fn within<F: Future>(deadline: Instant, future: F) -> Result<Timeout<F>, TokenError> {
    let id = Handle::try_current().ok().map(|handle| handle.id());
    if ANY_WITHOUT_TIMERS.load(Ordering::Relaxed) && id.is_some_and(|id| remembered().contains(&id))
    {
        return Err(no_runtime());
    }
    // tokio offers no check for timers: creating one panics if they are disabled.
    catch_unwind(AssertUnwindSafe(|| timeout_at(deadline, future))).map_err(|_| {
        let mut remembered = remembered();
        if let Some(id) = id
            && remembered.len() < MAX_REMEMBERED
        {
            remembered.push(id);
            ANY_WITHOUT_TIMERS.store(true, Ordering::Relaxed);
        }
        no_runtime()
    })
}

fn remembered() -> MutexGuard<'static, Vec<Id>> {
    WITHOUT_TIMERS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

fn no_runtime() -> TokenError {
    TokenError::new(TokenErrorKind::NoRuntime, false)
}
