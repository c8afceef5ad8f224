//! Copies of a value, so that threads which clone it don't all write to one reference count.
//!
//! Measured by `benches/rows`: what threads contend for is neither the token's cell nor a lock,
//! which are only read, but the counts of what every request clones.

use std::cell::Cell;
use std::iter::repeat_with;
use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// More would cost memory for little.
const MOST_COPIES: usize = 16;

/// One copy for each thread that can run at once, rounded up to a power of two, at most
/// [`MOST_COPIES`]; threads beyond share.
#[derive(Debug)]
pub(crate) struct PerThread<T>(Box<[T]>);

impl<T> PerThread<T> {
    /// Copies made by `copy`, which share no count.
    pub(crate) fn new(copy: impl FnMut() -> T) -> Self {
        let copies = parallelism().next_power_of_two().min(MOST_COPIES);
        Self(repeat_with(copy).take(copies).collect())
    }

    /// This thread's.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        &self.0[number_of_thread() & (self.0.len() - 1)]
    }
}

/// How many threads run at once: asked for once, since the answer costs a system call or more.
pub(crate) fn parallelism() -> usize {
    static PARALLELISM: OnceLock<usize> = OnceLock::new();
    *PARALLELISM.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get))
}

/// Threads are numbered as they come here first.
#[inline]
fn number_of_thread() -> usize {
    const NONE: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    }
    NUMBER.with(|number| {
        if number.get() == NONE {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn threads_that_run_at_once_have_copies_of_their_own() {
        let copies = PerThread::new(|| Arc::new(()));
        let all = &copies.0;
        assert!(all.len().is_power_of_two() && all.len() <= MOST_COPIES);
        // Numbered one after the other, but by other tests too.
        let mine: HashSet<_> = (0..8 * all.len())
            .map(|_| {
                thread::scope(|it| it.spawn(|| Arc::as_ptr(copies.get()) as usize).join()).unwrap()
            })
            .collect();
        assert!(
            mine.len() > all.len() / 2,
            "{} of {}",
            mine.len(),
            all.len()
        );
        assert!(std::ptr::eq(copies.get(), copies.get()));
    }
}
