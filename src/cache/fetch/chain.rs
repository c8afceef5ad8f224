//! The fetches that a task runs within: a source may ask a cache for another token.

use std::ptr;
use std::sync::{Arc, Weak};

use crate::cache::fetch::FetchOwner;

tokio::task_local! {
    static CURRENT: FetchChain;
}

/// A fetch, and the fetch within which it was started, if any.
#[derive(Clone)]
pub(crate) struct FetchChain(Arc<Link>);

struct Link {
    owner: Weak<dyn FetchOwner>,
    parent: Option<FetchChain>,
}

impl FetchChain {
    /// Returns the chain of the current task, if it runs within a fetch.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    pub(crate) fn new(owner: Weak<dyn FetchOwner>, parent: Option<Self>) -> Self {
        Self(Arc::new(Link { owner, parent }))
    }

    /// Runs the future of a source within this chain.
    pub(crate) async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Returns true if a fetch of `owner` is in the chain: waiting for another one would not end.
    pub(crate) fn contains(&self, owner: &Weak<dyn FetchOwner>) -> bool {
        let mut chain = Some(self);
        while let Some(Self(link)) = chain {
            if ptr::addr_eq(link.owner.as_ptr(), owner.as_ptr()) {
                return true;
            }
            chain = link.parent.as_ref();
        }
        false
    }
}
