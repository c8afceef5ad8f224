//! The servers to connect to.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo,
    RedisResult, TlsMode,
};

use crate::store::redis::connection::Connection;
use crate::store::redis::tls::Roots;

/// The time limit of one connection attempt, which no caller waits for that long.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Topology {
    servers: Servers,
    roots: Roots,
}

#[derive(Clone)]
enum Servers {
    Single(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: String,
    },
    Cluster(Vec<ConnectionInfo>),
}

impl Topology {
    pub(super) fn single(info: ConnectionInfo) -> RedisResult<Self> {
        Self::checked(Servers::Single(info))
    }

    pub(super) fn cluster(nodes: Vec<ConnectionInfo>) -> RedisResult<Self> {
        Self::checked(Servers::Cluster(nodes))
    }

    pub(super) fn sentinel(sentinels: Vec<ConnectionInfo>, master: String) -> RedisResult<Self> {
        Self::checked(Servers::Sentinel { sentinels, master })
    }

    fn checked(servers: Servers) -> RedisResult<Self> {
        let roots = Roots::default();
        Self { servers, roots }.check()
    }

    /// Sets the only certificates that servers may be signed by.
    #[cfg(feature = "rustls")]
    pub(super) fn with_roots(self, roots: Roots) -> RedisResult<Self> {
        Self { roots, ..self }.check()
    }

    /// Makes the client, which neither connects nor chooses a crypto provider.
    fn check(self) -> RedisResult<Self> {
        match &self.servers {
            Servers::Single(info) => drop(self.single_client(info)?),
            Servers::Sentinel { sentinels, master } => {
                drop(self.sentinel_client(sentinels, master)?);
            }
            Servers::Cluster(nodes) => drop(self.cluster_client(nodes, |_| Ok(()))?),
        }
        Ok(self)
    }

    /// Connects. `push` gets the messages of all channels.
    pub(super) async fn connect(
        &self,
        push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> RedisResult<Connection> {
        if self.uses_tls() {
            Roots::choose_crypto_provider();
        }
        let client = match &self.servers {
            Servers::Single(info) => self.single_client(info)?,
            Servers::Sentinel { sentinels, master } => {
                let mut sentinels = self.sentinel_client(sentinels, master)?;
                sentinels.async_get_client().await?
            }
            Servers::Cluster(nodes) => {
                let client = self.cluster_client(nodes, push)?;
                return Ok(Connection::Cluster(client.get_async_connection().await?));
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            // Each operation has a limit of its own.
            .set_response_timeout(None)
            .set_push_sender(push);
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        Ok(Connection::Single(connection.await?))
    }

    fn uses_tls(&self) -> bool {
        let infos = match &self.servers {
            Servers::Single(info) => std::slice::from_ref(info),
            Servers::Sentinel {
                sentinels: infos, ..
            }
            | Servers::Cluster(infos) => infos,
        };
        let mut addresses = infos.iter().map(ConnectionInfo::addr);
        addresses.any(|address| matches!(address, ConnectionAddr::TcpTls { .. }))
    }

    fn single_client(&self, info: &ConnectionInfo) -> RedisResult<Client> {
        // The protocol in which messages arrive on the connection of the other operations.
        let settings = info.redis_settings().clone();
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        self.roots.client(info.clone().set_redis_settings(settings))
    }

    fn sentinel_client(
        &self,
        sentinels: &[ConnectionInfo],
        master: &str,
    ) -> RedisResult<SentinelClient> {
        let addresses = sentinels.iter().map(|info| info.addr().clone());
        let mut builder =
            SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                .set_client_to_redis_protocol(ProtocolVersion::RESP3);
        if let Some(first) = sentinels.first() {
            let settings = first.redis_settings();
            builder = builder.set_client_to_redis_db(settings.db());
            if let Some(user) = settings.username() {
                builder = builder
                    .set_client_to_redis_username(user)
                    .set_client_to_sentinel_username(user);
            }
            if let Some(password) = settings.password() {
                builder = builder
                    .set_client_to_redis_password(password)
                    .set_client_to_sentinel_password(password);
            }
            if let ConnectionAddr::TcpTls { insecure, .. } = first.addr() {
                builder = builder.set_client_to_redis_tls_mode(match insecure {
                    true => TlsMode::Insecure,
                    false => TlsMode::Secure,
                });
            }
        }
        self.roots.sentinel(builder).build()
    }

    fn cluster_client(
        &self,
        nodes: &[ConnectionInfo],
        push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> RedisResult<ClusterClient> {
        let builder = ClusterClientBuilder::new(nodes.iter().cloned())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECT_LIMIT)
            .push_sender(push);
        self.roots.cluster(builder).build()
    }
}
