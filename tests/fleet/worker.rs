//! One process of the fleet.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, ClientCredentials, FleetIdentity, RedisTokenStore, RequestAuth, SealingKeys,
    SharedTokenSource,
};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokio::io::AsyncReadExt;
use tokio::time::{interval, sleep};

use crate::{TENANTS, now};

/// Each process calls the API this often for each tenant.
const INTERVAL: Duration = Duration::from_secs(3);

/// A request that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) tenant: u32,
    pub(crate) sent: u64,
    pub(crate) end: u64,
    #[allow(dead_code)] // Printed.
    reason: String,
}

pub(crate) struct Worker {
    child: Child,
    failures: Arc<Mutex<Vec<Failure>>>,
}

impl Worker {
    /// Starts a process. The first of the keys seals.
    pub(crate) fn spawn(number: usize, redis: &str, origin: &str, keys: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env("FLEET_WORKER", number.to_string())
            .env("FLEET_REDIS", redis)
            .env("FLEET_ORIGIN", origin)
            .env("FLEET_KEYS", keys)
            // It would take most of the time of a failed request.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let failures = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn({
            let failures = Arc::clone(&failures);
            move || {
                for line in lines.map_while(Result::ok) {
                    failures.lock().unwrap().extend(Failure::parse(&line));
                }
            }
        });
        Self { child, failures }
    }

    pub(crate) fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut *self.failures.lock().unwrap())
    }

    /// Kills the process, and returns what failed before.
    pub(crate) fn kill(mut self) -> Vec<Failure> {
        let _ = self.child.kill();
        self.take_failures()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Failure {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        Some(Self {
            tenant: parts.next()?.parse().ok()?,
            sent: parts.next()?.parse().ok()?,
            end: parts.next()?.parse().ok()?,
            reason: parts.next()?.to_owned(),
        })
    }
}

/// Returns the number of this process, if it is one of the fleet.
pub(crate) fn number() -> Option<usize> {
    std::env::var("FLEET_WORKER").ok()?.parse().ok()
}

pub(crate) fn run(number: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve(number));
}

async fn serve(number: usize) {
    let origin = std::env::var("FLEET_ORIGIN").unwrap();
    let token_url = format!("{origin}/token");
    let credentials = ClientCredentials::builder(&token_url)
        .client_id("fleet")
        .client_secret("s3cret")
        .param("worker", number.to_string())
        .build()
        .unwrap();
    let store = RedisTokenStore::new(std::env::var("FLEET_REDIS").unwrap()).unwrap();
    let source = SharedTokenSource::new(credentials, store, FleetIdentity::new(token_url, "fleet"))
        .name_key([1; 32])
        .unwrap()
        .sealed_with(keys());
    let source = match std::env::var("FLEET_OPERATION_TIMEOUT_MS") {
        Ok(millis) => source.operation_timeout(Duration::from_millis(millis.parse().unwrap())),
        Err(_) => source,
    };
    let auth = BearerAuthLayer::new(source).allow_origin(&origin).unwrap();
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(auth)
        .build();
    for tenant in 0..TENANTS {
        tokio::spawn(call(
            client.clone(),
            format!("{origin}/api/{tenant}"),
            tenant,
        ));
    }
    // The pipe is closed when the parent ends, however it does.
    let mut byte = [0];
    let _ = tokio::io::stdin().read(&mut byte).await;
    std::process::exit(0);
}

fn keys() -> SealingKeys {
    let key = |id: &str| [id.as_bytes()[0]; 32];
    let ids = std::env::var("FLEET_KEYS").unwrap();
    let mut ids = ids.split(',');
    let first = ids.next().unwrap();
    let keys = SealingKeys::new(first, key(first)).unwrap();
    ids.fold(keys, |keys, id| keys.and_open(id, key(id)).unwrap())
}

async fn call(client: ClientWithMiddleware, url: String, tenant: u32) {
    sleep(INTERVAL.mul_f64(fastrand::f64())).await;
    let mut interval = interval(INTERVAL);
    loop {
        interval.tick().await;
        let sent = now();
        let request = client
            .get(&url)
            .with_extension(RequestAuth::scope(format!("tenant/{tenant}")));
        let reason = match request.send().await {
            Ok(response) if response.status().is_success() => continue,
            Ok(response) => response.status().to_string(),
            Err(error) => match bearer_auth::TokenError::find(&error) {
                Some(error) => format!("{error:?}"),
                None => error.to_string(),
            },
        };
        println!("{tenant} {sent} {} {reason}", now());
    }
}
