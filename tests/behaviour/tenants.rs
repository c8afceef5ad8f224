//! Many tenants (BEHAVIOUR G), through the public face.

use std::collections::HashMap;
use std::time::Duration;

use bearer_auth::task_local::with_request_auth;
use bearer_auth::{
    BearerAuthLayer, ClientCredentials, MockAuthServer, MockTokenSource, RequestAuth, TokenCache,
    TokenRequest,
};
use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::stack::{Call, Kind, Stack};

fn tenants(count: usize) -> Vec<TokenRequest> {
    (0..count)
        .map(|number| TokenRequest::scope(format!("tenant/{number}")))
        .collect()
}

#[tokio::test]
async fn the_least_recently_used_tenant_goes_first() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone()).max_entries(2).build();
    let tenants = tenants(3);
    cache.token().await.unwrap();
    for (tenant, fetches) in [
        (0, 2),
        (1, 3),
        (0, 3),
        (2, 4),
        (0, 4),
        (1, 5),
        (0, 5),
        (2, 6),
    ] {
        cache.token_for(&tenants[tenant]).await.unwrap();
        assert_eq!(tokens.fetches(), fetches, "tenant {tenant}");
    }
    cache.token().await.unwrap();
    assert_eq!(tokens.fetches(), 6, "the default one is not counted");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_token_is_being_fetched_stays() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone()).max_entries(1).build();
    let hold = tokens.hold();
    let tenants = tenants(50);
    for tenant in &tenants {
        assert!(
            timeout(Duration::from_millis(1), cache.token_for(tenant))
                .await
                .is_err()
        );
    }
    assert_eq!(tokens.fetches(), 50);
    let waiting = tokio::spawn({
        let (cache, tenants) = (cache.clone(), tenants.clone());
        async move { join_all(tenants.iter().map(|tenant| cache.token_for(tenant))).await }
    });
    sleep(Duration::from_millis(1)).await;
    drop(hold);
    for token in waiting.await.unwrap() {
        token.unwrap();
    }
    assert_eq!(tokens.fetches(), 50, "no second flight for any");
    // Landed, they make room.
    cache
        .token_for(&TokenRequest::scope("another"))
        .await
        .unwrap();
    cache.token_for(&tenants[0]).await.unwrap();
    assert_eq!(tokens.fetches(), 52);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_interleaved_tenants_never_get_anothers_token() {
    const TENANTS: usize = 1_000;
    const CALLS: usize = 5_000;
    for round in 0..10 {
        let kind = Kind::ALL[round % 3];
        let server = MockAuthServer::start().await.unwrap();
        let source = ClientCredentials::builder(server.token_url())
            .client_id(server.client_id())
            .client_secret(server.client_secret())
            .build()
            .unwrap();
        let layer = BearerAuthLayer::new(source)
            .allow_origin(server.origin())
            .unwrap()
            .require_request_auth();
        let stack = Stack::new(kind, &layer);
        let mut calls = JoinSet::new();
        let mut dropped = 0;
        for number in 0..CALLS {
            // As many connections as there are calls under way.
            while calls.len() >= 100 {
                calls.join_next().await.unwrap().ok();
            }
            // Each tenant comes up five times, its neighbours with it.
            let tenant = (number * 7 + number / TENANTS * 13) % TENANTS;
            let auth = RequestAuth::scope(format!("tenant/{tenant}"));
            let call = Call::get(format!("{}/{tenant}", server.api_url()));
            let (stack, fate) = (stack.clone(), fastrand::u8(0..20));
            dropped += usize::from(fate < 2);
            calls.spawn(async move {
                let answer = async {
                    if number % 2 == 0 && kind.has_extensions() {
                        stack.send(call.auth(auth)).await
                    } else {
                        let call = async {
                            let answer = stack.send(call).await;
                            assert!(fate != 2, "on purpose, with the tenant in its task");
                            answer
                        };
                        with_request_auth(auth, call).await
                    }
                };
                if fate < 2 {
                    // Dropped somewhere on its way.
                    let limit = Duration::from_micros(fastrand::u64(0..3_000));
                    let _ = timeout(limit, answer).await;
                } else {
                    assert_eq!(answer.await.unwrap().status, 200, "{kind:?}");
                }
            });
        }
        let mut panicked = 0;
        while let Some(call) = calls.join_next().await {
            panicked += usize::from(call.is_err());
        }
        assert!(dropped > 0 && panicked < CALLS);

        let log = server.api_log();
        assert!(log.len() >= CALLS - dropped, "{} of {CALLS}", log.len());
        for call in &log {
            let tenant = call.path().rsplit('/').next().unwrap();
            assert_eq!(call.scope(), Some(&*format!("tenant/{tenant}")), "{kind:?}");
        }
        let mut fetches = HashMap::new();
        for fetch in server.token_log() {
            *fetches
                .entry(fetch.scope().unwrap().to_owned())
                .or_insert(0) += 1;
        }
        assert!(fetches.len() > TENANTS * 9 / 10);
        assert!(
            fetches.values().all(|count| *count == 1),
            "{kind:?}: one token request each"
        );
    }
}
