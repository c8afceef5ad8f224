//! The failures that a test asks of `MockTokenSource`.

use std::time::Duration;

use bearer_auth::{MockTokenSource, TokenCache, TokenError, TokenRequest, TokenSource};

fn failure(text: &str) -> TokenError {
    TokenError::permanent(text)
}

/// Fetches from the source itself, without a cache and its pauses.
async fn fetch(tokens: &MockTokenSource, request: &TokenRequest) -> Result<String, String> {
    use std::error::Error;

    match tokens.fetch(request).await {
        Ok(token) => Ok(token.expose_secret().to_owned()),
        Err(error) => Err(error.source().unwrap().to_string()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_always_fails_can_recover() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    tokens.fail_times(usize::MAX, failure("down"));
    // Failures after it are never reached, but nothing overflows.
    tokens.fail_times(usize::MAX, failure("further"));
    for _ in 0..100 {
        cache.token().await.unwrap_err();
        tokio::time::advance(Duration::from_secs(120)).await;
    }
    assert_eq!(tokens.fetches(), 100);

    tokens.clear_failures();
    assert_eq!(cache.token().await.unwrap().expose_secret(), "mock-token-1");
}

#[tokio::test]
async fn failures_apply_to_their_request_in_the_order_of_the_queue() {
    let tokens = MockTokenSource::new();
    let [one, two] = ["tenant/1", "tenant/2"].map(TokenRequest::scope);
    tokens.fail_next_for(&one, failure("first of one"));
    tokens.fail_next(failure("of any"));
    tokens.fail_times_for(&one, 2, failure("rest of one"));
    tokens.fail_times_for(&two, 0, failure("of nobody"));

    assert_eq!(fetch(&tokens, &two).await, Err("of any".to_owned()));
    assert_eq!(fetch(&tokens, &two).await, Ok("mock-token-1".to_owned()));
    let default = TokenRequest::default();
    assert_eq!(
        fetch(&tokens, &default).await,
        Ok("mock-token-2".to_owned())
    );
    for expected in ["first of one", "rest of one", "rest of one"] {
        assert_eq!(fetch(&tokens, &one).await, Err(expected.to_owned()));
    }
    assert_eq!(fetch(&tokens, &one).await, Ok("mock-token-3".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn one_tenant_fails_and_the_others_do_not() {
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    let [bad, good] = ["bad", "good"].map(TokenRequest::scope);
    tokens.fail_times_for(&bad, usize::MAX, failure("unknown tenant"));
    cache.token_for(&bad).await.unwrap_err();
    cache.token_for(&good).await.unwrap();
    cache.token().await.unwrap();
    assert_eq!(tokens.fetches(), 3);
}
