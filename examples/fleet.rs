//! Three processes that share one token through Redis: `cargo run --example fleet`
//!
//! It starts a Redis server, an authorization server, and three processes of itself. Each calls an
//! API 25 times within 10 s, with tokens that live 4 s. Without the store, each process would send
//! a token request of its own for every token.
//!
//! Needs `redis-server` on the path.

use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bearer_auth::{
    BearerAuthLayer, ClientCredentials, FleetIdentity, MockAuthServer, RedisTokenStore,
    SealingKeys, SharedTokenSource,
};
use reqwest_middleware::ClientBuilder;

const PROCESSES: usize = 3;
const REQUESTS: usize = 25;

/// Ends a program with this value.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match std::env::var("FLEET_REDIS_URL") {
        Ok(redis_url) => serve(&redis_url).await,
        Err(_) => lead().await,
    }
}

/// Starts the servers and the processes, and says how many token requests they sent.
async fn lead() -> Result<(), Box<dyn Error>> {
    let Some((_redis, redis_url)) = start_redis()? else {
        return Ok(());
    };
    let server = MockAuthServer::start().await?;
    server.set_lifetime(Duration::from_secs(4));
    let mut processes = Vec::new();
    for number in 1..=PROCESSES {
        let process = Command::new(std::env::current_exe()?)
            .env("FLEET_PROCESS", number.to_string())
            .env("FLEET_REDIS_URL", &redis_url)
            .env("FLEET_TOKEN_URL", server.token_url())
            .env("FLEET_API_URL", server.api_url())
            .env("FLEET_CLIENT_ID", server.client_id())
            .env("FLEET_CLIENT_SECRET", server.client_secret())
            .spawn()?;
        processes.push(Program(process));
    }
    let start = Instant::now();
    for process in &mut processes {
        while process.0.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(60) {
                return Err("a process hangs".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if !process.0.wait()?.success() {
            return Err("a process failed".into());
        }
    }
    let (api, token) = (server.api_requests(), server.token_requests());
    println!("{PROCESSES} processes sent {api} requests to the API, and {token} token requests");
    if token >= 2 * PROCESSES {
        return Err("they did not share their tokens".into());
    }
    Ok(())
}

/// Calls the API, as one of several processes.
async fn serve(redis_url: &str) -> Result<(), Box<dyn Error>> {
    let token_url = std::env::var("FLEET_TOKEN_URL")?;
    let client_id = std::env::var("FLEET_CLIENT_ID")?;
    let api_url = std::env::var("FLEET_API_URL")?;
    let credentials = ClientCredentials::builder(&token_url)
        .client_id(&client_id)
        .client_secret(std::env::var("FLEET_CLIENT_SECRET")?)
        .scope("tenant/1")
        .build()?;

    // In production, the keys come from where the client secret comes from, and are random.
    let (name_key, sealing_key) = ([1; 32], [2; 32]);
    let store = RedisTokenStore::new(redis_url)?;
    let identity = FleetIdentity::new(&token_url, &client_id).default_scope("tenant/1");
    let source = SharedTokenSource::new(credentials, store, identity)
        .name_key(name_key)?
        .sealed_with(SealingKeys::new("2026-11", sealing_key)?);
    let auth = BearerAuthLayer::new(source).allow_origin_of(&api_url)?;
    let client = ClientBuilder::new(reqwest::Client::new())
        .with(auth)
        .build();

    for _ in 0..REQUESTS {
        let response = client.get(&api_url).send().await?;
        if !response.status().is_success() {
            return Err(format!("the API answered {}", response.status()).into());
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    println!("process {} is done", std::env::var("FLEET_PROCESS")?);
    Ok(())
}

/// Starts a server on a free port of this machine. Returns nothing if it is not installed.
fn start_redis() -> Result<Option<(Program, String)>, Box<dyn Error>> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let folder = std::env::temp_dir();
    let redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .stdout(Stdio::null())
        .spawn();
    let redis = match redis {
        Ok(redis) => Program(redis),
        // There is no Redis for Windows.
        Err(error) if cfg!(unix) && std::env::var_os("CI").is_some() => return Err(error.into()),
        Err(_) => {
            println!("skipped: `redis-server` is missing: apt-get install redis-server");
            return Ok(None);
        }
    };
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if start.elapsed() > Duration::from_secs(10) {
            return Err("redis-server does not start".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Some((redis, format!("redis://127.0.0.1:{port}/"))))
}
