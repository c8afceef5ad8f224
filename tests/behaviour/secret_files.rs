//! A client secret in a file that another process rotates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{
    ClientAuthentication, ClientCredentials, ClientCredentialsSettings, TokenCache, TokenErrorKind,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::sleep;

use crate::client_assertions::{ISSUER, MAC_SECRET, client_of, fetch, field, issued};
use crate::support::api::{Api, Received, Scripted, status};
use crate::support::blocking;
use crate::support::jwt::Jwt;
use crate::support::rotation::{TENANTS, rotate_under_load, short_lived};

/// Returns the path of a file of this test alone, which does not exist yet.
fn path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secret-{name}"));
    let _ = fs::remove_file(&path);
    path
}

/// Replaces the file in one step.
pub(crate) fn replace(file: &Path, secret: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, secret).unwrap();
    fs::rename(draft, file).unwrap();
}

pub(crate) fn invalid_client() -> Scripted {
    let mut response = Response::new(Full::from(r#"{"error":"invalid_client"}"#));
    *response.status_mut() = http::StatusCode::UNAUTHORIZED;
    response
}

fn secret(request: &Received) -> String {
    field(request, "client_secret")
}

/// Returns the secrets that the endpoint received.
fn secrets(endpoint: &Api) -> Vec<String> {
    endpoint.requests().iter().map(secret).collect()
}

#[tokio::test]
async fn the_secret_file_is_read_for_each_token_request() {
    let endpoint = Api::start(|_| issued()).await;
    let file = path("each-request");
    let source = client_of(&endpoint).client_secret_file(&file).build();
    let cache = TokenCache::new(source.unwrap());
    for content in ["one", "two\n", " three \r\n\n"] {
        fs::write(&file, content).unwrap();
        cache.invalidate(&cache.token().await.unwrap());
    }
    fs::write(&file, "four").unwrap();
    cache.token().await.unwrap();
    // Each `token` but the first follows an `invalidate`.
    assert_eq!(secrets(&endpoint), ["one", "two", " three ", "four"]);
}

#[tokio::test]
async fn a_secret_rotated_before_the_answer_is_sent_in_the_same_fetch() {
    // Some servers say it by the status alone.
    for refusal in [invalid_client(), status(401)] {
        let file = path("rotated-once");
        fs::write(&file, "old").unwrap();
        let rotated = file.clone();
        let endpoint = Api::start(move |request| {
            replace(&rotated, "new\n");
            match &*secret(request) {
                "new" => issued(),
                _ => refusal.clone(),
            }
        })
        .await;
        fetch(client_of(&endpoint).client_secret_file(&file))
            .await
            .unwrap();
        assert_eq!(secrets(&endpoint), ["old", "new"]);
    }
}

#[tokio::test]
async fn a_secret_that_has_not_changed_is_sent_once_and_then_paused() {
    let file = path("wrong");
    fs::write(&file, "wrong").unwrap();
    let rewritten = file.clone();
    // The same secret, written again.
    let endpoint = Api::start(move |_| {
        replace(&rewritten, "wrong\n");
        invalid_client()
    })
    .await;
    let source = client_of(&endpoint).client_secret_file(&file).build();
    let cache = TokenCache::new(source.unwrap());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert!(!error.is_transient() && !error.is_paused());
    assert!(cache.token().await.unwrap_err().is_paused());
    assert_eq!(secrets(&endpoint), ["wrong"]);
}

#[tokio::test]
async fn a_fetch_sends_at_most_two_secrets() {
    let file = path("rotated-twice");
    fs::write(&file, "0").unwrap();
    let (rotated, rotations) = (file.clone(), AtomicUsize::new(1));
    let endpoint = Api::start(move |_| {
        let number = rotations.fetch_add(1, Ordering::Relaxed);
        replace(&rotated, &number.to_string());
        invalid_client()
    })
    .await;
    let error = fetch(client_of(&endpoint).client_secret_file(&file)).await;
    assert_eq!(error.unwrap_err().kind(), TokenErrorKind::InvalidClient);
    assert_eq!(secrets(&endpoint), ["0", "1"]);
}

#[tokio::test]
async fn a_given_secret_is_never_sent_twice() {
    let endpoint = Api::start(|_| invalid_client()).await;
    fetch(client_of(&endpoint).client_secret("given"))
        .await
        .unwrap_err();
    assert_eq!(secrets(&endpoint), ["given"]);
}

#[tokio::test]
async fn a_secret_file_that_cannot_be_used_is_a_typed_error_without_its_content() {
    let endpoint = Api::start(|_| issued()).await;
    for (name, content, transient, expected) in [
        ("missing", None, true, "cannot be read"),
        ("empty", Some(&b""[..]), true, "is empty"),
        ("blank", Some(b"\r\n"), true, "is empty"),
        ("lines", Some(b"hush\nhush"), false, "contains no secret"),
        ("bytes", Some(b"hush\xff"), false, "contains no secret"),
        ("long", Some(&[b'x'; 65537]), false, "longer than 65536"),
    ] {
        let file = path(name);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let error = fetch(client_of(&endpoint).client_secret_file(&file)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::CredentialFile, "{name}");
        assert_eq!(error.is_transient(), transient, "{name}");
        let text = format!("{error:?} {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains(expected), "{name}: {text}");
        assert!(text.contains(&format!("secret-{name}")), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }
    let folder = client_of(&endpoint).client_secret_file(env!("CARGO_TARGET_TMPDIR"));
    assert!(!fetch(folder).await.unwrap_err().is_transient());
    assert!(endpoint.requests().is_empty());

    let unset = client_of(&endpoint).client_secret_file("").build();
    assert_eq!(unset.unwrap_err().setting(), "client_secret_file");
    let both = client_of(&endpoint).client_secret_file("a");
    let error = both.client_secret("b").build().unwrap_err().to_string();
    assert!(error.contains("`client_secret_file`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_secret_file_that_appears_in_time_costs_no_error() {
    let file = path("late");
    let transport =
        tower::service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, String>(issued()) });
    let source = ClientCredentials::builder("https://id.example.com/token")
        .client_id("id")
        .client_secret_file(&file)
        .transport(transport);
    let (token, ()) = tokio::join!(fetch(source), async {
        // Time goes on only once the first try has failed and the fetch waits for the second.
        sleep(Duration::from_millis(1)).await;
        fs::write(&file, "s3cret").unwrap();
    });
    token.unwrap();
}

#[test]
fn the_secret_file_is_read_on_a_thread_that_may_block() {
    blocking::runtime_with_one_blocking_thread().block_on(async {
        let endpoint = Api::start(|_| issued()).await;
        let file = path("blocking");
        fs::write(&file, "early").unwrap();
        let source = client_of(&endpoint).client_secret_file(&file);
        let change = || fs::write(&file, "late").unwrap();
        blocking::fetch_while_the_thread_is_busy(fetch(source), change).await;
        assert_eq!(secrets(&endpoint), ["late"]);
    });
}

#[tokio::test]
async fn a_secret_of_a_file_signs_assertions_and_is_sent_as_basic() {
    let endpoint = Api::start(|_| issued()).await;
    let file = path("styles");
    fs::write(&file, format!("{MAC_SECRET}\n")).unwrap();
    let client = |style| {
        let client = client_of(&endpoint).client_secret_file(&file);
        client.client_authentication(style)
    };
    let jwt = client(ClientAuthentication::SecretJwt);
    fetch(jwt.audience(ISSUER)).await.unwrap();
    let claims = Jwt::parse(&field(&endpoint.requests()[0], "client_assertion")).claims;
    assert_eq!(claims["aud"], ISSUER);
    fetch(client(ClientAuthentication::SecretBasicRaw))
        .await
        .unwrap();
    assert!(endpoint.requests()[1].headers.contains_key("authorization"));

    let without_audience = client(ClientAuthentication::SecretJwt).build();
    assert_eq!(without_audience.unwrap_err().setting(), "audience");
    let needless = client(ClientAuthentication::SecretPost).audience(ISSUER);
    assert_eq!(needless.build().unwrap_err().setting(), "audience");
    fs::write(&file, "short").unwrap();
    let short = client(ClientAuthentication::SecretJwt).audience(ISSUER);
    let error = fetch(short).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidSetting);
}

#[tokio::test]
async fn settings_name_a_file_that_is_read_for_each_token_request() {
    let endpoint = Api::start(|_| issued()).await;
    let file = path("settings");
    let settings: ClientCredentialsSettings = serde_json::from_value(serde_json::json!({
        "token_url": endpoint.url("/token"),
        "client_id": "id",
        "client_secret_file": file,
    }))
    .unwrap();
    let source = settings.builder().unwrap().build().unwrap();
    for secret in ["one", "two"] {
        fs::write(&file, secret).unwrap();
        TokenCache::new(source.clone()).token().await.unwrap();
    }
    assert_eq!(secrets(&endpoint), ["one", "two"]);
}

/// Takes 5 s of real time, since it is about the rate of requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_rotated_under_load_costs_no_request() {
    let file = path("load");
    fs::write(&file, "secret-0").unwrap();
    let (accepted, refused) = (file.clone(), Arc::<AtomicUsize>::default());
    let refusals = Arc::clone(&refused);
    // The server switches with the file: a secret that was read before is refused.
    let endpoint = Api::start(move |request| {
        if secret(request) == fs::read_to_string(&accepted).unwrap() {
            short_lived()
        } else {
            refusals.fetch_add(1, Ordering::Relaxed);
            invalid_client()
        }
    })
    .await;
    let source = client_of(&endpoint).client_secret_file(&file).build();
    rotate_under_load("secret", source.unwrap(), 10, |number| {
        replace(&file, &format!("secret-{number}"));
    })
    .await;
    let requests = endpoint.requests().len();
    println!("{requests} token requests, {refused:?} refused and sent again");
    assert!(requests > 3 * TENANTS);
}
