//! `FileTokenSource`, `EnvTokenSource` and `FallbackTokenSource`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearer_auth::{
    EnvTokenSource, FallbackTokenSource, FileTokenSource, MockTokenSource, TokenCache, TokenError,
    TokenErrorKind, TokenRequest, TokenSource, source_fn,
};
use tokio::time::{advance, sleep};

/// A variable that cargo sets for tests.
const SET: &str = "CARGO_PKG_NAME";
const UNSET: &str = "BEARER_AUTH_TEST_UNSET";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn file(name: &str, content: impl AsRef<[u8]>) -> FileTokenSource {
    fs::write(path(name), content).unwrap();
    FileTokenSource::new(path(name)).unwrap()
}

/// Returns a JWT that was issued and expires so many seconds before and after now.
fn jwt(age: u64, remaining: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (iat, exp) = (now.as_secs() - age, now.as_secs() + remaining);
    let claims = format!(r#"{{"iat":{iat},"exp":{exp},"sub":"test"}}"#);
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// Returns the remaining life of the cache's token, in whole seconds.
async fn life(cache: &TokenCache) -> u64 {
    let end = cache.token().await.unwrap().expires_at().unwrap();
    let life = end.duration_since(SystemTime::now()).unwrap();
    life.as_secs_f64().round() as u64
}

#[tokio::test(start_paused = true)]
async fn an_opaque_token_in_a_file_lives_as_the_settings_say() {
    let source = file("opaque", "\topaque\r\n");
    let cache = TokenCache::new(source.clone());
    assert_eq!(cache.token().await.unwrap().expose_secret(), "opaque");
    assert_eq!(life(&cache).await, 300, "the cache's default");
    let cache = TokenCache::new(source.with_lifetime(secs(60)));
    assert_eq!(life(&cache).await, 60);

    // It is read again when it has expired.
    fs::write(path("opaque"), "rotated").unwrap();
    advance(secs(61)).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), "rotated");
}

#[tokio::test(start_paused = true)]
async fn a_jwt_in_a_file_lives_as_its_claims_say() {
    let first = jwt(600, 300);
    let source = file("jwt", &first).with_lifetime(secs(60));
    let cache = TokenCache::new(source);
    let remaining = life(&cache).await;
    assert!((299..=301).contains(&remaining), "{remaining} s");

    // Due after 800 s to 845 s of its 900 s.
    fs::write(path("jwt"), jwt(0, 900)).unwrap();
    advance(secs(190)).await;
    cache.token().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(cache.token().await.unwrap().expose_secret(), first);
    advance(secs(56)).await;
    cache.token().await.unwrap();
    while cache.token().await.unwrap().expose_secret() == first {
        tokio::task::yield_now().await;
    }
}

/// Returns a cache of the file, whose content is replaced after each fetch.
fn rotating(source: FileTokenSource, file: PathBuf, next: &'static str) -> TokenCache {
    TokenCache::new(source_fn(move |request: TokenRequest| {
        let (source, file) = (source.clone(), file.clone());
        async move {
            let token = source.fetch(&request).await;
            fs::write(file, next).unwrap();
            token
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn a_file_in_mid_rotation_is_read_again() {
    let missing = FileTokenSource::new(path("missing-rotated")).unwrap();
    let _ = fs::remove_file(path("missing-rotated"));
    for (name, source) in [
        ("missing-rotated", missing),
        ("empty-rotated", file("empty-rotated", "\n")),
        ("expired-rotated", file("expired-rotated", expired())),
    ] {
        let cache = rotating(source, path(name), "rotated");
        assert_eq!(cache.token().await.unwrap().expose_secret(), "rotated");
    }
}

fn expired() -> String {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1000}"#);
    format!("e30.{claims}.c2ln")
}

#[tokio::test(start_paused = true)]
async fn a_file_that_needs_a_person_is_a_permanent_error() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut sources = vec![
        FileTokenSource::new(directory).unwrap(),
        file("long", "s3cret".repeat(11_000)),
        file("binary", b"s3cret\xff"),
        file("words", "s3cret s3cret"),
    ];
    if cfg!(unix) {
        sources.push(FileTokenSource::new("/dev/zero").unwrap());
    }
    for source in sources {
        let fetches = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&fetches);
        let name = format!("{source:?}");
        let cache = TokenCache::new(source_fn(move |request: TokenRequest| {
            counter.fetch_add(1, Ordering::Relaxed);
            let source = source.clone();
            async move { source.fetch(&request).await }
        }));
        let error = cache.token().await.unwrap_err();
        assert!(!error.is_transient(), "{name}: {error}");
        assert_eq!(fetches.load(Ordering::Relaxed), 1, "{name}");
        assert!(
            !format!("{error} {error:?}").contains("s3cret"),
            "{error:?}"
        );
    }
    assert!(FileTokenSource::new("").is_err());
    // The longest file that is read.
    let cache = TokenCache::new(file("longest", "t".repeat(64 * 1024)));
    cache.token().await.unwrap();
}

/// The only blocking thread is busy, and the only thread of the runtime goes on.
#[test]
fn a_file_is_read_outside_of_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (release, released) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || released.recv());
        let cache = TokenCache::new(file("blocking", "token"));
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move { cache.token().await }
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        drop(release);
        waiting.await.unwrap().unwrap();
        busy.await.unwrap().unwrap_err();
    });
}

#[tokio::test(start_paused = true)]
async fn an_environment_variable_is_a_token_until_it_is_rejected() {
    let cache = TokenCache::new(EnvTokenSource::new(SET));
    let token = cache.token().await.unwrap();
    assert_eq!(token.expose_secret(), "bearer-auth");
    assert_eq!(token.expires_at(), None);
    let cache = TokenCache::new(EnvTokenSource::new(SET).with_lifetime(secs(60)));
    assert_eq!(life(&cache).await, 60);

    for (variable, kind, text) in [
        (
            UNSET,
            TokenErrorKind::Source,
            "`BEARER_AUTH_TEST_UNSET` is not set",
        ),
        ("", TokenErrorKind::InvalidSetting, "`variable` must be"),
        ("A=B", TokenErrorKind::InvalidSetting, "`variable` must be"),
        (
            "CARGO_PKG_DESCRIPTION",
            TokenErrorKind::InvalidToken,
            "cannot be sent",
        ),
    ] {
        let error = EnvTokenSource::new(variable)
            .fetch(&TokenRequest::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{variable}");
        assert!(!error.is_transient(), "{variable}");
        let texts = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(texts.contains(text), "{texts}");
    }
}

fn failing(error: TokenError) -> MockTokenSource {
    let source = MockTokenSource::new();
    source.fail_times(usize::MAX, error);
    source
}

#[tokio::test(start_paused = true)]
async fn the_first_source_that_has_a_token_is_used() {
    let preferred = MockTokenSource::new();
    let last = MockTokenSource::new();
    let source = FallbackTokenSource::new([EnvTokenSource::new(UNSET)])
        .or(preferred.clone())
        .or(last.clone());
    let cache = TokenCache::new(source);
    let request = TokenRequest::scope("read");
    cache.token_for(&request).await.unwrap();
    assert_eq!(preferred.requests(), [request]);
    assert_eq!(last.fetches(), 0);

    preferred.fail_next(TokenError::transient("down"));
    cache.token().await.unwrap();
    assert_eq!((preferred.fetches(), last.fetches()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_first_transient_error_of_several_sources_counts() {
    let permanent = |status| {
        let builder = TokenError::builder(TokenErrorKind::Refused);
        builder.status(status).build()
    };
    let transient = |status| {
        let builder = TokenError::builder(TokenErrorKind::Unavailable);
        builder.status(status).build()
    };
    for (errors, expected) in [
        ([permanent(401), permanent(402), permanent(403)], 401),
        ([permanent(401), transient(502), transient(503)], 502),
        ([transient(501), permanent(402), transient(503)], 501),
    ] {
        let source = FallbackTokenSource::new(errors.map(failing));
        let error = source.fetch(&TokenRequest::default()).await.unwrap_err();
        assert_eq!(error.status().unwrap().as_u16(), expected);
    }
    let none = FallbackTokenSource::new([] as [MockTokenSource; 0]);
    let error = none.fetch(&TokenRequest::default()).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidSetting);
}
