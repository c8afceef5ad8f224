//! The context of a fetch, and what a source sets on its token, on tokio's paused clock.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bearer_auth::{
    AccessToken, BearerAuthLayer, FallbackTokenSource, FetchContext, FetchReason, MockTokenSource,
    TokenCache, TokenError, TokenRequest, TokenSource, source_fn,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, ServiceExt, service_fn};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A source that records the contexts of its fetches.
#[derive(Clone)]
struct Recorder {
    tokens: MockTokenSource,
    contexts: Arc<Mutex<Vec<FetchContext>>>,
}

type Seen = (FetchReason, Option<String>, Option<String>);

impl Recorder {
    fn new(life: Duration) -> Self {
        Self {
            tokens: MockTokenSource::new().with_lifetime(life),
            contexts: Arc::default(),
        }
    }

    /// Returns the reasons of all tries, with the tokens held and rejected.
    fn contexts(&self) -> Vec<Seen> {
        let value = |token: &AccessToken| token.expose_secret().to_owned();
        let seen = |context: &FetchContext| {
            (
                context.reason(),
                context.held().map(value),
                context.rejected().map(value),
            )
        };
        self.contexts.lock().unwrap().iter().map(seen).collect()
    }

    fn last(&self) -> Seen {
        self.contexts().pop().unwrap()
    }
}

#[async_trait]
impl TokenSource for Recorder {
    async fn fetch(&self, _: &TokenRequest) -> Result<AccessToken, TokenError> {
        panic!("the cache calls `fetch_with`");
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        self.contexts.lock().unwrap().push(context.clone());
        self.tokens.fetch(request).await
    }
}

fn token(number: u32) -> Option<String> {
    Some(format!("mock-token-{number}"))
}

/// Waits until a refresh in the background has finished.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_is_told_the_reason_and_the_tokens() {
    let source = Recorder::new(secs(900));
    let cache = TokenCache::builder(source.clone())
        .fetch_timeout(secs(20))
        .build()
        .unwrap();
    cache.token().await.unwrap();
    assert_eq!(source.last(), (FetchReason::First, None, None));
    let deadline = source.contexts.lock().unwrap()[0].deadline();
    assert_eq!(deadline - Instant::now(), secs(20));

    advance(secs(846)).await;
    cache.token().await.unwrap();
    settle().await;
    assert_eq!(source.last(), (FetchReason::Due, token(1), None));

    advance(secs(895)).await;
    cache.token().await.unwrap();
    assert_eq!(source.last(), (FetchReason::Late, token(2), None));

    advance(secs(901)).await;
    let current = cache.token().await.unwrap();
    assert_eq!(source.last(), (FetchReason::Expired, token(3), None));

    cache.invalidate(&current);
    cache.token().await.unwrap();
    assert_eq!(source.last(), (FetchReason::Invalidated, None, token(4)));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_named_at_every_try_until_another_lands() {
    for (challenge, held) in [
        ("Bearer error=\"invalid_token\"", None),
        ("Bearer", token(1)),
    ] {
        let source = Recorder::new(secs(900));
        let api = service_fn(async |request: Request<Empty<Bytes>>| {
            let mut response = Response::new(());
            if request.headers()["authorization"] == "Bearer mock-token-1" {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                let challenge = challenge.parse().unwrap();
                response.headers_mut().insert("www-authenticate", challenge);
            }
            Ok::<_, Infallible>(response)
        });
        let cache = TokenCache::new(source.clone());
        let layer = BearerAuthLayer::from_cache(cache.clone())
            .allow_origin("https://api.example.com")
            .unwrap();
        cache.token().await.unwrap();
        source.tokens.fail_times(2, TokenError::transient("down"));
        let request = Request::get("https://api.example.com/")
            .body(Empty::new())
            .unwrap();
        let response = layer.layer(api).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let contexts = source.contexts();
        assert_eq!(contexts.len(), 4, "three tries after the rejection");
        for context in &contexts[1..] {
            let expected = (FetchReason::Rejected, held.clone(), token(1));
            assert_eq!(*context, expected);
        }

        advance(secs(901)).await;
        cache.token().await.unwrap();
        assert_eq!(source.last(), (FetchReason::Expired, token(2), None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_withdrawn_between_two_tries_is_named_at_the_next() {
    let source = Recorder::new(secs(900));
    let cache = TokenCache::new(source.clone());
    let first = cache.token().await.unwrap();
    advance(secs(846)).await;
    source.tokens.fail_next(TokenError::transient("down"));
    let hold = source.tokens.hold();
    cache.token().await.unwrap();
    settle().await;
    cache.invalidate(&first);
    drop(hold);
    cache.token().await.unwrap();
    assert_eq!(
        source.contexts()[1..],
        [
            (FetchReason::Due, token(1), None),
            (FetchReason::Due, None, token(1)),
        ]
    );
}

/// A source over another cache, which it relieves of the token that was rejected.
struct OverCache(TokenCache);

#[async_trait]
impl TokenSource for OverCache {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        self.0.token_for(request).await
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        if let Some(rejected) = context.rejected() {
            self.0.invalidate(rejected);
        }
        self.fetch(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_rejected_token_is_the_very_one_that_the_source_returned() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(OverCache(TokenCache::new(tokens.clone())));
    let first = cache.token().await.unwrap();
    cache.invalidate(&first);
    let second = cache.token().await.unwrap();
    // The inner cache would have returned its token again, had it not known this one.
    assert_eq!(second.expose_secret(), "mock-token-2");
    assert_eq!(tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_another_cache_is_taken_over() {
    let tokens = MockTokenSource::new();
    tokens.fail_times(1, TokenError::permanent("no"));
    let inner = TokenCache::new(tokens.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let cache = {
        let (inner, calls) = (inner.clone(), Arc::clone(&calls));
        TokenCache::new(source_fn(move |request: TokenRequest| {
            calls.fetch_add(1, Ordering::Relaxed);
            let inner = inner.clone();
            async move { inner.token_for(&request).await }
        }))
    };
    let pause = inner.token().await.unwrap_err().retry_after().unwrap();
    advance(Duration::from_millis(900)).await;
    let error = cache.token().await.unwrap_err();
    let rest = error.retry_after().unwrap();
    assert!(error.is_paused());
    assert!(rest <= pause - Duration::from_millis(900), "{rest:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 1, "not tried again");

    // The next call after the inner pause succeeds, without a pause of the outer cache's own.
    advance(rest).await;
    cache.token().await.unwrap();
    assert_eq!(tokens.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn sources_within_others_get_the_context() {
    let source = Recorder::new(secs(900));
    let request = TokenRequest::default();
    let rejected = AccessToken::new("rejected").unwrap();
    let context = FetchContext::new(FetchReason::Rejected, Instant::now()).with_rejected(rejected);
    let wrapped: [Box<dyn TokenSource>; 3] = [
        Box::new(source.clone()),
        Box::new(Arc::new(source.clone())),
        Box::new(FallbackTokenSource::new([source.clone()])),
    ];
    for (index, wrapped) in wrapped.iter().enumerate() {
        wrapped.fetch_with(&request, &context).await.unwrap();
        let contexts = source.contexts();
        let expected = (FetchReason::Rejected, None, Some("rejected".to_owned()));
        assert_eq!(contexts.get(index), Some(&expected));
    }
}

/// Returns a cache of tokens that are made by `edit`, and the number of its fetches.
fn edited(
    edit: impl Fn(AccessToken) -> AccessToken + Send + Sync + 'static,
) -> (TokenCache, Arc<AtomicUsize>) {
    let fetches = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&fetches);
    let source = source_fn(move |_: TokenRequest| {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let token = AccessToken::new(format!("token-{number}")).map(&edit);
        async move { Ok(token?) }
    });
    (TokenCache::new(source), fetches)
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_token_counts_from_its_issue() {
    let issued = SystemTime::now() - secs(600);
    for issued_first in [true, false] {
        let (cache, fetches) = edited(move |token| match issued_first {
            true => token.with_issued_at(issued).with_lifetime(secs(900)),
            false => token.with_lifetime(secs(900)).with_issued_at(issued),
        });
        let token = cache.token().await.unwrap();
        let end = token.expires_at().unwrap();
        let error = end
            .duration_since(issued + secs(900))
            .unwrap_or_else(|error| error.duration());
        assert!(error < secs(1), "{error:?}");
        // Due between 200 s and 245 s from now, as by the whole life.
        advance(secs(195)).await;
        cache.token().await.unwrap();
        settle().await;
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        advance(secs(51)).await;
        cache.token().await.unwrap();
        settle().await;
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_due_time_is_used_unchanged() {
    let due = SystemTime::now() + secs(100);
    let (cache, fetches) = edited(move |token| token.with_lifetime(secs(900)).with_due_at(due));
    cache.token().await.unwrap();
    advance(secs(95)).await;
    cache.token().await.unwrap();
    settle().await;
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
    advance(secs(6)).await;
    cache.token().await.unwrap();
    settle().await;
    assert_eq!(fetches.load(Ordering::Relaxed), 2);
}
