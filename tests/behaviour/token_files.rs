//! Sources that read a token from a file which another process replaces.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bearer_auth::{AccessToken, TokenCache, TokenError, TokenErrorKind, TokenRequest, source_fn};

/// Returns a file with this content, a cache whose source reads it, and the number of its fetches.
///
/// The process that writes the file writes `rotated` to it once it has been read.
fn cache(name: &str, content: &str, rotated: &str) -> (TokenCache, Arc<AtomicUsize>) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, content).unwrap();
    let (rotated, fetches) = (rotated.to_owned(), Arc::<AtomicUsize>::default());
    let counter = Arc::clone(&fetches);
    let source = source_fn(move |_: TokenRequest| {
        counter.fetch_add(1, Ordering::Relaxed);
        let token = fs::read_to_string(&file);
        fs::write(&file, &rotated).unwrap();
        async {
            Ok(AccessToken::new(
                token.map_err(TokenError::transient)?.trim(),
            )?)
        }
    });
    (TokenCache::new(source), fetches)
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_empty_in_mid_rotation_is_read_again() {
    for content in ["", "\n"] {
        let (cache, fetches) = cache("rotation", content, "rotated\n");
        assert_eq!(cache.token().await.unwrap().expose_secret(), "rotated");
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_empty_is_a_transient_error_after_three_tries() {
    let (cache, fetches) = cache("empty", "", "");
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidToken);
    assert!(error.is_transient());
    assert!(error.to_string().contains("is empty"), "{error}");
    assert_eq!(fetches.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_file_with_another_invalid_token_is_a_permanent_error() {
    let (cache, fetches) = cache("invalid", "two words", "rotated");
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidToken);
    assert!(!error.is_transient());
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
}
