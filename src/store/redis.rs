//! Redis and Valkey as the store of a fleet.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use redis::{IntoConnectionInfo, Script};

use crate::error::InvalidSetting;
use crate::store::redis::connection::{Connection, Connections};
#[cfg(feature = "rustls")]
use crate::store::redis::tls::Roots;
use crate::store::redis::topology::Topology;
use crate::store::{
    Lease, LeaseOwner, Loaded, StoreError, StoreKey, StoreTime, TokenStore, random,
};

mod connection;
mod tls;
mod topology;

/// The time for which a fence is kept after a lease. It is longer than the life of most tokens; a
/// fence that is lost begins a new epoch.
const FENCE_SPAN: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A [`TokenStore`] in Redis 7, Valkey 8, or a later version of either.
///
/// It connects when a token is first needed, in the background, and again whenever the connection
/// is lost: an unreachable store never keeps a program from starting. A connection on which an
/// operation takes too long is given up. Clones share the connection.
///
/// All keys begin with `bearer-auth:`. Those of one token have the same hash tag, so that they are
/// on one node of a cluster. Every key expires by itself.
///
/// A user of an ACL needs `~bearer-auth:*`, `&bearer-auth:*`, and the commands that begin with
/// `eval`, `script|load`, `subscribe`, `publish`, `get`, `set`, `del`, `time`, `pexpire`,
/// `pexpiretime`, `hget`, `hset` and `hincrby`.
///
/// TLS (`rediss://`) needs the feature `rustls` or `native-tls`. rustls uses the crypto provider of
/// the process; if the program has installed none, aws-lc-rs becomes it. If both features are on,
/// which any crate of the program may cause, rustls is used without the root certificates of the
/// system: set them with `root_certificates`.
///
/// ```
/// use bearer_auth::RedisTokenStore;
///
/// let store = RedisTokenStore::new("redis://127.0.0.1/")?;
/// # let _ = store;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
#[derive(Clone)]
pub struct RedisTokenStore(Arc<Connections>);

impl RedisTokenStore {
    /// Creates a store for one server: `redis://user:password@host:6379/0`, `rediss://` for TLS,
    /// `unix://` for a socket.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if the URL cannot be used.
    pub fn new(url: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        let info = url.as_ref().into_connection_info().map_err(invalid_url)?;
        Self::with(Topology::single(info))
    }

    /// Creates a store for a cluster, from the URLs of some of its nodes.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if there is no URL, if one cannot be used, or if they differ in
    /// user, password or TLS.
    pub fn cluster<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, InvalidSetting> {
        Self::with(Topology::cluster(infos(urls)?))
    }

    /// Creates a store for the master of this name, which the Sentinels with these URLs know.
    ///
    /// User, password and TLS of the first URL are used for all of them and for the master, and its
    /// database for the master.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if there is no URL, or if one cannot be used.
    pub fn sentinel<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
        master: impl Into<String>,
    ) -> Result<Self, InvalidSetting> {
        Self::with(Topology::sentinel(infos(urls)?, master.into()))
    }

    /// Sets the root certificates that sign those of the servers, as PEM, in place of the system's.
    ///
    /// Call it before the store is cloned or used: the store that it returns has a connection of
    /// its own.
    ///
    /// Default: the root certificates of the system.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if there is no certificate in it, if one cannot be read, or if a
    /// URL does not begin with `rediss://`.
    #[cfg(feature = "rustls")]
    pub fn root_certificates(self, pem: impl AsRef<[u8]>) -> Result<Self, InvalidSetting> {
        const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

        let pem = pem.as_ref();
        let invalid = || {
            InvalidSetting::new(
                "root_certificates",
                "must be certificates in PEM, for a URL that begins with `rediss://`",
            )
        };
        if !pem.windows(BEGIN.len()).any(|part| part == BEGIN) {
            return Err(invalid());
        }
        let topology = self.0.topology().clone().with_roots(Roots::of_pem(pem));
        let topology = topology.map_err(|_| invalid())?;
        Ok(Self(Arc::new(Connections::new(topology))))
    }

    fn with(topology: redis::RedisResult<Topology>) -> Result<Self, InvalidSetting> {
        let topology = topology.map_err(invalid_url)?;
        Ok(Self(Arc::new(Connections::new(topology))))
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        script: &Script,
        fill: impl FnOnce(&mut redis::ScriptInvocation<'_>),
    ) -> Result<T, StoreError> {
        let mut invocation = script.prepare_invoke();
        fill(&mut invocation);
        let operation = async |mut connection: Connection| match &mut connection {
            Connection::Single(connection) => invocation.invoke_async(connection).await,
            Connection::Cluster(connection) => invocation.invoke_async(connection).await,
        };
        self.0.run(operation).await
    }
}

fn infos<U: AsRef<str>>(
    urls: impl IntoIterator<Item = U>,
) -> Result<Vec<redis::ConnectionInfo>, InvalidSetting> {
    let info = |url: U| url.as_ref().into_connection_info().map_err(invalid_url);
    let infos: Vec<_> = urls.into_iter().map(info).collect::<Result<_, _>>()?;
    if infos.is_empty() {
        return Err(InvalidSetting::new("redis", "needs at least one URL"));
    }
    Ok(infos)
}

fn invalid_url(_: redis::RedisError) -> InvalidSetting {
    // The error might repeat a password.
    InvalidSetting::new(
        "redis",
        "must be a URL such as `redis://host:6379/0`; `rediss://` needs the feature `rustls` or \
         `native-tls`",
    )
}

/// Returns the name of something that belongs to a token. The braces contain the hash tag.
fn name(key: &StoreKey, what: &str) -> String {
    let (fleet, token) = (hex(key.fleet()), hex(key.token()));
    format!("bearer-auth:{{{fleet}.{token}}}:{what}")
}

fn channel(fleet: &[u8; 16]) -> String {
    format!("bearer-auth:{}", hex(fleet))
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

macro_rules! script {
    ($name:ident, $file:literal) => {
        static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!(concat!("redis/", $file))));
    };
}

script!(LOAD, "load.lua");
script!(COMPARE_AND_SWAP, "compare_and_swap.lua");
script!(ACQUIRE, "acquire.lua");
script!(EXTEND, "extend.lua");
script!(RELEASE, "release.lua");

#[async_trait]
impl TokenStore for RedisTokenStore {
    async fn load(&self, key: &StoreKey) -> Result<Loaded, StoreError> {
        type Answer = (u64, Option<i64>, Option<Vec<u8>>);

        let values: Vec<redis::Value> = self
            .run(&LOAD, |script| {
                script.key(name(key, "record"));
            })
            .await?;
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap_or(redis::Value::Nil);
        let parts = redis::Value::Array(vec![next(), next(), next()]);
        let (now, end, record): Answer =
            redis::from_redis_value(parts).map_err(|_| unexpected_answer())?;
        let now = StoreTime::from_millis(now);
        Ok(match record {
            Some(record) => {
                // A negative number means that it never expires.
                let end = end.and_then(|end| u64::try_from(end).ok());
                Loaded::present(record, end.map(StoreTime::from_millis), now)
            }
            None => Loaded::absent(now),
        })
    }

    async fn compare_and_swap(
        &self,
        key: &StoreKey,
        expected: Option<&[u8]>,
        record: &[u8],
        expires_at: StoreTime,
    ) -> Result<bool, StoreError> {
        self.run(&COMPARE_AND_SWAP, |script| {
            script
                .key(name(key, "record"))
                .arg(u8::from(expected.is_some()))
                .arg(expected.unwrap_or_default())
                .arg(record)
                // Zero is no time that the server accepts.
                .arg(expires_at.as_millis().max(1));
        })
        .await
    }

    async fn acquire(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let epoch: [u8; 16] = random()?;
        let lease: Option<(Vec<u8>, u64)> = self
            .run(&ACQUIRE, |script| {
                script
                    .key(name(key, "lease"))
                    .key(name(key, "fence"))
                    .arg(owner.as_bytes())
                    .arg(millis(span))
                    .arg(&epoch)
                    .arg(millis(FENCE_SPAN));
            })
            .await?;
        let Some((epoch, fence)) = lease else {
            return Ok(None);
        };
        let epoch = epoch.try_into().map_err(|_| unexpected_answer())?;
        Ok(Some(Lease::new(epoch, fence)))
    }

    async fn extend(
        &self,
        key: &StoreKey,
        owner: &LeaseOwner,
        span: Duration,
    ) -> Result<bool, StoreError> {
        self.run(&EXTEND, |script| {
            script
                .key(name(key, "lease"))
                .arg(owner.as_bytes())
                .arg(millis(span));
        })
        .await
    }

    async fn release(&self, key: &StoreKey, owner: &LeaseOwner) -> Result<(), StoreError> {
        self.run(&RELEASE, |script| {
            script.key(name(key, "lease")).arg(owner.as_bytes());
        })
        .await
    }

    async fn publish(&self, key: &StoreKey) -> Result<(), StoreError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel(key.fleet())).arg(key.token());
        let operation = async |mut connection: Connection| match &mut connection {
            Connection::Single(connection) => publish.query_async(connection).await,
            Connection::Cluster(connection) => publish.query_async(connection).await,
        };
        self.0.run(operation).await
    }

    async fn watch(&self, key: &StoreKey) {
        self.0.watch(key).await;
    }
}

fn unexpected_answer() -> StoreError {
    StoreError::new("the store gave an unexpected answer")
}

impl fmt::Debug for RedisTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTokenStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_work_are_errors_without_their_password() {
        for url in ["", "http://host/", "redis://:s3cret@host:port/", "redis://"] {
            let error = RedisTokenStore::new(url).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert!(RedisTokenStore::cluster(Vec::<String>::new()).is_err());
        assert!(RedisTokenStore::sentinel(["redis://h"; 0], "master").is_err());
    }

    #[test]
    fn urls_of_all_kinds_work_without_a_server() {
        assert!(RedisTokenStore::new("redis://user:s3cret@host:1/3").is_ok());
        assert!(RedisTokenStore::cluster(["redis://a", "redis://b:7"]).is_ok());
        assert!(RedisTokenStore::sentinel(["redis://a", "redis://b"], "master").is_ok());
    }

    #[test]
    fn keys_of_a_token_share_a_hash_tag() {
        let key = StoreKey::new([0; 16], [0x1F; 16]);
        let tag = format!("{}.{}", "0".repeat(32), "1f".repeat(16));
        assert_eq!(
            name(&key, "record"),
            format!("bearer-auth:{{{tag}}}:record")
        );
    }
}
