//! The metrics of the feature `metrics`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, MetricsObserver, MockTokenSource, TokenCache, TokenError, TokenRequest,
};
use http::{Request, Response, StatusCode};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::fleet::{Fault, Fleet};

/// Returns the metrics by name and labels, as `name{label=value}`.
///
/// The snapshot of this recorder resets the metrics, so a test takes one.
fn snapshot(recorder: &DebuggingRecorder) -> BTreeMap<String, (String, DebugValue)> {
    let snapshot = recorder.snapshotter().snapshot().into_vec();
    snapshot
        .into_iter()
        .map(|(key, unit, description, value)| {
            let key = key.key();
            let labels: Vec<_> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let name = match labels.is_empty() {
                true => key.name().to_owned(),
                false => format!("{}{{{}}}", key.name(), labels.join(",")),
            };
            assert!(description.is_some(), "{name} is described");
            let unit = unit.expect("a unit").as_str().to_owned();
            (name, (unit, value))
        })
        .collect()
}

fn tokens() -> MockTokenSource {
    MockTokenSource::new()
        .with_lifetime(Duration::from_secs(900))
        .with_latency(Duration::from_millis(250))
}

fn value(metrics: &BTreeMap<String, (String, DebugValue)>, name: &str) -> f64 {
    match &metrics.get(name).unwrap_or_else(|| panic!("{name}")).1 {
        DebugValue::Counter(value) => *value as f64,
        DebugValue::Gauge(value) => value.0,
        DebugValue::Histogram(values) => values.iter().map(|value| value.0).sum(),
    }
}

fn assert_gauges_are_zero(metrics: &BTreeMap<String, (String, DebugValue)>) {
    for name in ["entries", "fetches_in_flight", "fetches_queued", "paused"] {
        let gauge = value(metrics, &format!("bearer_auth.{name}"));
        assert_eq!(gauge, 0.0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_metrics_have_their_names_units_and_labels() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let tokens = tokens();
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(1)
        .build()
        .unwrap();
    let layer = BearerAuthLayer::from_cache(cache.clone());
    let reject = service_fn(async |_: Request<String>| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Ok::<_, Infallible>(response)
    });
    let request = Request::get("https://a.example").body(String::new());
    layer.layer(reject).oneshot(request.unwrap()).await.unwrap();
    tokens.fail_next(TokenError::permanent("no"));
    let paused = TokenRequest::scope("paused");
    cache.token_for(&paused).await.unwrap_err();
    let _hold = tokens.hold();
    for scope in ["in flight", "queued 1", "queued 2"] {
        let cache = cache.clone();
        let request = TokenRequest::scope(scope.replace(' ', "/"));
        tokio::spawn(async move { cache.token_for(&request).await });
    }
    sleep(Duration::from_millis(1)).await;

    let metrics = snapshot(&recorder);
    let all: Vec<_> = metrics
        .iter()
        .map(|(name, (unit, _))| (name.as_str(), unit.as_str()))
        .collect();
    assert_eq!(
        all,
        [
            ("bearer_auth.entries", "count"),
            ("bearer_auth.fetch.duration", "seconds"),
            ("bearer_auth.fetches_in_flight", "count"),
            ("bearer_auth.fetches_queued", "count"),
            (
                "bearer_auth.fetches{outcome=failed,reason=first,kind=source}",
                "count"
            ),
            (
                "bearer_auth.fetches{outcome=token,reason=first,kind=none}",
                "count"
            ),
            (
                "bearer_auth.fetches{outcome=token,reason=rejected,kind=none}",
                "count"
            ),
            ("bearer_auth.paused", "count"),
            ("bearer_auth.rejections{outcome=effective}", "count"),
            ("bearer_auth.replays{outcome=refused}", "count"),
            ("bearer_auth.stores_unavailable", "count"),
            ("bearer_auth.wait.duration{outcome=failed}", "seconds"),
            ("bearer_auth.wait.duration{outcome=token}", "seconds"),
        ]
    );
    for (name, expected) in [
        ("bearer_auth.entries", 4.0),
        ("bearer_auth.fetch.duration", 0.75),
        ("bearer_auth.fetches_in_flight", 1.0),
        ("bearer_auth.fetches_queued", 2.0),
        ("bearer_auth.paused", 1.0),
        ("bearer_auth.wait.duration{outcome=failed}", 0.25),
        ("bearer_auth.wait.duration{outcome=token}", 0.5),
    ] {
        assert_eq!(value(&metrics, name), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn gauges_return_to_zero() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let tokens = tokens();
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(1)
        .build()
        .unwrap();
    tokens.fail_next(TokenError::permanent("no"));
    let call = |scope: &str| {
        let (cache, request) = (cache.clone(), TokenRequest::scope(scope));
        async move { cache.token_for(&request).await }
    };
    call("paused").await.unwrap_err();
    let hold = tokens.hold();
    let callers = ["a", "b", "c"].map(|scope| tokio::spawn(call(scope)));
    sleep(Duration::from_secs(2)).await;
    drop(hold);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    drop(cache);
    sleep(Duration::from_millis(1)).await;
    assert_gauges_are_zero(&snapshot(&recorder));
}

/// A cache that is dropped in the middle of everything takes its share of the gauges with it.
#[tokio::test(start_paused = true)]
async fn a_dropped_cache_has_no_share_in_the_gauges() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let tokens = tokens();
    let cache = TokenCache::builder(tokens.clone())
        .max_concurrent_fetches(1)
        .build()
        .unwrap();
    tokens.fail_next(TokenError::permanent("no").with_retry_after(Duration::from_secs(600)));
    let paused = TokenRequest::scope("paused");
    cache.token_for(&paused).await.unwrap_err();
    let _hold = tokens.hold();
    let callers = ["a", "b"].map(|scope| {
        let (cache, request) = (cache.clone(), TokenRequest::scope(scope));
        tokio::spawn(async move { cache.token_for(&request).await })
    });
    sleep(Duration::from_millis(1)).await;
    drop(cache);
    for caller in callers {
        caller.abort();
    }
    sleep(Duration::from_secs(1)).await;
    assert_gauges_are_zero(&snapshot(&recorder));
}

#[tokio::test(start_paused = true)]
async fn the_scope_is_a_label_only_on_demand() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let tenant = TokenRequest::scope("tenant/1");
    let cache = TokenCache::new(tokens());
    cache.token_for(&tenant).await.unwrap();
    let labelled = TokenCache::builder(tokens())
        .without_default_observers()
        .observer(MetricsObserver::new().with_scope_label())
        .build()
        .unwrap();
    labelled.token_for(&tenant).await.unwrap();
    labelled.token().await.unwrap();
    let metrics = snapshot(&recorder);
    for (labels, expected) in [
        ("outcome=token,reason=first,kind=none", 1.0),
        ("outcome=token,reason=first,kind=none,scope=tenant/1", 1.0),
        ("outcome=token,reason=first,kind=none,scope=", 1.0),
    ] {
        let name = format!("bearer_auth.fetches{{{labels}}}");
        assert_eq!(value(&metrics, &name), expected, "{name}");
    }
}

/// Callers that fail are counted apart from those that wait for long.
#[tokio::test(start_paused = true)]
async fn waits_are_counted_by_their_outcome() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let tokens = tokens();
    let cache = TokenCache::new(tokens.clone());
    let waits = [1.0, 2.0].map(|secs| timeout(Duration::from_secs_f64(secs), cache.token()));
    let hold = tokens.hold();
    for wait in waits {
        wait.await.unwrap_err();
    }
    tokens.fail_next(TokenError::permanent("no"));
    drop(hold);
    cache.token().await.unwrap_err();
    let metrics = snapshot(&recorder);
    let count = |outcome| {
        let name = format!("bearer_auth.wait.duration{{outcome={outcome}}}");
        match &metrics.get(&name).unwrap().1 {
            DebugValue::Histogram(values) => values.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(count("cancelled"), 2);
    assert_eq!(count("failed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_used_is_counted_until_it_can_or_the_cache_is_dropped() {
    for is_dropped in [false, true] {
        let recorder = DebuggingRecorder::new();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let gauge = || value(&snapshot(&recorder), "bearer_auth.stores_unavailable");
        let fleet = Fleet::new();
        let cache = fleet.process();
        let fetch = async |tenant: usize| {
            let request = TokenRequest::scope(format!("tenant/{tenant}"));
            cache.token_for(&request).await.unwrap();
        };
        fetch(0).await;
        assert_eq!(gauge(), 0.0);
        fleet.store.set(Fault::Down);
        for tenant in 1..9 {
            fetch(tenant).await;
        }
        assert_eq!(gauge(), 1.0);
        if !is_dropped {
            fleet.store.set(Fault::None);
            sleep(Duration::from_secs(1)).await;
            fetch(9).await;
        }
        drop(cache);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(gauge(), -1.0, "the snapshot was reset");
    }
}
