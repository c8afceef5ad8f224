//! A refusal that comes before the request's body was read (BEHAVIOUR D): the request is sent again byte
//! for byte, or the refusal is the answer; through all three stacks, over real sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, MockTokenSource};
use http::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::stack::{Answer, Call, Kind, Stack, token_error};

const REASON: &str = "the reason, in words";
/// More than both ends' socket buffers take at once.
const LARGE: usize = 5 << 20;

/// What the API does with the body that belongs to a refused token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Reads it on the same connection, which stays open.
    Reads,
    /// Says that it will close, and does so when the client has.
    ClosesLate,
    /// Closes at once, without a word: what the client had under way is lost.
    ClosesAtOnce,
}

/// Refuses the first token as soon as it has read the head.
struct Api {
    origin: String,
    /// Of the requests that were accepted.
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
                // Clients hang up as they like.
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
        let (mut length, mut is_chunked, mut is_refused) = (0, false, false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("transfer-encoding", _)) => is_chunked = true,
                Some(("authorization", value)) => is_refused = value == "bearer mock-token-1",
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        if is_refused {
            let closes = if then == Then::ClosesLate {
                "connection: close\r\n"
            } else {
                ""
            };
            let refusal = format!(
                "HTTP/1.1 401 x\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\n{closes}\
                 content-length: {}\r\n\r\n{REASON}",
                REASON.len()
            );
            stream.write_all(refusal.as_bytes()).await?;
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

/// Some bytes that differ by place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|it| (it % 251) as u8).collect()
}

/// Sends one request; how it ended, and the bodies that the API accepted.
async fn send(
    kind: Kind,
    then: Then,
    call: impl Fn(String) -> Call,
) -> (Result<Answer, bearer_auth::BoxError>, Vec<Vec<u8>>, usize) {
    let (tokens, api) = (MockTokenSource::new(), Api::start(then).await);
    let layer = BearerAuthLayer::new(tokens.clone())
        .allow_origin(&api.origin)
        .unwrap();
    let stack = Stack::new(kind, &layer);
    let sent = stack.send(call(format!("{}/upload", api.origin)));
    let ended = timeout(Duration::from_secs(20), sent).await.expect("hung");
    // The next one has the new token, whatever became of this one.
    layer.cache().token().await.unwrap();
    let bodies = api.bodies.lock().unwrap().clone();
    (ended, bodies, tokens.fetches())
}

#[tokio::test]
async fn a_body_in_memory_is_sent_again_byte_for_byte() {
    for kind in Kind::ALL {
        for then in [Then::Reads, Then::ClosesLate] {
            for len in [0, 64 << 10, LARGE] {
                let case = format!("{kind:?}, {then:?}, {len} bytes");
                let (ended, bodies, fetches) =
                    send(kind, then, |url| Call::post(url, bytes(len))).await;
                assert_eq!(ended.expect(&case).status, StatusCode::OK, "{case}");
                assert!(bodies == [bytes(len)], "{case}: other bytes");
                assert_eq!(fetches, 2, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_is_not_sent_again_and_the_refusal_is_whole() {
    for kind in Kind::ALL {
        for then in [Then::Reads, Then::ClosesLate] {
            for len in [0, 64 << 10, LARGE] {
                let case = format!("{kind:?}, {then:?}, {len} bytes");
                let (ended, bodies, fetches) =
                    send(kind, then, |url| Call::post(url, bytes(len)).streamed()).await;
                let answer = ended.expect(&case);
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{case}");
                assert_eq!(&answer.body[..], REASON.as_bytes(), "{case}");
                assert!(bodies.is_empty(), "{case}: sent again");
                assert_eq!(fetches, 2, "{case}");
            }
        }
    }
}

/// The refusal itself may be lost to the reset, which no layer can mend. Nothing else may be.
#[tokio::test]
async fn a_connection_that_breaks_is_the_clients_own_error_if_not_mended() {
    for kind in Kind::ALL {
        for len in [0, 64 << 10, LARGE] {
            let case = format!("{kind:?}, {len} bytes");
            let (ended, bodies, fetches) =
                send(kind, Then::ClosesAtOnce, |url| Call::post(url, bytes(len))).await;
            match ended {
                Ok(answer) => {
                    assert_eq!(answer.status, StatusCode::OK, "{case}");
                    assert!(bodies == [bytes(len)], "{case}: other bytes");
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
