//! A `RequestAuth` set for a task (feature `task-local`), through all stacks.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bearer_auth::task_local::with_request_auth;
use bearer_auth::{BearerAuthLayer, MockTokenSource, RequestAuth, TokenErrorKind};
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use task_local_extensions::{Extensions, get_local_item, set_local_item, with_extensions};
use tokio::task::yield_now;
use tower::{Layer, ServiceExt};

use crate::support::api::{Api, ok, rejected};
use crate::support::stack::{Call, Kind, Stack, token_error};

/// Returns the scopes that tokens were fetched for, in order.
fn scopes(tokens: &MockTokenSource) -> Vec<Option<String>> {
    tokens
        .requests()
        .iter()
        .map(|it| it.scopes().map(str::to_owned))
        .collect()
}

fn scope(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[tokio::test]
async fn the_choice_of_the_task_applies_where_the_request_makes_none() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::start(|_| ok()).await);
        let layer = BearerAuthLayer::new(tokens.clone()).require_request_auth();
        let stack = Stack::new(kind, &layer);
        with_request_auth(RequestAuth::scope("tenant/7"), async {
            stack.get(api.url("/")).await.unwrap();
            if Kind::WITH_EXTENSIONS.contains(&kind) {
                for auth in [
                    RequestAuth::default().without_replay(),
                    RequestAuth::scope("tenant/8"),
                    RequestAuth::skip(),
                ] {
                    stack
                        .send(Call::get(api.url("/")).auth(auth))
                        .await
                        .unwrap();
                }
            }
        })
        .await;
        with_request_auth(RequestAuth::skip(), stack.get(api.url("/")))
            .await
            .unwrap();
        let error = stack.get(api.url("/")).await.unwrap_err();
        assert_eq!(
            token_error(&error).unwrap().kind(),
            TokenErrorKind::RequestAuthMissing
        );

        let token = |number: usize| Some(format!("mock-token-{number}"));
        if Kind::WITH_EXTENSIONS.contains(&kind) {
            assert_eq!(
                scopes(&tokens),
                [scope("tenant/7"), scope("tenant/8")],
                "{kind:?}"
            );
            assert_eq!(
                api.tokens(),
                [token(1), token(1), token(2), None, None],
                "{kind:?}"
            );
        } else {
            assert_eq!(scopes(&tokens), [scope("tenant/7")], "{kind:?}");
            assert_eq!(api.tokens(), [token(1), None], "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_task_can_disable_replays() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let api = Api::start(|_| rejected("Bearer")).await;
        let stack = Stack::new(kind, &BearerAuthLayer::new(tokens.clone()));
        let auth = RequestAuth::default().without_replay();
        let response = with_request_auth(auth, stack.get(api.url("/")))
            .await
            .unwrap();
        assert_eq!(response.status, StatusCode::UNAUTHORIZED);
        assert_eq!(api.requests().len(), 1, "{kind:?}");
    }
}

/// Sends a request, and returns the scope that the current task chose for it.
async fn scope_of_the_task() -> Option<String> {
    let tokens = MockTokenSource::new();
    let layer = BearerAuthLayer::new(tokens.clone()).require_request_auth();
    let inner =
        tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    // An error if the task has made no choice.
    layer.layer(inner).oneshot(request).await.ok()?;
    scopes(&tokens).pop().flatten()
}

#[tokio::test]
async fn choices_nest_across_awaits() {
    with_request_auth(RequestAuth::scope("7"), async {
        yield_now().await;
        assert_eq!(scope_of_the_task().await, scope("7"));
        with_request_auth(RequestAuth::scope("8"), async {
            yield_now().await;
            assert_eq!(scope_of_the_task().await, scope("8"));
        })
        .await;
        with_request_auth(RequestAuth::default().without_replay(), async {
            assert_eq!(scope_of_the_task().await, scope("7"), "merged by field");
        })
        .await;
        assert_eq!(scope_of_the_task().await, scope("7"));
    })
    .await;
    assert_eq!(scope_of_the_task().await, None);
}

#[tokio::test]
async fn interleaved_tasks_on_one_thread_see_their_own_choice() {
    let tasks = (0..100).map(|number| {
        let tenant = format!("tenant/{number}");
        tokio::spawn(with_request_auth(RequestAuth::scope(&tenant), async move {
            for _ in 0..20 {
                yield_now().await;
                assert_eq!(scope_of_the_task().await, scope(&tenant));
            }
        }))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(scope_of_the_task().await, None);
}

#[tokio::test]
async fn a_panicking_or_aborted_task_leaves_no_choice_behind() {
    let auth = RequestAuth::scope("tenant/7");
    let panicking = with_request_auth(auth.clone(), async { panic!("on purpose") });
    assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
    assert_eq!(scope_of_the_task().await, None);

    // Within `with_extensions`, which does not restore the thread's store after a panic.
    let nested = with_request_auth(auth.clone(), async {
        with_extensions(Extensions::new(), async {
            with_request_auth(RequestAuth::scope("tenant/8"), async {
                panic!("on purpose")
            })
            .await
        })
        .await
    });
    assert!(AssertUnwindSafe(nested).catch_unwind().await.is_err());
    assert_eq!(scope_of_the_task().await, None);

    let started = Arc::new(tokio::sync::Notify::new());
    let task = tokio::spawn(with_request_auth(auth.clone(), {
        let started = Arc::clone(&started);
        async move {
            started.notify_one();
            std::future::pending::<()>().await;
        }
    }));
    started.notified().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(scope_of_the_task().await, None);

    let mut dropped = Box::pin(with_request_auth(auth, std::future::pending::<()>()));
    assert!(dropped.as_mut().now_or_never().is_none());
    drop(dropped);
    assert_eq!(scope_of_the_task().await, None);
}

#[tokio::test]
async fn other_items_of_the_store_stay_readable_and_writable() {
    let (store, ()) = with_extensions(Extensions::new().with(1_u8), async {
        with_request_auth(RequestAuth::scope("tenant/7"), async {
            assert_eq!(get_local_item::<u8>().await, Some(1));
            set_local_item(2_u16).await;
        })
        .await;
    })
    .await;
    assert_eq!(store.get::<u16>(), Some(&2));
}

#[tokio::test]
async fn a_request_auth_put_directly_into_the_store_is_ignored() {
    let store = || Extensions::new().with(RequestAuth::scope("tenant/9"));
    assert_eq!(with_extensions(store(), scope_of_the_task()).await.1, None);
    let panicking = with_extensions(store(), async { panic!("on purpose") });
    assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
    // `with_extensions` has left it on this thread.
    assert!(get_local_item::<RequestAuth>().await.is_some());
    assert_eq!(scope_of_the_task().await, None);
}

#[tokio::test]
async fn a_spawned_task_does_not_inherit_the_choice() {
    let inside = with_request_auth(RequestAuth::scope("tenant/7"), async {
        tokio::spawn(scope_of_the_task()).await.unwrap()
    });
    assert_eq!(inside.await, None);
}
