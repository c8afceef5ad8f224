//! What an entry and the timeline are made of: a model checker puts its own in place of it.

#[cfg(not(all(test, bearer_auth_model)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    pub(crate) use arc_swap::ArcSwapOption;
}

#[cfg(all(test, bearer_auth_model))]
mod model {
    use std::sync::{Arc, PoisonError};

    use loom::sync::RwLock;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// Stands in for the lock-free cell, which the checker can't see into: its users are what is
    /// checked, not the cell.
    pub(crate) struct ArcSwapOption<T>(RwLock<Option<Arc<T>>>);

    impl<T> ArcSwapOption<T> {
        pub(crate) fn empty() -> Self {
            Self(RwLock::new(None))
        }

        pub(crate) fn load(&self) -> impl std::ops::Deref<Target = Option<Arc<T>>> {
            Box::new(
                self.0
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
            )
        }

        pub(crate) fn store(&self, value: Option<Arc<T>>) {
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }
}

#[cfg(all(test, bearer_auth_model))]
pub(crate) use model::*;
#[cfg(not(all(test, bearer_auth_model)))]
pub(crate) use real::*;
