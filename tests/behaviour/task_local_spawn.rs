//! The choice of a task, carried into the tasks that it spawns.

use bearer_auth::task_local::{current, with_request_auth};
use bearer_auth::{BearerAuthLayer, MockTokenSource, RequestAuth};
use tokio::task::yield_now;

use crate::support::api::{Api, ok};
use crate::support::stack::{Kind, Stack};

#[tokio::test]
async fn the_choice_can_be_carried_into_a_spawned_task() {
    for kind in Kind::ALL {
        let (tokens, api) = (MockTokenSource::new(), Api::start(|_| ok()).await);
        let layer = BearerAuthLayer::new(tokens.clone()).require_request_auth();
        let stack = Stack::new(kind, &layer);
        let url = api.url("/");
        with_request_auth(RequestAuth::scope("tenant/7"), async {
            let choice = current().unwrap_or_default();
            let request = async move { stack.get(url).await.map(|it| it.status) };
            let task = tokio::spawn(with_request_auth(choice, request));
            assert_eq!(task.await.unwrap().unwrap(), 200, "{kind:?}");
        })
        .await;
        let requests = tokens.requests();
        assert_eq!(requests.len(), 1, "{kind:?}");
        assert_eq!(requests[0].scopes(), Some("tenant/7"), "{kind:?}");
    }
}

#[tokio::test]
async fn the_current_choice_is_that_of_all_enclosing_scopes() {
    let outer = RequestAuth::scope("tenant/7");
    let inner = RequestAuth::default().without_replay();
    assert_eq!(current(), None);
    with_request_auth(outer.clone(), async {
        yield_now().await;
        assert_eq!(current(), Some(outer.clone()));
        assert_eq!(tokio::spawn(async { current() }).await.unwrap(), None);
        with_request_auth(inner, async {
            yield_now().await;
            assert_eq!(current(), Some(outer.clone().without_replay()));
        })
        .await;
        assert_eq!(current(), Some(outer.clone()));
        with_request_auth(RequestAuth::skip(), async {
            assert_eq!(current(), Some(RequestAuth::skip()));
        })
        .await;
    })
    .await;
    assert_eq!(current(), None);
}
