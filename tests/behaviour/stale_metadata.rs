//! Observers see a refresh of an issuer's metadata that fails.

use std::sync::Arc;
use std::time::Duration;

use bearer_auth::{
    ClientAuthentication, FallbackTokenSource, InMemoryRefreshTokenStore, JwtBearer,
    RefreshTokenGrant, SecurityToken, TokenCache, TokenErrorKind, TokenExchange, TokenRequest,
    TokenSource,
};
use serde_json::json;
use tokio::time::advance;

use crate::discovery::{DAY, HOUR, ISSUER, Issuer, document, metadata};
use crate::support::api::status;
use crate::support::events::Recorder;

fn observed(source: impl TokenSource) -> (TokenCache, Recorder) {
    let events = Recorder::default();
    let cache = TokenCache::builder(source).observer(events.clone());
    (cache.build().unwrap(), events)
}

/// Returns the events about the metadata.
fn take(events: &Recorder) -> Vec<String> {
    let mut lines = events.take();
    lines.retain(|line| line.starts_with("metadata"));
    lines
}

/// Fetches a token after this time, which is longer than the last one lived.
async fn fetch_after(cache: &TokenCache, time: Duration) {
    advance(time).await;
    cache.token().await.unwrap();
}

const NOT_REFRESHED: &str = "metadata not refreshed: https://id.example.com/realms/a, Discovery";
const REFRESHED: &str = "metadata refreshed: https://id.example.com/realms/a";

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_has_one_event_and_so_has_the_next_one_that_succeeds() {
    let issuer = Issuer::with(&metadata());
    let (cache, events) = observed(issuer.client().build().unwrap());
    fetch_after(&cache, Duration::ZERO).await;
    issuer.answer_with(|_| document(&json!({})));
    fetch_after(&cache, HOUR).await;
    assert_eq!(take(&events), [""; 0], "it is not due");
    fetch_after(&cache, DAY).await;
    assert_eq!(take(&events), [NOT_REFRESHED]);
    for _ in 0..3 {
        fetch_after(&cache, HOUR).await;
    }
    assert_eq!(take(&events), [""; 0], "further failures");

    issuer.answer_with(|_| document(&metadata()));
    fetch_after(&cache, HOUR).await;
    assert_eq!(take(&events), [REFRESHED]);
    fetch_after(&cache, DAY).await;
    assert_eq!(take(&events), [""; 0]);

    issuer.answer_with(|_| status(503));
    fetch_after(&cache, DAY).await;
    assert_eq!(take(&events), [NOT_REFRESHED], "the next trouble");
}

#[tokio::test(start_paused = true)]
async fn each_cache_is_told_that_metadata_was_not_refreshed() {
    let issuer = Issuer::with(&metadata());
    let source = Arc::new(issuer.client().build().unwrap());
    let caches = [(); 2].map(|()| observed(Arc::clone(&source)));
    fetch_after(&caches[0].0, Duration::ZERO).await;
    issuer.answer_with(|_| document(&json!({})));
    fetch_after(&caches[0].0, DAY).await;
    caches[1].0.token().await.unwrap();
    for (_, events) in &caches {
        assert_eq!(take(events), [NOT_REFRESHED]);
    }
    issuer.answer_with(|_| document(&metadata()));
    fetch_after(&caches[1].0, HOUR).await;
    for (_, events) in &caches {
        assert_eq!(take(events), [REFRESHED]);
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_that_was_never_obtained_is_the_error_of_the_fetch() {
    let issuer = Issuer::with(&json!({}));
    let (cache, events) = observed(issuer.client().build().unwrap());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Discovery);
    assert_eq!(take(&events), [""; 0]);
}

/// Checks that the source tells its cache of a refresh that failed.
async fn assert_reports(issuer: &Issuer, source: impl TokenSource, request: TokenRequest) {
    issuer.answer_with(|_| document(&metadata()));
    let (cache, events) = observed(source);
    cache.token_for(&request).await.unwrap();
    issuer.answer_with(|_| document(&json!({})));
    advance(DAY).await;
    cache.token_for(&request).await.unwrap();
    assert_eq!(take(&events), [NOT_REFRESHED]);
}

#[tokio::test(start_paused = true)]
async fn every_grant_tells_that_metadata_was_not_refreshed() {
    let issuer = Issuer::with(&metadata());
    let transport = || {
        let issuer = issuer.clone();
        tower::service_fn(move |request| issuer.clone().respond(request))
    };
    let jwt = || async { Ok(SecurityToken::jwt("a.b.c")) };
    let source = JwtBearer::discover(ISSUER)
        .assertion(move |_| jwt())
        .transport(transport());
    let request = TokenRequest::default();
    assert_reports(&issuer, source.build().unwrap(), request.clone()).await;
    let source = TokenExchange::discover(ISSUER)
        .client_id("id")
        .client_secret("s3cret")
        .subject_token(move |_| jwt())
        .transport(transport());
    let subject = TokenRequest::subject("user");
    assert_reports(&issuer, source.build().unwrap(), subject).await;
    let source = RefreshTokenGrant::discover(ISSUER)
        .client_id("id")
        .client_authentication(ClientAuthentication::None)
        .refresh_token(InMemoryRefreshTokenStore::new("refresh"))
        .transport(transport());
    assert_reports(&issuer, source.build().unwrap(), request.clone()).await;
    // Sources that wrap another forward what it tells.
    let source = FallbackTokenSource::new([issuer.client().build().unwrap()]);
    assert_reports(&issuer, source, request).await;
}
