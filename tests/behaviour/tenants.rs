//! Many tenants (rules G of `docs/behaviour.md`).

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::time::Duration;

use bearer_auth::task_local::with_request_auth;
use bearer_auth::{
    AccessToken, BearerAuthLayer, ClientCredentials, MockAuthServer, MockTokenSource, RequestAuth,
    TokenCache, TokenError, TokenRequest, source_fn,
};
use futures_util::future::join_all;
use http::StatusCode;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::support::api::Api;
use crate::support::stack::{Call, Kind, Stack};

fn tenants(count: usize) -> Vec<TokenRequest> {
    (0..count)
        .map(|number| TokenRequest::scope(format!("tenant/{number}")))
        .collect()
}

#[tokio::test]
async fn the_least_recently_used_tenant_is_evicted_first() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(2)
        .build()
        .unwrap();
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
    assert_eq!(tokens.fetches(), 6, "the default entry is not evicted");
}

/// Uses of a fresh token are ordered by the second if no tenant is added in between.
#[tokio::test(start_paused = true)]
async fn uses_between_two_insertions_are_ordered_by_the_second() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(3)
        .build()
        .unwrap();
    let tenants = tenants(5);
    for (tenant, fetches) in [
        (0, 1),
        (1, 2),
        (2, 3),
        (2, 3),
        (0, 3),
        // Evicts tenant 1.
        (3, 4),
        (0, 4),
        // Evicts tenant 2.
        (4, 5),
        (0, 5),
        (3, 5),
        (1, 6),
        (2, 7),
    ] {
        cache.token_for(&tenants[tenant]).await.unwrap();
        assert_eq!(tokens.fetches(), fetches, "tenant {tenant}");
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_is_not_evicted_during_its_fetch() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::builder(tokens.clone())
        .max_entries(1)
        .build()
        .unwrap();
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
    assert_eq!(tokens.fetches(), 50, "one fetch for each tenant");
    // Once fetched, they can be evicted.
    cache
        .token_for(&TokenRequest::scope("another"))
        .await
        .unwrap();
    cache.token_for(&tenants[0]).await.unwrap();
    assert_eq!(tokens.fetches(), 52);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_interleaved_tenants_never_get_the_token_of_another() {
    const TENANTS: usize = 1_000;
    const CALLS: usize = 5_000;
    for round in 0..10 {
        let kind = Kind::ALL[round % Kind::ALL.len()];
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
        let (mut dropped, mut panicked) = (0, 0);
        for number in 0..CALLS {
            // Limits the number of connections.
            while calls.len() >= 100 {
                panicked += expected_panics(calls.join_next().await.unwrap());
            }
            // Each tenant is called five times, each time beside the same neighbours.
            let tenant = (number * 7 + number / TENANTS * 13) % TENANTS;
            let auth = RequestAuth::scope(format!("tenant/{tenant}"));
            let call = Call::get(format!("{}/{tenant}", server.api_url()));
            let (stack, fate) = (stack.clone(), fastrand::u8(0..20));
            dropped += usize::from(fate < 2);
            calls.spawn(async move {
                let result = async {
                    if number % 2 == 0 && Kind::WITH_EXTENSIONS.contains(&kind) {
                        stack.send(call.auth(auth)).await
                    } else {
                        let call = async {
                            let result = stack.send(call).await;
                            assert!(fate != 2, "{ON_PURPOSE}, in the scope of the task-local");
                            result
                        };
                        with_request_auth(auth, call).await
                    }
                };
                if fate < 2 {
                    // Dropped at an arbitrary point.
                    let limit = Duration::from_micros(fastrand::u64(0..3_000));
                    let _ = timeout(limit, result).await;
                } else {
                    assert_eq!(result.await.unwrap().status, 200, "{kind:?}");
                }
            });
        }
        while let Some(call) = calls.join_next().await {
            panicked += expected_panics(call);
        }
        assert!(dropped > 0 && panicked > 0);

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
        assert_eq!(
            server.token_requests(),
            fetches.len(),
            "{kind:?}: no token request was cancelled"
        );
    }
}

const ON_PURPOSE: &str = "on purpose";

/// Returns 1 if the call panicked on purpose and 0 if it completed. Resumes any other panic.
fn expected_panics(call: Result<(), JoinError>) -> usize {
    let Err(error) = call else { return 0 };
    let panic = error.into_panic();
    let text = panic.downcast_ref::<String>().cloned();
    if !text.is_some_and(|text| text.starts_with(ON_PURPOSE)) {
        resume_unwind(panic);
    }
    1
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_tokens_fetched_together_are_not_refreshed_together() {
    const TENANTS: usize = 10_000;
    let tokens = MockTokenSource::new().with_lifetime(Duration::from_secs(900));
    let cache = TokenCache::new(tokens.clone());
    let tenants = tenants(TENANTS);
    for tenant in &tenants {
        cache.token_for(tenant).await.unwrap();
    }
    sleep(Duration::from_secs(797)).await;
    let mut histogram = Vec::new();
    for _ in 0..26 {
        let before = tokens.fetches();
        for tenant in &tenants {
            cache.token_for(tenant).await.unwrap();
        }
        sleep(Duration::from_secs(2)).await;
        histogram.push(tokens.fetches() - before);
    }
    eprintln!("refreshes in each 2 s from 797 s on: {histogram:?}");
    assert_eq!(histogram.iter().sum::<usize>(), TENANTS);
    assert_eq!(histogram[0], 0);
    // Spread evenly over 45 s there would be 444 in each 2 s.
    assert!(histogram.iter().all(|count| *count < 560), "{histogram:?}");
}

#[tokio::test(start_paused = true)]
async fn hanging_and_failing_tenants_do_not_delay_the_others() {
    const LATENCY: Duration = Duration::from_millis(50);
    let cache = TokenCache::new(source_fn(|request: TokenRequest| async move {
        let name = request.scopes().unwrap_or_default();
        if name.starts_with("hanging") {
            std::future::pending::<()>().await;
        }
        sleep(LATENCY).await;
        if name.starts_with("failing") {
            return Err(TokenError::permanent("invalid_scope"));
        }
        Ok(AccessToken::new("good")?)
    }));
    let call = |name: String| {
        let cache = cache.clone();
        async move {
            let start = Instant::now();
            let result = cache.token_for(&TokenRequest::scope(name)).await;
            (result.is_ok(), start.elapsed())
        }
    };
    // Half of the 64 fetches that may run at a time hang.
    let hanging: Vec<_> = (0..32)
        .map(|number| tokio::spawn(call(format!("hanging/{number}"))))
        .collect();
    sleep(LATENCY).await;
    for round in 0..10 {
        let calls = (0..16).flat_map(|number| {
            let number = round * 16 + number;
            [
                call(format!("failing/{number}")),
                call(format!("good/{number}")),
            ]
        });
        let results = join_all(calls).await;
        for pair in results.chunks(2) {
            assert_eq!(pair, [(false, LATENCY), (true, LATENCY)]);
        }
    }
    assert_eq!(call("good/0".to_owned()).await, (true, Duration::ZERO));
    eprintln!(
        "160 good tenants beside 32 hanging and 160 failing ones: {LATENCY:?} each, then no wait"
    );
    for hanging in hanging {
        let (is_ok, after) = hanging.await.unwrap();
        assert!(!is_ok && after == Duration::from_secs(30), "{after:?}");
    }
}

/// In real time: a tenant that waited for the hanging ones would wait for 30 s.
#[tokio::test]
async fn hanging_and_failing_tenants_do_not_delay_the_others_through_any_stack() {
    for kind in Kind::ALL {
        let source = source_fn(|request: TokenRequest| async move {
            let name = request.scopes().unwrap_or_default();
            if name.starts_with("hanging") {
                std::future::pending::<()>().await;
            }
            if name.starts_with("failing") {
                return Err(TokenError::permanent("invalid_scope"));
            }
            Ok(AccessToken::new("good")?)
        });
        let api = Api::accepting(|token| token == "good").await;
        let layer = BearerAuthLayer::new(source)
            .allow_origin(api.origin())
            .unwrap();
        let stack = Stack::new(kind, &layer);
        let call = |name: String| {
            let (stack, call) = (stack.clone(), Call::get(api.url("/")));
            let call = async move { stack.send(call).await.map(|response| response.status) };
            with_request_auth(RequestAuth::scope(name), call)
        };
        let hanging: Vec<_> = (0..32)
            .map(|number| tokio::spawn(call(format!("hanging/{number}"))))
            .collect();
        let start = Instant::now();
        for number in 0..50 {
            assert!(call(format!("failing/{number}")).await.is_err(), "{kind:?}");
            let good = call(format!("good/{number}")).await;
            assert_eq!(good.unwrap(), StatusCode::OK, "{kind:?}");
        }
        let took = start.elapsed();
        eprintln!("{kind:?}: 50 good and 50 failing tenants beside 32 hanging ones: {took:?}");
        assert!(took < Duration::from_secs(15), "{kind:?}: {took:?}");
        assert!(hanging.iter().all(|call| !call.is_finished()), "{kind:?}");
        hanging.iter().for_each(|call| call.abort());
    }
}

#[tokio::test]
async fn a_rejection_or_invalidation_of_one_tenants_token_affects_no_other() {
    for kind in Kind::WITH_EXTENSIONS {
        let tokens = MockTokenSource::new();
        // `mock-token-1` is the first tenant's, `mock-token-2` the second's.
        let api = Api::accepting(|token| token != "mock-token-1").await;
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin(api.origin())
            .unwrap();
        let tenants = tenants(2);
        for tenant in &tenants {
            layer.cache().token_for(tenant).await.unwrap();
        }
        let stack = Stack::new(kind, &layer);
        for tenant in &tenants {
            let call = Call::get(api.url("/")).auth(RequestAuth::token(tenant.clone()));
            assert_eq!(stack.send(call).await.unwrap().status, StatusCode::OK);
        }
        let sent: Vec<_> = api.tokens().into_iter().flatten().collect();
        assert_eq!(
            sent,
            ["mock-token-1", "mock-token-3", "mock-token-2"],
            "{kind:?}"
        );

        let other = layer.cache().token_for(&tenants[1]).await.unwrap();
        layer.cache().invalidate(&other);
        let next = layer.cache().token_for(&tenants[1]).await.unwrap();
        assert_eq!(next.expose_secret(), "mock-token-4", "{kind:?}");
        let kept = layer.cache().token_for(&tenants[0]).await.unwrap();
        assert_eq!(kept.expose_secret(), "mock-token-3", "{kind:?}");
    }
}
