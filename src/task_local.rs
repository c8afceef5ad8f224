//! A task's choice of tokens for its requests, kept in the task-local store of the crate
//! `task-local-extensions`, which reqwest-middleware stacks use as well.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use task_local_extensions::{get_local_item, set_local_item};

use crate::request_auth::RequestAuth;

/// Runs `future` with `auth` as its task's choice, for requests that do not choose a token.
///
/// It is also for requests that cannot choose, such as a `reqwest::Request` in a tower stack.
///
/// Calls nest, field by field: a field that the inner `auth` does not set is inherited from the
/// outer one. Other items of the task-local store stay visible inside. When the future panics or
/// is dropped, nothing remains on the thread. There is no other way to set a task's choice: a
/// `RequestAuth` that is stored by hand is ignored, since after a panic the thread's next task
/// would get it.
///
/// The layer reads the task's choice when the service is called. It does not see the choice behind
/// a `Buffer`, in a task spawned inside of `future`, or where `future` replaces the store itself
/// (`task_local_extensions::with_extensions`); see
/// [`require_request_auth`](crate::BearerAuthLayer::require_request_auth).
///
/// ```
/// use bearer_auth::{RequestAuth, task_local};
///
/// # async fn call_the_api() {}
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// task_local::with_request_auth(RequestAuth::scope("tenant/42"), async {
///     call_the_api().await;
/// })
/// .await;
/// # }
/// ```
///
/// # Cancel safety
///
/// The returned future is as cancel safe as `future`.
pub fn with_request_auth<F: Future>(auth: RequestAuth, future: F) -> WithRequestAuth<F> {
    WithRequestAuth { auth, future }
}

pin_project! {
    /// The future that [`with_request_auth`] returns.
    #[must_use = "futures do nothing unless polled"]
    pub struct WithRequestAuth<F> {
        auth: RequestAuth,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for WithRequestAuth<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Its drop restores the outer choice, after a panic too.
        let _scope = Scope::enter(this.auth);
        this.future.poll(cx)
    }
}

impl<F> fmt::Debug for WithRequestAuth<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithRequestAuth")
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// Returns the choice of the current task, or `None` outside of [`with_request_auth`].
///
/// A spawned task does not inherit the choice. Use this to carry it there. Within nested calls of
/// `with_request_auth`, it is the choice that results from all of them.
///
/// ```
/// use bearer_auth::task_local::{current, with_request_auth};
///
/// # async fn call_the_api() {}
/// async fn in_the_background() {
///     let auth = current().unwrap_or_default();
///     tokio::spawn(with_request_auth(auth, call_the_api()));
/// }
/// ```
#[inline]
pub fn current() -> Option<RequestAuth> {
    if !WAS_SET.load(Ordering::Relaxed) {
        return None;
    }
    from_store()
}

/// True if a task of this process has made a choice: most programs never read the store.
///
/// A task that has made one sees its own write, wherever the runtime moves it.
static WAS_SET: AtomicBool = AtomicBool::new(false);

fn from_store() -> Option<RequestAuth> {
    poll_once(get_local_item::<Scoped>())
        .flatten()
        .and_then(|scoped| scoped.0)
}

/// The item in the store. Its type is private, so that only [`Scope`] can set it, which removes it
/// after a panic: the store itself would leave it on the thread.
#[derive(Clone)]
struct Scoped(Option<RequestAuth>);

/// Sets the task's choice during one poll, and restores the outer choice on drop.
struct Scope {
    outer: Option<RequestAuth>,
}

impl Scope {
    fn enter(auth: &RequestAuth) -> Self {
        WAS_SET.store(true, Ordering::Relaxed);
        let outer = current();
        poll_once(set_local_item(Scoped(Some(auth.or(outer.clone())))));
        Self { outer }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        poll_once(set_local_item(Scoped(self.outer.take())));
    }
}

/// Runs a function of the store. These are async only in their signature and never wait.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
