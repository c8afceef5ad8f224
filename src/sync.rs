//! The synchronization primitives of an entry and the timeline, which a model checker replaces with
//! its own.

#[cfg(not(all(test, bearer_auth_model)))]
mod real {
    pub(crate) use std::sync::atomic::AtomicU64;
    pub(crate) use std::sync::{Mutex, MutexGuard};

    pub(crate) use arc_swap::ArcSwapOption;
}

#[cfg(all(test, bearer_auth_model))]
mod model {
    use std::sync::{Arc, PoisonError};

    use loom::sync::RwLock;
    pub(crate) use loom::sync::atomic::AtomicU64;
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// A replacement for the lock-free cell. The model checks the users of the cell, not the cell.
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
