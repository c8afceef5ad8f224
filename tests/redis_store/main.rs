//! The store of a fleet in a real Redis, which the tests start. Skipped without `redis-server`.

#[path = "../support"]
mod support {
    pub(crate) mod redis;
}
mod tls;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bearer_auth::{
    Event, FleetIdentity, MockTokenSource, Observer, RedisTokenStore, SealingKeys,
    SharedTokenSource, TokenCache, TokenError, TokenRequest, TokenStore, token_store_conformance,
};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use support::redis::{RedisServer, redis_is_installed};

const LIFE: Duration = Duration::from_secs(900);

fn shared(tokens: &MockTokenSource, store: impl TokenStore) -> SharedTokenSource {
    let identity = FleetIdentity::new("https://identity.example.com/token", "client-42");
    SharedTokenSource::new(tokens.clone(), store, identity)
        .name_key([1; 32])
        .unwrap()
        .sealed_with(SealingKeys::new("one", [2; 32]).unwrap())
        // The machine may be busy with other tests.
        .operation_timeout(Duration::from_secs(1))
}

/// A process with a connection of its own.
fn process(tokens: &MockTokenSource, server: &RedisServer) -> TokenCache {
    TokenCache::new(shared(tokens, RedisTokenStore::new(server.url()).unwrap()))
}

fn tokens() -> MockTokenSource {
    MockTokenSource::new().with_lifetime(LIFE)
}

#[tokio::test]
async fn a_single_server_conforms() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start(&[]);
    token_store_conformance(RedisTokenStore::new(server.url()).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cluster_conforms() {
    if !redis_is_installed() {
        return;
    }
    // By default it is the server's own port plus 10,000, which may be too high.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bus = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let server = RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    while !String::from_utf8_lossy(&server.command(&["CLUSTER", "INFO"]))
        .contains("cluster_state:ok")
    {
        sleep(Duration::from_millis(20)).await;
    }
    let store = RedisTokenStore::cluster([server.url()]).unwrap();
    token_store_conformance(store.clone()).await.unwrap();
    watch_is_woken(store).await;
}

#[tokio::test]
async fn the_master_that_a_sentinel_knows_conforms() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start(&[]);
    let settings = server.folder().join("sentinel.conf");
    let line = format!("sentinel monitor main 127.0.0.1 {} 1\n", server.port());
    std::fs::write(&settings, line).unwrap();
    let sentinel = RedisServer::start(&[settings.to_str().unwrap(), "--sentinel"]);
    let store = RedisTokenStore::sentinel([sentinel.url()], "main").unwrap();
    token_store_conformance(store).await.unwrap();
}

/// Both waiting and publishing processes have connections of their own.
async fn watch_is_woken(publisher: RedisTokenStore) {
    let key = spy::key_in(&publisher).await;
    let watcher = publisher.clone();
    let watch = async { watcher.watch(&key).await };
    let publish = async {
        loop {
            publisher.publish(&key).await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
    };
    let woken = timeout(Duration::from_secs(10), async {
        tokio::select! {
            () = watch => {}
            () = publish => {}
        }
    });
    woken.await.expect("nobody was woken");
}

/// Learns a key from the operations of a source, which alone makes keys.
mod spy {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use bearer_auth::{
        Lease, LeaseOwner, Loaded, RedisTokenStore, StoreError, StoreKey, StoreTime, TokenSource,
        TokenStore,
    };

    struct Spy(RedisTokenStore, Arc<Mutex<Option<StoreKey>>>);

    pub(super) async fn key_in(store: &RedisTokenStore) -> StoreKey {
        let key = Arc::new(Mutex::new(None));
        let spy = Spy(store.clone(), Arc::clone(&key));
        let request = bearer_auth::TokenRequest::default();
        super::shared(&super::tokens(), spy)
            .fetch(&request)
            .await
            .unwrap();
        let key = key.lock().unwrap().clone();
        key.unwrap()
    }

    #[async_trait]
    impl TokenStore for Spy {
        async fn load(&self, key: &StoreKey) -> Result<Loaded, StoreError> {
            *self.1.lock().unwrap() = Some(key.clone());
            self.0.load(key).await
        }

        async fn compare_and_swap(
            &self,
            key: &StoreKey,
            expected: Option<&[u8]>,
            record: &[u8],
            expires_at: StoreTime,
        ) -> Result<bool, StoreError> {
            self.0
                .compare_and_swap(key, expected, record, expires_at)
                .await
        }

        async fn acquire(
            &self,
            key: &StoreKey,
            owner: &LeaseOwner,
            span: std::time::Duration,
        ) -> Result<Option<Lease>, StoreError> {
            self.0.acquire(key, owner, span).await
        }

        async fn extend(
            &self,
            key: &StoreKey,
            owner: &LeaseOwner,
            span: std::time::Duration,
        ) -> Result<bool, StoreError> {
            self.0.extend(key, owner, span).await
        }

        async fn release(&self, key: &StoreKey, owner: &LeaseOwner) -> Result<(), StoreError> {
            self.0.release(key, owner).await
        }

        async fn publish(&self, key: &StoreKey) -> Result<(), StoreError> {
            self.0.publish(key).await
        }

        async fn watch(&self, key: &StoreKey) {
            self.0.watch(key).await;
        }
    }
}

#[tokio::test]
async fn those_who_wait_are_woken_by_another_connection() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start(&[]);
    watch_is_woken(RedisTokenStore::new(server.url()).unwrap()).await;
    let other = RedisTokenStore::new(server.url()).unwrap();
    watch_is_woken(other).await;
}

#[tokio::test]
async fn twenty_processes_fetch_once_and_share_rejections() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start(&[]);
    let tokens = tokens().with_latency(Duration::from_millis(50));
    let processes: Vec<_> = (0..20).map(|_| process(&tokens, &server)).collect();
    let first = join_all(processes.iter().map(|it| it.token())).await;
    assert_eq!(tokens.fetches(), 1);
    for (process, token) in processes.iter().zip(first) {
        process.invalidate(&token.unwrap());
    }
    for token in join_all(processes.iter().map(|it| it.token())).await {
        assert_eq!(token.unwrap().expose_secret(), "mock-token-2");
    }
    assert_eq!(tokens.fetches(), 2);
}

#[tokio::test]
async fn a_server_that_starts_later_is_found() {
    if !redis_is_installed() {
        return;
    }
    let (tokens, mut server) = (tokens(), RedisServer::stopped(&[]));
    let (one, other) = (process(&tokens, &server), process(&tokens, &server));
    one.token().await.unwrap();
    other.token().await.unwrap();
    assert_eq!(tokens.fetches(), 2, "each works alone");
    server.restart();
    let request = TokenRequest::scope("later");
    one.token_for(&request).await.unwrap();
    other.token_for(&request).await.unwrap();
    assert_eq!(tokens.fetches(), 3);
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    if !redis_is_installed() {
        return;
    }
    let (tokens, mut server) = (tokens(), RedisServer::start(&[]));
    let (one, other) = (process(&tokens, &server), process(&tokens, &server));
    one.token().await.unwrap();
    other.token().await.unwrap();
    server.restart();
    // The first operations meet the old connections, which costs each process a fetch at most.
    for process in [&one, &other] {
        process
            .token_for(&TokenRequest::scope("first"))
            .await
            .unwrap();
    }
    let fetches = tokens.fetches();
    for process in [&one, &other] {
        process
            .token_for(&TokenRequest::scope("second"))
            .await
            .unwrap();
    }
    assert_eq!(tokens.fetches(), fetches + 1);
}

#[tokio::test]
async fn a_stalled_server_delays_nobody_for_long() {
    if !redis_is_installed() {
        return;
    }
    let (tokens, server) = (tokens(), RedisServer::start(&[]));
    let store = RedisTokenStore::new(server.url()).unwrap();
    let source = shared(&tokens, store).operation_timeout(Duration::from_millis(50));
    let process = TokenCache::new(source);
    process.token().await.unwrap();
    server.signal("STOP");
    for tenant in 0..10 {
        let start = Instant::now();
        let request = TokenRequest::scope(format!("tenant/{tenant}"));
        process.token_for(&request).await.unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
    server.signal("CONT");
}

#[tokio::test]
async fn a_full_server_costs_no_caller_its_token() {
    if !redis_is_installed() {
        return;
    }
    let (tokens, server) = (tokens(), RedisServer::start(&[]));
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..3 {
        process(&tokens, &server).token().await.unwrap();
    }
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    process(&tokens, &server).token().await.unwrap();
    process(&tokens, &server).token().await.unwrap();
    assert_eq!(tokens.fetches(), 4);
}

/// Writes down why a store cannot be used.
#[derive(Clone, Default)]
struct Causes(Arc<Mutex<Vec<String>>>);

impl Observer for Causes {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::StoreUnavailable { error, .. } = event {
            let cause = error.unwrap().source().unwrap().to_string();
            self.0.lock().unwrap().push(cause);
        }
    }
}

#[tokio::test]
async fn a_full_server_is_reported_and_read() {
    if !redis_is_installed() {
        return;
    }
    let full = ["CONFIG", "SET", "maxmemory", "1"];
    let empty = ["CONFIG", "SET", "maxmemory", "0"];
    can_only_be_read(&full, &empty, &["OOM"]).await;
}

#[tokio::test]
async fn a_server_on_which_the_user_may_not_write_is_reported_and_read() {
    if !redis_is_installed() {
        return;
    }
    let [reader, writer] = ["-set", "+set"].map(|right| ["ACL", "SETUSER", "default", right]);
    // It depends on the version.
    can_only_be_read(&reader, &writer, &["ERR", "NOPERM"]).await;
}

async fn can_only_be_read(begin: &[&str], end: &[&str], causes: &[&str]) {
    let (tokens, server) = (tokens(), RedisServer::start(&[]));
    let tenant = |number| TokenRequest::scope(format!("tenant/{number}"));
    let other = process(&tokens, &server);
    other.token_for(&tenant(0)).await.unwrap();
    server.command(begin);
    let store = RedisTokenStore::new(server.url()).unwrap();
    let (source, seen) = (Arc::new(shared(&tokens, store)), Causes::default());
    let process = TokenCache::builder(Arc::clone(&source)).observer(seen.clone());
    let process = process.build().unwrap();
    for number in 1..4 {
        assert!(source.is_store_available());
        process.token_for(&tenant(number)).await.unwrap();
    }
    assert!(!source.is_store_available());
    let fetches = tokens.fetches();
    process.token_for(&tenant(0)).await.unwrap();
    assert_eq!(tokens.fetches(), fetches, "adopted");
    server.command(end);
    let start = Instant::now();
    let mut numbers = 4..;
    while !source.is_store_available() {
        assert!(start.elapsed() < Duration::from_secs(10));
        let tenant = tenant(numbers.next().unwrap());
        process.token_for(&tenant).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    let seen = seen.0.lock().unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(causes.contains(&seen[0].as_str()), "{seen:?}");
}

/// Somebody who reads all of the store finds sealed records and hashes.
#[tokio::test]
async fn a_dump_has_no_secret_and_every_key_expires() {
    if !redis_is_installed() {
        return;
    }
    let (tokens, server) = (tokens(), RedisServer::start(&[]));
    let process = process(&tokens, &server);
    let tenant = TokenRequest::scope("tenant/42").with_subject("subject-42");
    process.token_for(&tenant).await.unwrap();
    let hold = tokens.hold();
    let fetch = tokio::spawn(async move { process.token().await });
    // While a lease is held.
    sleep(Duration::from_millis(200)).await;
    let keys = String::from_utf8(server.command(&["KEYS", "*"])).unwrap();
    assert!(keys.lines().count() >= 4, "{keys}");
    let mut dump = keys.clone().into_bytes();
    for key in keys.lines() {
        dump.extend(server.command(&["--raw", "DUMP", key]));
        let ttl = String::from_utf8(server.command(&["TTL", key])).unwrap();
        assert!(ttl.trim().parse::<i64>().unwrap() >= 0, "{key}");
    }
    drop(hold);
    fetch.await.unwrap().unwrap();
    for secret in ["mock-token", "tenant", "subject", "client-42", "identity"] {
        let finds = dump.windows(secret.len()).any(|it| it == secret.as_bytes());
        assert!(!finds, "{secret}");
    }
}

#[tokio::test]
async fn a_pause_is_shared() {
    if !redis_is_installed() {
        return;
    }
    let (tokens, server) = (tokens(), RedisServer::start(&[]));
    let failure = TokenError::permanent("dead").with_retry_after(Duration::from_secs(60));
    tokens.fail_next(failure);
    process(&tokens, &server).token().await.unwrap_err();
    let error = process(&tokens, &server).token().await.unwrap_err();
    assert!(error.is_paused());
    let left = error.retry_after().unwrap();
    assert!(
        left <= Duration::from_secs(60) && left > Duration::from_secs(50),
        "{left:?}"
    );
    assert_eq!(tokens.fetches(), 1);
}
