//! The connection to Redis: made in the background, shared by all operations, and replaced when one
//! of them fails or takes too long.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

use crate::store::redis::channel;
use crate::store::redis::topology::Topology;
use crate::store::{StoreError, StoreKey};

/// The time limit of a new connection, with everything that it takes.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The number of messages that a slow watcher can be behind.
const CHANNEL_SIZE: usize = 1_024;

#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

pub(super) struct Connections(Arc<Shared>);

struct Shared {
    topology: Topology,
    slot: Mutex<Slot>,
    watchers: Arc<Watchers>,
}

#[derive(Default)]
struct Slot {
    /// Numbers the connections, so that a late failure does not end a later one.
    number: u64,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Connecting {
        /// Nobody may poll the runtime of the attempt any more, nor its own time limit.
        until: Instant,
        /// Closed when the attempt has ended, with the error if it failed.
        attempt: watch::Receiver<Option<StoreError>>,
    },
    Connected(Connection),
}

/// Those who wait for messages, by the name of their channel.
#[derive(Default)]
struct Watchers(Mutex<HashMap<String, broadcast::Sender<[u8; 16]>>>);

impl Connections {
    pub(super) fn new(topology: Topology) -> Self {
        Self(Arc::new(Shared {
            topology,
            slot: Mutex::default(),
            watchers: Arc::default(),
        }))
    }

    #[cfg(feature = "rustls")]
    pub(super) fn topology(&self) -> &Topology {
        &self.0.topology
    }

    /// Runs an operation. Dropped before it has finished, it ends the connection.
    pub(super) async fn run<T>(
        &self,
        operation: impl AsyncFnOnce(Connection) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let (number, connection) = self.connection().await?;
        let mut use_of_it = Use {
            shared: &self.0,
            number,
            is_over: false,
        };
        let outcome = operation(connection).await;
        use_of_it.is_over = match &outcome {
            Ok(_) => true,
            Err(error) => is_answer(error),
        };
        outcome.map_err(|error| StoreError::new(describe(&error)))
    }

    /// Waits until the token is published.
    pub(super) async fn watch(&self, key: &StoreKey) {
        let channel = channel(key.fleet());
        let (mut messages, is_new) = self.0.watchers.add(&channel);
        if is_new && let Ok((_, mut connection)) = self.connection().await {
            // If it fails, the next connection subscribes.
            let _ = connection.subscribe(&channel).await;
        }
        loop {
            match messages.recv().await {
                Ok(token) if token != *key.token() => {}
                // After an error, messages may be missing.
                Ok(_) | Err(_) => return,
            }
        }
    }

    async fn connection(&self) -> Result<(u64, Connection), StoreError> {
        self.connection_at(Instant::now()).await
    }

    /// Returns the connection, and makes one if there is none.
    async fn connection_at(&self, now: Instant) -> Result<(u64, Connection), StoreError> {
        let mut attempt = {
            let mut slot = self.0.slot();
            match &slot.state {
                State::Connected(connection) => return Ok((slot.number, connection.clone())),
                State::Connecting { until, attempt } if now < *until => attempt.clone(),
                State::Connecting { .. } | State::Idle => {
                    slot.number += 1;
                    let (sender, attempt) = watch::channel(None);
                    slot.state = State::Connecting {
                        until: now + CONNECT_LIMIT,
                        attempt: attempt.clone(),
                    };
                    let attempt_of_it = Attempt {
                        shared: Arc::clone(&self.0),
                        number: slot.number,
                        failure: sender,
                    };
                    tokio::spawn(attempt_of_it.run());
                    attempt
                }
            }
        };
        while attempt.changed().await.is_ok() {}
        let slot = self.0.slot();
        if let State::Connected(connection) = &slot.state {
            return Ok((slot.number, connection.clone()));
        }
        let failure = attempt.borrow().clone();
        Err(failure.unwrap_or_else(|| StoreError::new("the store cannot be reached")))
    }
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // No code that can panic runs under the lock.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next operation connect again, unless another one has made it do so.
    fn give_up(&self, number: u64) {
        let mut slot = self.slot();
        if slot.number == number {
            slot.state = State::Idle;
        }
    }
}

/// An operation that uses a connection.
struct Use<'a> {
    shared: &'a Shared,
    number: u64,
    /// The server has answered.
    is_over: bool,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.give_up(self.number);
        }
    }
}

/// An attempt to connect. Dropped, also with its runtime, it is over.
struct Attempt {
    shared: Arc<Shared>,
    number: u64,
    failure: watch::Sender<Option<StoreError>>,
}

impl Attempt {
    async fn run(self) {
        match timeout(CONNECT_LIMIT, self.connect()).await {
            Ok(Ok(connection)) => {
                let mut slot = self.shared.slot();
                if slot.number == self.number {
                    slot.state = State::Connected(connection);
                }
            }
            Ok(Err(error)) => {
                let error = format!("the store cannot be reached: {}", describe(&error));
                self.failure.send_replace(Some(StoreError::new(error)));
            }
            Err(_) => {}
        }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let watchers = Arc::clone(&self.shared.watchers);
        let push = move |info: PushInfo| {
            watchers.deliver(&info);
            Ok(())
        };
        let mut connection = self.shared.topology.connect(push).await?;
        for channel in self.shared.watchers.channels() {
            connection.subscribe(&channel).await?;
        }
        Ok(connection)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut slot = self.shared.slot();
        if slot.number == self.number && matches!(slot.state, State::Connecting { .. }) {
            slot.state = State::Idle;
        }
    }
}

impl Connection {
    async fn subscribe(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::Single(connection) => connection.subscribe(channel).await,
            Self::Cluster(connection) => connection.subscribe(channel).await,
        }
    }
}

impl Watchers {
    /// Returns the messages of a channel, and true if nobody has watched it before.
    fn add(&self, channel: &str) -> (broadcast::Receiver<[u8; 16]>, bool) {
        let mut channels = self.lock();
        match channels.get(channel) {
            Some(sender) => (sender.subscribe(), false),
            None => {
                let (sender, receiver) = broadcast::channel(CHANNEL_SIZE);
                channels.insert(channel.to_owned(), sender);
                (receiver, true)
            }
        }
    }

    fn channels(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn deliver(&self, info: &PushInfo) {
        if info.kind != PushKind::Message {
            return;
        }
        if let [Value::BulkString(channel), Value::BulkString(token)] = &info.data[..]
            && let Ok(channel) = std::str::from_utf8(channel)
            && let Ok(token) = <[u8; 16]>::try_from(&token[..])
            && let Some(sender) = self.lock().get(channel)
        {
            // Fails if nobody waits.
            let _ = sender.send(token);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, broadcast::Sender<[u8; 16]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true if the error is an answer, after which the connection is as good as before. After a
/// failover, it leads to a replica, which cannot be written to.
fn is_answer(error: &RedisError) -> bool {
    let is_answer = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
    is_answer && error.code() != Some("READONLY")
}

/// Returns the code or the kind of an error, since its text might repeat arguments. An error of the
/// connection cannot: it is that of the system or of TLS.
fn describe(error: &RedisError) -> String {
    if let Some(code) = error.code() {
        let code = code.chars().filter(char::is_ascii_alphanumeric);
        return code.take(40).collect();
    }
    match error.source() {
        Some(source) if error.is_io_error() => source.to_string(),
        _ => format!("{:?}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use redis::IntoConnectionInfo;
    use tokio::net::TcpListener;
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn an_attempt_on_a_runtime_that_nobody_polls_is_given_up() {
        let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
        let (unpolled, polled) = (runtime(), runtime());
        let listener = polled.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("redis://{}/", listener.local_addr().unwrap());
        let topology = Topology::single(url.into_connection_info().unwrap()).unwrap();
        let connections = Connections::new(topology);
        let start = Instant::now();
        let connect = async |now| connections.connection_at(now).now_or_never().is_none();
        let number = || connections.0.slot().number;

        assert!(unpolled.block_on(connect(start)));
        let before = start + CONNECT_LIMIT - Duration::from_millis(1);
        assert!(polled.block_on(connect(before)));
        assert_eq!(number(), 1, "all wait for the same attempt");
        assert!(polled.block_on(connect(start + CONNECT_LIMIT)));
        assert_eq!(number(), 2);
        let accepted = polled.block_on(async { timeout(CONNECT_LIMIT, listener.accept()).await });
        assert!(accepted.is_ok(), "the new attempt connects");
        // The end of the old attempt says nothing about the new one.
        drop(unpolled);
        let slot = connections.0.slot();
        assert!(matches!(slot.state, State::Connecting { .. }));
    }
}
