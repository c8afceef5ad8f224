//! Client assertions in a file that another process rotates, such as a projected token of
//! Kubernetes.

use std::convert::Infallible;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{ClientCredentials, TokenCache, TokenError, TokenErrorKind};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::timeout;

use crate::client_assertions::{JWT_BEARER, client_of, fetch, field, issued};
use crate::support::api::{Api, status};
use crate::support::blocking;
use crate::support::rotation::{TENANTS, rotate_under_load, short_lived};

/// Returns the path of a file of this test alone, which does not exist yet.
fn path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("assertion-{name}"));
    let _ = fs::remove_file(&path);
    path
}

async fn endpoint() -> Api {
    Api::start(|_| issued()).await
}

/// Returns the assertions that the endpoint received.
fn assertions(endpoint: &Api) -> Vec<String> {
    let requests = endpoint.requests();
    let assertion = |request| field(request, "client_assertion");
    requests.iter().map(assertion).collect()
}

/// Returns the texts of an error and its causes.
fn chain(error: &TokenError) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let texts = causes.map(ToString::to_string);
    format!("{error}\n{}\n{error:?}", texts.collect::<String>())
}

#[tokio::test]
async fn the_file_is_read_for_each_token_request() {
    let endpoint = endpoint().await;
    let file = path("each-request");
    for content in ["a.b.1", "a.b.2\n", " \r\na.b.3\r\n\n"] {
        fs::write(&file, content).unwrap();
        let source = client_of(&endpoint).client_assertion_file(&file);
        fetch(source).await.unwrap();
    }
    let requests = endpoint.requests();
    assert_eq!(assertions(&endpoint), ["a.b.1", "a.b.2", "a.b.3"]);
    assert_eq!(field(&requests[0], "client_assertion_type"), JWT_BEARER);
    assert_eq!(field(&requests[0], "client_id"), "my client");

    // Also by one and the same source.
    let source = client_of(&endpoint).client_assertion_file(&file).build();
    let cache = TokenCache::new(source.unwrap());
    let token = cache.token().await.unwrap();
    fs::write(&file, "a.b.4").unwrap();
    cache.invalidate(&token);
    cache.token().await.unwrap();
    assert_eq!(assertions(&endpoint)[3..], ["a.b.3", "a.b.4"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_appears_in_time_costs_no_error() {
    for (name, content) in [
        ("missing", None),
        ("empty", Some("")),
        ("blank", Some(" \n")),
    ] {
        let file = path(&format!("late-{name}"));
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let transport =
            tower::service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(issued()) });
        let source = ClientCredentials::builder("https://id.example.com/token")
            .client_id("id")
            .client_assertion_file(&file)
            .transport(transport);
        let (token, ()) = tokio::join!(fetch(source), async {
            // Time goes on only once the first try has failed and the fetch waits for the second.
            tokio::time::sleep(Duration::from_millis(1)).await;
            fs::write(&file, "a.b.c").unwrap();
        });
        assert_eq!(token.unwrap(), "t1", "{name}");
    }
}

#[tokio::test]
async fn a_file_that_stays_unusable_is_an_error_that_names_its_path_only() {
    let endpoint = endpoint().await;
    let hush: &[u8] = b"hush-hush";
    let long = [hush, &[b'x'; 10 * 1024 * 1024]].concat();
    let barely_too_long = vec![b'x'; 64 * 1024 + 1];
    let (lines, text) = (b"hush-hush\nhush-hush", [hush, &[0xff, 0xfe]].concat());
    for (name, content, transient, expected) in [
        ("missing", None, true, "cannot be read"),
        ("empty", Some(&b""[..]), true, "is empty"),
        ("blank", Some(b"\r\n \t"), true, "is empty"),
        ("10-mib", Some(&long), false, "longer than 65536 bytes"),
        (
            "64-kib",
            Some(&barely_too_long),
            false,
            "longer than 65536 bytes",
        ),
        ("no-utf-8", Some(&text), false, "contains no assertion"),
        ("lines", Some(lines), false, "contains no assertion"),
        ("nul", Some(b"hush-hush\0"), false, "contains no assertion"),
        (
            "accent",
            Some("hush-hushé".as_bytes()),
            false,
            "contains no assertion",
        ),
    ] {
        let file = path(&format!("hostile-{name}"));
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let error = fetch(client_of(&endpoint).client_assertion_file(&file)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::CredentialFile, "{name}");
        assert_eq!(error.is_transient(), transient, "{name}");
        let text = chain(&error);
        assert!(text.contains(expected), "{name}: {text}");
        assert!(
            text.contains(&format!("assertion-hostile-{name}")),
            "{text}"
        );
        assert!(
            !text.contains("hush") && !text.contains("104, 117"),
            "{text}"
        );
    }
    for directory in [env!("CARGO_TARGET_TMPDIR"), "/"] {
        let error = fetch(client_of(&endpoint).client_assertion_file(directory)).await;
        let error = error.unwrap_err();
        assert!(!error.is_transient());
        assert!(chain(&error).contains("is not a regular file"));
    }
    assert!(endpoint.requests().is_empty());

    let longest = path("longest");
    fs::write(&longest, vec![b'x'; 64 * 1024]).unwrap();
    fetch(client_of(&endpoint).client_assertion_file(longest))
        .await
        .unwrap();
}

/// Opening a pipe waits for its writer.
#[cfg(unix)]
#[tokio::test]
async fn a_pipe_does_not_block() {
    let pipe = path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let endpoint = endpoint().await;
    let fetching = fetch(client_of(&endpoint).client_assertion_file(&pipe));
    let outcome = timeout(Duration::from_secs(5), fetching).await;
    // Ends a read that would wait for a writer, and the runtime with it.
    let _writer = File::options().read(true).write(true).open(&pipe).unwrap();
    let error = outcome.expect("a fetch that waits").unwrap_err();
    assert!(chain(&error).contains("is not a regular file"));
}

#[test]
fn the_file_is_read_on_a_thread_that_may_block() {
    blocking::runtime_with_one_blocking_thread().block_on(async {
        let endpoint = endpoint().await;
        let file = path("blocking");
        fs::write(&file, "a.b.c").unwrap();
        let source = client_of(&endpoint).client_assertion_file(&file);
        let change = || fs::write(&file, "a.b.d").unwrap();
        blocking::fetch_while_the_thread_is_busy(fetch(source), change).await;
        assert_eq!(assertions(&endpoint), ["a.b.d"]);
    });
}

/// Replaces the file as Kubernetes does: the folder is a symbolic link, which is replaced.
#[cfg(unix)]
fn rotate(volume: &Path, number: usize) -> PathBuf {
    use std::os::unix::fs::symlink;

    let (current, next) = (volume.join("..data"), volume.join("..data_tmp"));
    let old = fs::read_link(&current);
    let folder = volume.join(number.to_string());
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("token"), format!("a.b.{number}\n")).unwrap();
    symlink(&folder, &next).unwrap();
    fs::rename(next, &current).unwrap();
    if let Ok(old) = old {
        fs::remove_dir_all(old).unwrap();
    }
    current.join("token")
}

#[cfg(not(unix))]
fn rotate(volume: &Path, number: usize) -> PathBuf {
    let (draft, file) = (volume.join("draft"), volume.join("token"));
    fs::write(&draft, format!("a.b.{number}\n")).unwrap();
    fs::rename(draft, &file).unwrap();
    file
}

/// Takes 5 s of real time, since it is about the rate of requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_rotated_under_load_costs_no_request() {
    /// Returns the number of a whole assertion.
    fn number(assertion: &str) -> Option<usize> {
        assertion.strip_prefix("a.b.")?.parse().ok()
    }

    // An assertion outlives its file a little. One that is older was not read for this request.
    let current = Arc::<AtomicUsize>::default();
    let oldest = Arc::clone(&current);
    let endpoint = Api::start(move |request| {
        let oldest = oldest.load(Ordering::Relaxed).saturating_sub(1);
        match number(&field(request, "client_assertion")) {
            Some(number) if number >= oldest => short_lived(),
            _ => status(401),
        }
    })
    .await;
    let volume = path("rotated");
    let _ = fs::remove_dir_all(&volume);
    fs::create_dir(&volume).unwrap();
    let file = rotate(&volume, 0);
    let source = client_of(&endpoint).client_assertion_file(&file).build();
    rotate_under_load("assertion", source.unwrap(), 5, |number| {
        rotate(&volume, number);
        current.store(number, Ordering::Relaxed);
    })
    .await;
    let requests = endpoint.requests().len();
    println!("{requests} token requests");
    assert!(requests > 3 * TENANTS);
}
