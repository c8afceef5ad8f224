//! One copy of a value per thread, so that threads which clone it do not contend for one reference
//! count.

use std::cell::Cell;
use std::iter::repeat_with;
use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// The maximum number of copies; more would cost memory for little gain.
const MAX_COPIES: usize = 16;

/// One copy for each thread that can run at once: a power of two, at most [`MAX_COPIES`]. Further
/// threads share copies.
#[derive(Debug)]
pub(crate) struct PerThread<T>(Box<[T]>);

impl<T> PerThread<T> {
    /// Creates the copies by `copy`, whose results must share no reference count.
    pub(crate) fn new(copy: impl FnMut() -> T) -> Self {
        let copies = parallelism().next_power_of_two().min(MAX_COPIES);
        Self(repeat_with(copy).take(copies).collect())
    }

    /// Returns the copy of the current thread.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        &self.0[number_of_thread() & (self.0.len() - 1)]
    }
}

/// Returns the number of threads that can run at once. Cached: the system call is slow.
pub(crate) fn parallelism() -> usize {
    static PARALLELISM: OnceLock<usize> = OnceLock::new();
    *PARALLELISM.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get))
}

/// Returns the number of the current thread, given out in order of first use.
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
        assert!(all.len().is_power_of_two() && all.len() <= MAX_COPIES);
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
