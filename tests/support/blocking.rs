//! A runtime whose only thread for blocking work is busy.

use std::fmt::Debug;
use std::sync::mpsc;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{spawn_blocking, yield_now};

pub(crate) fn runtime_with_one_blocking_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap()
}

/// Runs `fetch`, and calls `change` before the thread is free: a fetch that reads a file there sees
/// the change.
pub(crate) async fn fetch_while_the_thread_is_busy<T, E>(
    fetch: impl Future<Output = Result<T, E>> + Send + 'static,
    change: impl FnOnce(),
) where
    T: Send + 'static,
    E: Debug + Send + 'static,
{
    // The thread waits until `release` is dropped.
    let (release, wait) = mpsc::channel::<()>();
    let busy = spawn_blocking(move || wait.recv());
    let fetching = tokio::spawn(fetch);
    for _ in 0..100 {
        yield_now().await;
    }
    change();
    drop(release);
    let _ = busy.await.unwrap();
    fetching.await.unwrap().unwrap();
}
