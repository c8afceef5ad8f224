//! What the task says about the tokens of its requests, carried by the ambient store of
//! `task-local-extensions`, which reqwest-middleware stacks know.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use task_local_extensions::{get_local_item, set_local_item};

use crate::request_auth::RequestAuth;

/// Runs `future` with `auth` as what its task says about its requests' tokens.
///
/// It is for requests that say nothing themselves, or can't, as a `reqwest::Request` that is driven
/// through tower.
///
/// Scopes nest, field by field: what the inner one leaves open is the outer one's. Other items of the
/// ambient store stay visible inside. Nothing is left behind on the thread when the future panics or
/// is dropped. This is the only way to set it: a `RequestAuth` that is put into the store by hand
/// counts for nothing, since a panic would leave it to the thread's next task.
///
/// The task is read when the service is called, so it isn't seen behind a `Buffer`, nor in a task
/// that is spawned inside of the scope, nor where the store itself is replaced inside of it
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
/// As cancel safe as `future`.
pub fn with_request_auth<F: Future>(auth: RequestAuth, future: F) -> WithRequestAuth<F> {
    WithRequestAuth { auth, future }
}

pin_project! {
    /// See [`with_request_auth`].
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
        // Restores on the way out, by a panic too.
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
pub fn current() -> Option<RequestAuth> {
    at_once(get_local_item::<Scoped>())
        .flatten()
        .and_then(|scoped| scoped.0)
}

/// The store's item. Private, so that only scopes which clean up after themselves can set it: what
/// is put into the store by its own means stays on the thread when a future panics.
#[derive(Clone)]
struct Scoped(Option<RequestAuth>);

/// One poll's stay in a scope.
struct Scope {
    outer: Option<RequestAuth>,
}

impl Scope {
    fn enter(auth: &RequestAuth) -> Self {
        let outer = current();
        at_once(set_local_item(Scoped(Some(auth.or(outer.clone())))));
        Self { outer }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        at_once(set_local_item(Scoped(self.outer.take())));
    }
}

/// The store's functions are async by their signature only: they never wait.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
