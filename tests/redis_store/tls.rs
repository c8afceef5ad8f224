//! TLS to a real Redis, with a private certificate authority.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bearer_auth::{Event, InvalidSetting, RedisTokenStore, TokenCache, token_store_conformance};

use super::support::redis::{RedisServer, redis_is_installed};
use super::{shared, tokens};

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/tls");
    folder.join(name)
}

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).unwrap()
}

/// Starts a server with these arguments that also listens with TLS, and returns its port for that.
fn start(args: &[&str]) -> (RedisServer, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let (certificate, authority) = (file("server.pem"), file("ca.pem"));
    let certificate = certificate.to_str().unwrap();
    let mut all = args.to_vec();
    all.extend(["--tls-port", &port, "--tls-auth-clients", "no"]);
    all.extend([
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        certificate,
    ]);
    all.extend(["--tls-ca-cert-file", authority.to_str().unwrap()]);
    (RedisServer::start(&all), port)
}

fn url(port: &str) -> String {
    format!("rediss://127.0.0.1:{port}/")
}

/// Returns the errors of the store that a cache over it reports, and the number of tokens that two
/// processes fetched.
async fn use_store(store: impl Fn() -> RedisTokenStore) -> (Vec<String>, usize) {
    let tokens = tokens();
    let errors = Arc::<Mutex<Vec<String>>>::default();
    for _ in 0..2 {
        let errors = Arc::clone(&errors);
        let observer = move |event: &Event<'_>| {
            if let Event::StoreUnavailable { error, .. } = event {
                let cause = error.and_then(|error| error.source());
                let cause = cause.map(ToString::to_string);
                errors.lock().unwrap().push(cause.unwrap_or_default());
            }
        };
        let cache = TokenCache::builder(shared(&tokens, store())).observer(Observe(observer));
        let cache = cache.build().unwrap();
        for tenant in ["a", "b", "c"] {
            let request = bearer_auth::TokenRequest::scope(tenant);
            cache.token_for(&request).await.unwrap();
        }
    }
    let errors = errors.lock().unwrap().clone();
    (errors, tokens.fetches())
}

struct Observe<F>(F);

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> bearer_auth::Observer for Observe<F> {
    fn on_event(&self, event: &Event<'_>) {
        (self.0)(event);
    }
}

#[tokio::test]
async fn a_server_with_a_certificate_of_the_private_root_conforms() {
    if !redis_is_installed() {
        return;
    }
    let (_server, port) = start(&[]);
    let store = || {
        let store = RedisTokenStore::new(url(&port)).unwrap();
        store.root_certificates(pem("ca.pem")).unwrap()
    };
    token_store_conformance(store()).await.unwrap();
    let (errors, fetches) = use_store(store).await;
    assert_eq!(errors, [""; 0]);
    assert_eq!(fetches, 3, "shared");
}

/// A server of another root, and one of none that the system knows.
#[tokio::test]
async fn a_server_with_a_certificate_of_another_root_is_a_store_that_fails() {
    if !redis_is_installed() {
        return;
    }
    let (_server, port) = start(&[]);
    let other = || {
        let store = RedisTokenStore::new(url(&port)).unwrap();
        store.root_certificates(pem("other-ca.pem")).unwrap()
    };
    let (errors, fetches) = use_store(other).await;
    assert_eq!(fetches, 6, "each works alone");
    assert_eq!(errors.len(), 2, "{errors:?}");
    for error in errors {
        assert!(error.contains("certificate"), "{error}");
    }
    let (errors, fetches) = use_store(|| RedisTokenStore::new(url(&port)).unwrap()).await;
    assert_eq!((errors.len(), fetches), (2, 6), "{errors:?}");
}

#[tokio::test]
async fn a_sentinel_and_its_master_are_known_by_the_private_root() {
    if !redis_is_installed() {
        return;
    }
    let (server, port) = start(&[]);
    let settings = server.folder().join("sentinel.conf");
    let line = format!("sentinel monitor main 127.0.0.1 {port} 1\n");
    std::fs::write(&settings, line).unwrap();
    let settings = settings.to_str().unwrap();
    let (_sentinel, port) = start(&[settings, "--sentinel", "--tls-replication", "yes"]);
    let store = RedisTokenStore::sentinel([url(&port)], "main").unwrap();
    let store = store.root_certificates(pem("ca.pem")).unwrap();
    token_store_conformance(store).await.unwrap();
}

#[test]
fn root_certificates_that_cannot_be_used_are_an_error() {
    let store = || RedisTokenStore::new("rediss://localhost/").unwrap();
    let is_error = |result: Result<RedisTokenStore, InvalidSetting>| {
        result.is_err_and(|error| error.setting() == "root_certificates")
    };
    for pem in [
        "",
        "certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ] {
        assert!(is_error(store().root_certificates(pem)), "{pem}");
    }
    let plain = RedisTokenStore::new("redis://localhost/").unwrap();
    assert!(is_error(plain.root_certificates(pem("ca.pem"))));
    let cluster = RedisTokenStore::cluster(["rediss://localhost/"]).unwrap();
    cluster.root_certificates(pem("ca.pem")).unwrap();
}
