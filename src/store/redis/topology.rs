//! The servers to connect to.

use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::sentinel::{Sentinel, SentinelNodeConnectionInfo};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo,
    RedisResult, TlsMode,
};

use crate::store::redis::connection::Connection;

/// The time limit of one connection attempt, which no caller waits for that long.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

pub(super) enum Topology {
    Single(Client),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: String,
    },
    Cluster(Vec<ConnectionInfo>),
}

impl Topology {
    pub(super) fn single(info: ConnectionInfo) -> RedisResult<Self> {
        Ok(Self::Single(Client::open(with_push(info))?))
    }

    pub(super) fn cluster(nodes: Vec<ConnectionInfo>) -> RedisResult<Self> {
        // Only checks them.
        ClusterClient::new(nodes.iter().cloned())?;
        Ok(Self::Cluster(nodes))
    }

    pub(super) fn sentinel(sentinels: Vec<ConnectionInfo>, master: String) -> RedisResult<Self> {
        Sentinel::build(sentinels.clone())?;
        Ok(Self::Sentinel { sentinels, master })
    }

    /// Connects. `push` gets the messages of all channels.
    pub(super) async fn connect(
        &self,
        push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> RedisResult<Connection> {
        match self {
            Self::Single(client) => connect_to(client, push).await,
            Self::Sentinel { sentinels, master } => {
                let mut sentinel = Sentinel::build(sentinels.clone())?;
                let mut node = SentinelNodeConnectionInfo::default();
                if let Some(first) = sentinels.first() {
                    node = node.set_redis_connection_info(
                        with_push(first.clone()).redis_settings().clone(),
                    );
                    if let ConnectionAddr::TcpTls { insecure, .. } = first.addr() {
                        node = node.set_tls_mode(match insecure {
                            true => TlsMode::Insecure,
                            false => TlsMode::Secure,
                        });
                    }
                }
                let client = sentinel.async_master_for(master, Some(&node)).await?;
                connect_to(&client, push).await
            }
            Self::Cluster(nodes) => {
                let client = ClusterClientBuilder::new(nodes.iter().cloned())
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(CONNECT_LIMIT)
                    .push_sender(push)
                    .build()?;
                Ok(Connection::Cluster(client.get_async_connection().await?))
            }
        }
    }
}

async fn connect_to(
    client: &Client,
    push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
) -> RedisResult<Connection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_LIMIT))
        // Each operation has a limit of its own.
        .set_response_timeout(None)
        .set_push_sender(push);
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    Ok(Connection::Single(connection.await?))
}

/// Chooses the protocol in which messages arrive on the connection of the other operations.
fn with_push(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone();
    info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
}
