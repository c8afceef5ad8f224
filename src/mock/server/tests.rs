//! Tests of the mock server's handle, and the HTTP client that all these tests share.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{ApiRecord, MockAuthServer, MockAuthServerBuilder, TokenRecord};

mod api;
mod bounds;
mod connections;
mod faults;
mod token_endpoint;

const FORM: &str = "grant_type=client_credentials&client_id=mock-client&client_secret=mock-secret";

#[tokio::test]
async fn the_handle_returns_urls_and_client_credentials() {
    let server = start().await;
    let port = server.origin().strip_prefix("http://127.0.0.1:").unwrap();
    assert!(port.parse::<u16>().unwrap() > 0);
    assert_eq!(server.token_url(), format!("{}/token", server.origin()));
    assert_eq!(server.api_url(), format!("{}/api", server.origin()));
    assert_eq!(server.client_id(), "mock-client");
    assert_eq!(server.client_secret(), "mock-secret");
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let builder = MockAuthServer::builder().client("some-client", "hush");
    assert!(!format!("{builder:?}").contains("hush"));
    let server = builder.start().await.unwrap();
    assert!(format!("{server:?}").contains("some-client"));
    assert!(!format!("{server:?}").contains("hush"));

    let form = "grant_type=client_credentials&client_id=some-client&client_secret=hush&other=hush";
    assert_eq!(post_form(&server, form).await.status, 200);
    call(
        &server,
        "PUT",
        "/upload/x?signature=hush",
        &[("Authorization", "hush")],
        b"hush",
    )
    .await;
    assert!(!format!("{:?}", server.token_log()).contains("hush"));
    assert!(!format!("{:?}", server.api_log()).contains("hush"));
}

#[test]
fn handles_and_records_are_send_and_sync() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<MockAuthServer>();
    assert_send_sync::<MockAuthServerBuilder>();
    assert_send_sync::<TokenRecord>();
    assert_send_sync::<ApiRecord>();
}

const FORM_TYPE: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// A response as it was received.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn token(&self) -> String {
        self.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn a_server_starts_on_the_port_of_an_earlier_one() {
    let server = start().await;
    let origin = server.origin().to_owned();
    let (_, port) = origin.rsplit_once(':').unwrap();
    let again = MockAuthServer::builder().port(port.parse().unwrap());
    let error = again.clone().start().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

    post_form(&server, FORM).await.token();
    server.shutdown().await;
    let server = again.start().await.unwrap();
    assert_eq!(server.origin(), origin);
    post_form(&server, FORM).await.token();
}

async fn start() -> MockAuthServer {
    MockAuthServer::start().await.unwrap()
}

async fn post_form(server: &MockAuthServer, form: &str) -> Answer {
    call(server, "POST", "/token", &[FORM_TYPE], form.as_bytes()).await
}

async fn post_basic(server: &MockAuthServer, credentials: &str) -> Answer {
    let basic = format!("basic {}", STANDARD.encode(credentials));
    let headers = [FORM_TYPE, ("Authorization", basic.as_str())];
    call(
        server,
        "POST",
        "/token",
        &headers,
        b"grant_type=client_credentials",
    )
    .await
}

async fn get_api(server: &MockAuthServer, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    call(server, "GET", "/api", &[("Authorization", &bearer)], b"").await
}

async fn call(
    server: &MockAuthServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    try_call(server, method, path, headers, body).await.unwrap()
}

async fn try_call(
    server: &MockAuthServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = connect(server).await;
    stream.write_all(&raw(method, path, headers, body)).await?;
    read_answer(&mut stream, method == "HEAD").await
}

fn raw(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    [request.as_bytes(), body].concat()
}

async fn connect(server: &MockAuthServer) -> BufReader<TcpStream> {
    let address = server.origin().strip_prefix("http://").unwrap();
    BufReader::new(TcpStream::connect(address).await.unwrap())
}

async fn read_answer(stream: &mut BufReader<TcpStream>, head_only: bool) -> io::Result<Answer> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let mut answer = Answer {
        status: status.ok_or(io::ErrorKind::UnexpectedEof)?,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        answer
            .headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = answer
        .header("content-length")
        .map_or(0, |value| value.parse().unwrap());
    if !head_only {
        answer.body = vec![0; length];
        stream.read_exact(&mut answer.body).await?;
    }
    Ok(answer)
}

async fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
