//! Rejections that arrive before the request's body was read (rules 19 and 20 of
//! `docs/behaviour.md`), through all stacks and over real sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource};
use http::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::stack::{ApiResponse, Call, Kind, Stack, token_error};

const REASON: &str = "the reason, in words";
/// More than the socket buffers of both ends hold.
const LARGE: usize = 5 << 20;

/// The API's handling of the body of a request whose token it has rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Reads it and keeps the connection open.
    Reads,
    /// Sends `connection: close`, and closes after the client has.
    ClosesLate,
    /// Closes at once and without announcement, so that a body that is being sent is lost.
    ClosesAtOnce,
}

/// An API that rejects the first token as soon as it has read the head.
struct Api {
    origin: String,
    /// The bodies of accepted requests.
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Api {
    async fn start(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let log = Arc::clone(&bodies);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Clients may disconnect at any time.
                tokio::spawn(serve(stream, then, Arc::clone(&log)));
            }
        });
        Self {
            origin,
            bodies,
            task,
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    then: Then,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut is_chunked, mut is_rejected) = (0, false, false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("transfer-encoding", _)) => is_chunked = true,
                Some(("authorization", value)) => is_rejected = value == "bearer mock-token-1",
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        if is_rejected {
            let closes = if then == Then::ClosesLate {
                "connection: close\r\n"
            } else {
                ""
            };
            let rejection = format!(
                "HTTP/1.1 401 x\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\n{closes}\
                 content-length: {}\r\n\r\n{REASON}",
                REASON.len()
            );
            stream.write_all(rejection.as_bytes()).await?;
            match then {
                Then::Reads => _ = body(&mut stream, length, is_chunked).await?,
                Then::ClosesLate => {
                    copy(&mut stream, &mut sink()).await?;
                    return Ok(());
                }
                Then::ClosesAtOnce => return Ok(()),
            }
        } else {
            let body = body(&mut stream, length, is_chunked).await?;
            bodies.lock().unwrap().push(body);
            stream
                .write_all(b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
    }
}

async fn body(
    stream: &mut BufReader<TcpStream>,
    length: usize,
    is_chunked: bool,
) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    if !is_chunked {
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// Returns bytes that depend on their position.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|it| (it % 251) as u8).collect()
}

/// Sends one request. Returns its result, the bodies of the accepted requests, and the number of
/// fetches.
async fn send(
    kind: Kind,
    then: Then,
    call: impl Fn(String) -> Call,
) -> (Result<ApiResponse, BoxError>, Vec<Vec<u8>>, usize) {
    let (tokens, api) = (MockTokenSource::new(), Api::start(then).await);
    let layer = BearerAuthLayer::new(tokens.clone())
        .allow_origin(&api.origin)
        .unwrap();
    let stack = Stack::new(kind, &layer);
    let sent = stack.send(call(format!("{}/upload", api.origin)));
    let result = timeout(Duration::from_secs(20), sent)
        .await
        .expect("the call hangs");
    // The new token is available in any case.
    layer.cache().token().await.unwrap();
    let bodies = api.bodies.lock().unwrap().clone();
    (result, bodies, tokens.fetches())
}

#[tokio::test]
async fn an_in_memory_body_is_replayed_byte_for_byte() {
    for kind in Kind::ALL {
        for then in [Then::Reads, Then::ClosesLate] {
            for len in [0, 64 << 10, LARGE] {
                let case = format!("{kind:?}, {then:?}, {len} bytes");
                let (result, bodies, fetches) =
                    send(kind, then, |url| Call::post(url, bytes(len))).await;
                assert_eq!(result.expect(&case).status, StatusCode::OK, "{case}");
                assert!(bodies == [bytes(len)], "{case}: different bytes");
                assert_eq!(fetches, 2, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_is_not_replayed_and_the_rejection_is_whole() {
    for kind in Kind::ALL {
        for then in [Then::Reads, Then::ClosesLate] {
            for len in [0, 64 << 10, LARGE] {
                let case = format!("{kind:?}, {then:?}, {len} bytes");
                let streamed = |url| Call {
                    is_streamed: true,
                    ..Call::post(url, bytes(len))
                };
                let (result, bodies, fetches) = send(kind, then, streamed).await;
                let response = result.expect(&case);
                assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{case}");
                assert_eq!(&response.body[..], REASON.as_bytes(), "{case}");
                assert!(bodies.is_empty(), "{case}: replayed");
                assert_eq!(fetches, 2, "{case}");
            }
        }
    }
}

/// The reset may discard the rejection before the client reads it, which no layer can prevent.
#[tokio::test]
async fn a_reset_connection_is_replayed_or_the_clients_own_error() {
    for kind in Kind::ALL {
        for len in [0, 64 << 10, LARGE] {
            let case = format!("{kind:?}, {len} bytes");
            let (result, bodies, fetches) =
                send(kind, Then::ClosesAtOnce, |url| Call::post(url, bytes(len))).await;
            match result {
                Ok(response) => {
                    assert_eq!(response.status, StatusCode::OK, "{case}");
                    assert!(bodies == [bytes(len)], "{case}: different bytes");
                    assert_eq!(fetches, 2, "{case}");
                }
                Err(error) => {
                    assert!(token_error(&error).is_none(), "{case}: {error:?}");
                    assert!(len > 0, "{case}: {error:?}");
                    assert_eq!((bodies.len(), fetches), (0, 1), "{case}");
                }
            }
        }
    }
}
