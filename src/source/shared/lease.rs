//! The lease that one process fetches under.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::source::shared::breaker::{Guarded, Operation, Unavailable};
use crate::store::{Lease, LeaseOwner, StoreKey, TokenStore, random};

/// The time after which the lease of a process that died ends.
const SPAN: Duration = Duration::from_secs(2);
/// The time after which its holder extends it.
const EXTENSION: Duration = Duration::from_millis(500);
/// The limit of giving it back, which nobody waits for.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);

/// A lease that this process has. Dropped, it is given back, and those who wait are woken.
pub(super) struct HeldLease {
    pub(super) lease: Lease,
    key: StoreKey,
    owner: LeaseOwner,
    store: Arc<dyn TokenStore>,
}

impl HeldLease {
    /// Tries to get the lease of a token. Returns `None` if another process has it.
    pub(super) async fn acquire(
        store: &Guarded,
        key: &StoreKey,
    ) -> Result<Option<Self>, Unavailable> {
        let owner = LeaseOwner::new(random().map_err(|_| Unavailable)?);
        let lease = store.store().acquire(key, &owner, SPAN);
        let lease = store.run(Operation::Lease, lease).await?;
        Ok(lease.map(|lease| Self {
            lease,
            key: key.clone(),
            owner,
            store: Arc::clone(store.store()),
        }))
    }

    /// Runs a fetch, and extends the lease meanwhile. If that fails, the fetch goes on: what it
    /// writes is compared with what it has read.
    pub(super) async fn extended_during<F: Future>(&self, store: &Guarded, fetch: F) -> F::Output {
        let mut fetch = pin!(fetch);
        let mut extensions = pin!(async {
            loop {
                sleep(EXTENSION).await;
                let extension = self.store.extend(&self.key, &self.owner, SPAN);
                let _ = store.run(Operation::Lease, extension).await;
            }
        });
        poll_fn(|cx| match fetch.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => match extensions.as_mut().poll(cx) {
                Poll::Ready(never) => never,
                Poll::Pending => Poll::Pending,
            },
        })
        .await
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        let (store, key, owner) = (
            Arc::clone(&self.store),
            self.key.clone(),
            self.owner.clone(),
        );
        // Without a runtime, the lease ends by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(RELEASE_LIMIT, async move {
                let _ = store.release(&key, &owner).await;
                let _ = store.publish(&key).await;
            }));
        }
    }
}
