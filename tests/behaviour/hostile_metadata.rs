//! Metadata from an issuer that is hostile or broken, over real connections: no credentials are
//! made or sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{ClientCredentials, TokenCache, TokenErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::client_assertions::issued;
use crate::discovery::{Assertions, chain};
use crate::support::api::Api;

/// The ways in which a server responds.
#[derive(Clone, Debug)]
enum Response {
    /// A whole response.
    Whole(String),
    /// A JSON object whose members never end, as fast as they can be sent.
    EndlessKeys,
    /// A byte now and then.
    SlowDrip,
    /// Nothing at all.
    Silence,
}

/// Starts a server, and returns its address and what it has received.
async fn start(response: Response) -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::<Mutex<String>>::default();
    let log = Arc::clone(&received);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Clients close the connection at some time.
            tokio::spawn(respond(stream, response.clone(), Arc::clone(&log)));
        }
    });
    (address, received)
}

async fn respond(
    mut stream: TcpStream,
    response: Response,
    log: Arc<Mutex<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    log.lock()
        .unwrap()
        .push_str(&String::from_utf8_lossy(&head));
    let streamed = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{";
    match response {
        Response::Whole(text) => stream.write_all(text.as_bytes()).await?,
        Response::EndlessKeys => {
            stream.write_all(streamed).await?;
            for number in 0_u64.. {
                let member = format!("\"{number}\":{number},");
                stream.write_all(member.as_bytes()).await?;
            }
        }
        Response::SlowDrip => {
            stream.write_all(streamed).await?;
            loop {
                stream.write_all(b" ").await?;
                sleep(Duration::from_millis(20)).await;
            }
        }
        Response::Silence => {
            stream.read_buf(&mut head).await?;
        }
    }
    stream.shutdown().await
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

#[tokio::test]
async fn hostile_metadata_gets_no_credentials() {
    let thief = Api::start(|_| issued()).await;
    let stolen = thief.url("/token");
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        thief.url("/.well-known/openid-configuration")
    );
    let other = format!(
        r#"{{"issuer":"{}","token_endpoint":"{stolen}"}}"#,
        thief.origin()
    );
    for (response, kind, transient, expected) in [
        (
            Response::Whole(redirect),
            TokenErrorKind::Discovery,
            false,
            "no redirect is followed",
        ),
        (
            Response::Whole(ok(&other)),
            TokenErrorKind::Discovery,
            false,
            "`issuer` differs",
        ),
        (
            Response::Whole(ok(&format!(r#"{{"issuer":"{}"}}"#, "a".repeat(10 << 20)))),
            TokenErrorKind::Discovery,
            true,
            "longer than 262144 bytes",
        ),
        (
            Response::EndlessKeys,
            TokenErrorKind::Discovery,
            true,
            "longer than 262144 bytes",
        ),
        (
            Response::Whole(ok(&"[".repeat(200_000))),
            TokenErrorKind::Discovery,
            true,
            "not a JSON object",
        ),
        (
            Response::SlowDrip,
            TokenErrorKind::Timeout,
            true,
            "`try_timeout`",
        ),
        (
            Response::Silence,
            TokenErrorKind::Timeout,
            true,
            "`try_timeout`",
        ),
    ] {
        let name = format!("{response:.60?}");
        let (address, received) = start(response).await;
        let assertions = Assertions::default();
        let source = ClientCredentials::discover(format!("http://{address}"))
            .client_id("hush-id")
            .client_assertion(assertions.clone())
            .try_timeout(if transient && kind == TokenErrorKind::Timeout {
                Duration::from_millis(300)
            } else {
                Duration::from_secs(20)
            });
        let cache = TokenCache::new(source.build().unwrap());
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error:?}");
        assert_eq!(error.is_transient(), transient, "{name}");
        let text = chain(&error);
        assert!(text.contains(expected), "{name}: {text}");
        assert_eq!(assertions.audiences(), [], "{name}");
        let received = received.lock().unwrap().clone();
        assert!(
            received.starts_with("GET /.well-known/"),
            "{name}: {received}"
        );
        for secret in ["hush-id", "a.b.c", "POST", "authorization:"] {
            assert!(!received.contains(secret), "{name}: {received}");
        }
    }
    assert!(thief.requests().is_empty());
}

#[tokio::test]
async fn a_token_endpoint_of_another_server_gets_no_credentials() {
    let thief = Api::start(|_| issued()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let body = format!(
        r#"{{"issuer":"{issuer}","token_endpoint":"{}"}}"#,
        thief.url("/token")
    );
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        respond(stream, Response::Whole(ok(&body)), Arc::default()).await
    });
    let assertions = Assertions::default();
    let source = ClientCredentials::discover(issuer)
        .client_id("id")
        .client_assertion(assertions.clone());
    let cache = TokenCache::new(source.build().unwrap());
    let error = cache.token().await.unwrap_err();
    served.await.unwrap().unwrap();
    assert_eq!(error.kind(), TokenErrorKind::Discovery);
    let text = chain(&error);
    assert!(text.contains("another origin"), "{text}");
    assert_eq!(assertions.audiences(), []);
    assert!(thief.requests().is_empty());
}
