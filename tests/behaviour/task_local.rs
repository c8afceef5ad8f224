//! A token chosen by the task (feature `task-local`), through the three stacks.

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

use crate::support::api::{Api, ok, refused};
use crate::support::stack::{Call, Kind, Stack, token_error};

/// The scopes that tokens were fetched for, in order.
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
async fn the_tasks_choice_holds_where_the_request_makes_none() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::start(|_| ok()).await);
        let layer = BearerAuthLayer::new(tokens.clone()).require_request_auth();
        let stack = Stack::new(kind, &layer);
        with_request_auth(RequestAuth::scope("tenant/7"), async {
            stack.get(api.url("/")).await.unwrap();
            if kind.has_extensions() {
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
        if kind.has_extensions() {
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
async fn the_task_can_switch_off_replay() {
    for kind in Kind::ALL {
        let tokens = MockTokenSource::new();
        let api = Api::start(|_| refused("Bearer")).await;
        let stack = Stack::new(kind, &BearerAuthLayer::new(tokens.clone()));
        let auth = RequestAuth::default().without_replay();
        let answer = with_request_auth(auth, stack.get(api.url("/")))
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(api.seen().len(), 1, "{kind:?}");
    }
}

/// What a request sent now would be told by its task: the scope its token is fetched for.
async fn ambient() -> Option<String> {
    let tokens = MockTokenSource::new();
    let layer = BearerAuthLayer::new(tokens.clone()).require_request_auth();
    let inner =
        tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let request = Request::get("https://api.example.com/").body(()).unwrap();
    // An error if the task says nothing.
    layer.layer(inner).oneshot(request).await.ok()?;
    scopes(&tokens).pop().flatten()
}

#[tokio::test]
async fn scopes_nest_and_restore_across_waits() {
    with_request_auth(RequestAuth::scope("7"), async {
        yield_now().await;
        assert_eq!(ambient().await, scope("7"));
        with_request_auth(RequestAuth::scope("8"), async {
            yield_now().await;
            assert_eq!(ambient().await, scope("8"));
        })
        .await;
        with_request_auth(RequestAuth::default().without_replay(), async {
            assert_eq!(ambient().await, scope("7"), "field by field");
        })
        .await;
        assert_eq!(ambient().await, scope("7"));
    })
    .await;
    assert_eq!(ambient().await, None);
}

#[tokio::test]
async fn interleaved_tasks_on_one_thread_see_their_own() {
    let tasks = (0..100).map(|number| {
        let tenant = format!("tenant/{number}");
        tokio::spawn(with_request_auth(RequestAuth::scope(&tenant), async move {
            for _ in 0..20 {
                yield_now().await;
                assert_eq!(ambient().await, scope(&tenant));
            }
        }))
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(ambient().await, None);
}

#[tokio::test]
async fn a_panic_or_an_abort_leaves_nothing_behind() {
    let auth = RequestAuth::scope("tenant/7");
    let panicking = with_request_auth(auth.clone(), async { panic!("on purpose") });
    assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
    assert_eq!(ambient().await, None);

    // In a scope of the store's own, whose swap is not undone by a panic.
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
    assert_eq!(ambient().await, None);

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
    assert_eq!(ambient().await, None);

    let mut dropped = Box::pin(with_request_auth(auth, std::future::pending::<()>()));
    assert!(dropped.as_mut().now_or_never().is_none());
    drop(dropped);
    assert_eq!(ambient().await, None);
}

#[tokio::test]
async fn other_items_of_the_store_stay_visible_and_can_be_set() {
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
async fn an_item_put_into_the_store_by_hand_counts_for_nothing() {
    let store = || Extensions::new().with(RequestAuth::scope("tenant/9"));
    assert_eq!(with_extensions(store(), ambient()).await.1, None);
    let panicking = with_extensions(store(), async { panic!("on purpose") });
    assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
    // The store has left it on this thread.
    assert!(get_local_item::<RequestAuth>().await.is_some());
    assert_eq!(ambient().await, None);
}

#[tokio::test]
async fn a_task_that_is_spawned_inside_says_nothing() {
    let inside = with_request_auth(RequestAuth::scope("tenant/7"), async {
        tokio::spawn(ambient()).await.unwrap()
    });
    assert_eq!(inside.await, None);
}
