//! Malformed responses of the token endpoint (rules 15 and 16 of `docs/behaviour.md`), through both
//! transports: each is a typed error within the fetch timeout, in bounded memory and without a
//! panic, and the next well-formed response is a token.
//!
//! The transports differ in one thing: reqwest (with its feature `gzip`) decodes
//! `content-encoding: gzip`, and hyper-util's client does not.

use std::cell::Cell;
use std::iter::repeat_n;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bearer_auth::TokenErrorKind::{
    Connection, InvalidClient, InvalidResponse, Timeout, Unavailable,
};
use bearer_auth::{ClientCredentials, TokenCache, TokenError, TokenErrorKind};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::time::sleep;

use Endpoint::{Closes, Drips, Floods, Holds, Resets};

/// The fetch timeout of the cases that reach it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The fetch timeout of all others: enough for three tries on any machine.
const UNREACHED_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(10);
/// The most memory that a call may hold at any moment, with its connection and decoder.
const MAX_MEMORY: u64 = 2 << 20;
const LONGEST_BODY: usize = 256 << 10;

const ZIP: &str = "content-encoding: gzip\r\n";
const SECRET: &str = "hush-hush";
const TOKEN: &str = r#"{"access_token":"sesame"}"#;
/// `TOKEN`, compressed.
const ZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x4a\x4c\x4e\x4e\x2d\
    \x2e\x8e\x2f\xc9\xcf\x4e\xcd\x53\xb2\x52\x2a\x4e\x2d\x4e\xcc\x4d\x55\xaa\x05\x00\
    \xe6\x4f\x01\xd6\x19\x00\x00\x00";
/// The start of a gzip stream in which each zero byte that follows decodes to 1,032 zeros.
const BOMB: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\
    \xed\xc1\x31\x01\0\0\0\xc2\xa0\xf5\x4f\x6d\x08\x5f\xa0";

thread_local! {
    /// The panics on this thread, with those that a runtime has caught.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// The endpoint's behaviour once it has read a token request.
#[derive(Clone)]
enum Endpoint {
    /// Sends this, then closes the connection.
    Closes(Vec<u8>),
    /// Sends this, then nothing more.
    Holds(Vec<u8>),
    /// Sends the first, then the second every 50 ms for ever.
    Drips(Vec<u8>, &'static str),
    /// Sends the first, then repeats the second as fast as it can.
    Floods(Vec<u8>, Vec<u8>),
    Resets,
}

/// The expected results through reqwest and through hyper-util: the token `sesame`, or an error.
type Outcomes = [Result<(), TokenErrorKind>; 2];

macro_rules! check {
    ($($name:literal => $outcomes:expr, $endpoint:expr;)*) => {
        check_all(&[$(($name, $outcomes, $endpoint)),*])
    };
}

/// Returns the head of a 200 with these lines.
fn head(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

/// Returns a whole response.
fn response(status: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends a 200 with this body, then closes the connection.
fn body(body: impl AsRef<[u8]>) -> Endpoint {
    Closes(response(
        "200 OK",
        "content-type: application/json\r\n",
        body,
    ))
}

/// Sends a token response whose last member, `name`, is an array or object nested to this depth.
fn nested(name: &str, open: &str, close: &str, depth: usize) -> Endpoint {
    let (open, close) = (open.repeat(depth), close.repeat(depth));
    let token = TOKEN.strip_suffix('}').unwrap();
    body(format!("{token},\"{name}\":{open}0{close}}}"))
}

fn padded(length: usize) -> Vec<u8> {
    let blanks = repeat_n(b' ', length - TOKEN.len());
    TOKEN.bytes().chain(blanks).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn bodies_that_end_early_or_never_are_errors() {
    let long = || head("content-length: 100000\r\n");
    let chunked = || head("transfer-encoding: chunked\r\n");
    let then = |head: Vec<u8>, more: &str| [head, bytes(more)].concat();
    let huge = head("content-length: 9223372036854775807\r\n");
    let two_lengths = head("content-length: 1\r\ncontent-length: 2\r\n");
    let failed = bytes("HTTP/1.1 503 x\r\ncontent-length: 999\r\n\r\n");
    let closing = response("200 OK", "connection: close\r\n", TOKEN);
    let chunk = "1\r\n \r\n";
    let chunks = format!("100\r\n{:256}\r\n", "");
    check! {
        "a body that drips" => [Err(Timeout); 2], Drips(long(), " ");
        "a body that drips, with a 503" => [Err(Timeout); 2], Drips(failed, " ");
        "half a body, then closed" => [Err(Connection); 2], Closes(then(long(), TOKEN));
        "half a body, then silence" => [Err(Timeout); 2], Holds(then(long(), TOKEN));
        "a length larger than any memory" => [Err(Connection); 2], Closes(then(huge, TOKEN));
        "two lengths" => [Err(Connection); 2], Closes(two_lengths);
        "chunks without end" => [Err(InvalidResponse); 2],
            Floods(chunked(), bytes(&chunks));
        "chunks without end, slowly" => [Err(Timeout); 2], Drips(chunked(), chunk);
        "a chunk with an invalid size" => [Err(InvalidResponse); 2],
            Closes(then(chunked(), "zz\r\n"));
        "a chunk with too large a size" => [Err(InvalidResponse); 2],
            Closes(then(chunked(), "FFFFFFFFFFFFFFFFF\r\n"));
        "a chunk's extension without end" => [Err(InvalidResponse); 2],
            Floods(then(chunked(), "1;"), bytes("x"));
        "trailers without end" => [Err(InvalidResponse); 2],
            Floods(then(chunked(), "0\r\n"), bytes("a: b\r\n"));
        "a body without length, closed" => [Ok(()); 2], Closes(then(head(""), TOKEN));
        "a body without length, not closed" => [Err(Timeout); 2],
            Holds(then(head(""), TOKEN));
        "a whole response, not closed" => [Ok(()); 2], Holds(closing);
    }
}

#[test]
fn bodies_of_more_than_256_kib_are_errors() {
    let zipped = |body: &[u8]| Closes(response("200 OK", ZIP, body));
    let bomb = [BOMB, &[0; 10_240]].concat();
    let endless_bomb = [&head(ZIP), BOMB].concat();
    let failed = bytes("HTTP/1.1 503 x\r\n\r\n");
    check! {
        "256 KiB, the limit" => [Ok(()); 2], body(padded(LONGEST_BODY));
        "256 KiB and one byte" => [Err(InvalidResponse); 2], body(padded(LONGEST_BODY + 1));
        "8 MiB" => [Err(InvalidResponse); 2], body(padded(8 << 20));
        "without end" => [Err(InvalidResponse); 2], Floods(head(""), bytes(" "));
        "without end, with a 503" => [Err(Unavailable); 2], Floods(failed, bytes(" "));
        "10 MiB in 10 KiB of gzip" => [Err(InvalidResponse); 2], zipped(&bomb);
        "gzip without end" => [Err(InvalidResponse); 2], Floods(endless_bomb, vec![0]);
        "a token in gzip" => [Ok(()), Err(InvalidResponse)], zipped(ZIPPED);
        "a token that is not in gzip" => [Err(InvalidResponse), Ok(())], zipped(TOKEN.as_bytes());
        "half a token in gzip" => [Err(Connection), Err(InvalidResponse)],
            zipped(&ZIPPED[..ZIPPED.len() / 2]);
    }
}

#[test]
fn malformed_heads_are_errors() {
    let start = || bytes("HTTP/1.1 200 OK\r\n");
    let line = || [start(), bytes("a: ")].concat();
    let ssh = bytes("SSH-2.0-OpenSSH_9.6\r\n");
    let upgrade = bytes("HTTP/1.1 101 x\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n");
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nlink: </x>\r\n\r\n";
    let late = [interim.as_bytes(), &response("200 OK", "", TOKEN)].concat();
    let wide = response("200 OK", &format!("a: {}\r\n", "x".repeat(1 << 20)), TOKEN);
    check! {
        "closed at once" => [Err(Connection); 2], Closes(Vec::new());
        "reset" => [Err(Connection); 2], Resets;
        "no response" => [Err(Timeout); 2], Holds(Vec::new());
        "half a head" => [Err(Timeout); 2], Holds(line());
        "a head that drips" => [Err(Timeout); 2], Drips(line(), "x");
        "another protocol" => [Err(Connection); 2], Closes(ssh);
        "bytes without meaning" => [Err(Connection); 2], Closes(vec![0xFF; 9_999]);
        "header lines without end" => [Err(Connection); 2], Floods(start(), bytes("a: b\r\n"));
        "one header line without end" => [Err(Connection); 2], Floods(line(), bytes("x"));
        "a header line of 1 MiB" => [Err(Connection); 2], Closes(wide);
        "interim responses" => [Ok(()); 2], Closes(late);
        // Not as a flood: hyper parses all that its buffer holds before it yields, which takes half
        // a minute in a debug build (less than half a second in a release build).
        "interim responses without end" => [Err(Timeout); 2], Drips(Vec::new(), interim);
        "a switch to another protocol" => [Err(InvalidResponse); 2], Closes(upgrade);
    }
}

#[test]
fn bodies_without_a_usable_token_are_errors() {
    let utf16 = TOKEN.encode_utf16().flat_map(u16::to_le_bytes);
    let utf16: Vec<u8> = [0xFF, 0xFE].into_iter().chain(utf16).collect();
    let html = response("200 OK", "content-type: text/html\r\n", TOKEN);
    let no_content = bytes("HTTP/1.1 204 No Content\r\n\r\n");
    let twice = r#"{"access_token":"open","access_token":"sesame"}"#;
    let object = r#"{"":"#;
    check! {
        "an empty body" => [Err(InvalidResponse); 2], body("");
        "a 204" => [Err(InvalidResponse); 2], Closes(no_content);
        "HTML" => [Err(InvalidResponse); 2], body("<!doctype html><title>Sign in</title>");
        "a token as HTML" => [Ok(()); 2], Closes(html);
        "an error" => [Err(InvalidClient); 2], body(r#"{"error":"invalid_client"}"#);
        "an unknown error" => [Err(InvalidResponse); 2],
            body(r#"{"access_token":"sesame","error":"oops"}"#);
        "a NUL" => [Err(InvalidResponse); 2], body(r#"{"access_token":"ses\u0000ame"}"#);
        "a raw NUL" => [Err(InvalidResponse); 2], body("{\"access_token\":\"ses\0ame\"}");
        "NULs at the end" => [Err(InvalidResponse); 2], body(format!("{TOKEN}\0\0"));
        "two tokens, of which the last counts" => [Ok(()); 2], body(twice);
        "UTF-16" => [Err(InvalidResponse); 2], body(utf16);
        "UTF-8 with a byte order mark" => [Ok(()); 2], body(format!("\u{FEFF}{TOKEN}"));
        "Latin-1 in the token" => [Err(InvalidResponse); 2],
            body(b"{\"access_token\":\"sesam\xE9\"}");
        "Latin-1 in another member" => [Ok(()); 2],
            body(b"{\"access_token\":\"sesame\",\"scope\":\"caf\xE9\"}");
        "Latin-1 in an unknown member" => [Ok(()); 2],
            body(b"{\"access_token\":\"sesame\",\"name\":\"caf\xE9\"}");
        "deep arrays" => [Ok(()); 2], nested("x", "[", "]", 100_000);
        "deep objects" => [Ok(()); 2], nested("x", object, "}", 50_000);
        "deep arrays as token" => [Err(InvalidResponse); 2],
            nested("access_token", "[", "]", 100_000);
        "deep objects as token" => [Err(InvalidResponse); 2],
            nested("access_token", object, "}", 50_000);
        "deep objects of more than 256 KiB" => [Err(InvalidResponse); 2],
            nested("access_token", object, "}", 100_000);
    }
}

/// Checks each case through each transport, on its own thread because allocations are counted by
/// thread.
fn check_all(cases: &[(&str, Outcomes, Endpoint)]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            hook(info);
        }));
    });
    thread::scope(|scope| {
        for (name, outcomes, endpoint) in cases {
            let [reqwest, hyper] = *outcomes;
            for (transport, outcome) in [
                ("reqwest", reqwest),
                ("reqwest 0.12", reqwest),
                ("hyper", hyper),
            ] {
                scope.spawn(move || check(name, endpoint, transport, outcome));
            }
        }
    });
}

fn check(name: &str, endpoint: &Endpoint, transport: &str, expected: Result<(), TokenErrorKind>) {
    let name = format!("{name} ({transport})");
    let server = Server::start(endpoint);
    let mut runtime = runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let timeout = match expected {
        Err(TokenErrorKind::Timeout) => TIMEOUT,
        _ => UNREACHED_TIMEOUT,
    };
    let cache = server.cache(transport, timeout);
    let start = Instant::now();
    let mut result = None;
    let memory = measure(|| result = Some(runtime.block_on(cache.token()))).bytes_max;
    let (result, took) = (result.unwrap(), start.elapsed());
    let requests = server.requests.load(Ordering::Relaxed);
    let kind = result.as_ref().map(|_| ()).map_err(TokenError::kind);
    eprintln!("{name}: {kind:?}, {took:.2?}, {memory} bytes, {requests} requests");
    assert_eq!(kind, expected, "{name}: {:?}", result.err());
    assert_eq!(PANICS.get(), 0, "{name}");
    assert!(took < timeout + SLACK, "{name}: {took:?}");
    assert!(memory < MAX_MEMORY, "{name}: {memory} bytes");
    assert!((1..=3).contains(&requests), "{name}: {requests} requests");
    let error = match result {
        Ok(token) => return assert_eq!(token.expose_secret(), "sesame", "{name}"),
        Err(error) => error,
    };
    let text = format!("{error} {error:?}");
    assert!(!text.contains("sesame") && !text.contains(SECRET), "{text}");

    server.has_recovered.store(true, Ordering::Relaxed);
    let next = runtime.block_on(async {
        // On a busy machine a limit can be noticed so late that no pause follows.
        sleep(error.retry_after().unwrap_or_default()).await;
        cache.token().await
    });
    assert_eq!(next.unwrap().expose_secret(), "well-formed", "{name}");
}

struct Server {
    url: String,
    /// From now on every response is a well-formed token.
    has_recovered: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    /// Stops the server when dropped.
    _runtime: Runtime,
}

impl Server {
    fn start(endpoint: &Endpoint) -> Self {
        let mut runtime = runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let (has_recovered, requests) = (Arc::<AtomicBool>::default(), Arc::default());
        let (endpoint, flag, counter) = (
            endpoint.clone(),
            has_recovered.clone(),
            Arc::<AtomicUsize>::clone(&requests),
        );
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (endpoint, flag, counter) = (endpoint.clone(), flag.clone(), counter.clone());
                tokio::spawn(async move {
                    read_request(&mut stream).await;
                    counter.fetch_add(1, Ordering::Relaxed);
                    let endpoint = match flag.load(Ordering::Relaxed) {
                        true => body(TOKEN.replace("sesame", "well-formed")),
                        false => endpoint,
                    };
                    endpoint.respond(stream).await;
                });
            }
        });
        Self {
            url,
            has_recovered,
            requests,
            _runtime: runtime,
        }
    }

    fn cache(&self, transport: &str, timeout: Duration) -> TokenCache {
        let source = ClientCredentials::builder(&self.url)
            .client_id("id")
            .client_secret(SECRET);
        let source = match transport {
            "reqwest" => source,
            "reqwest 0.12" => source.reqwest_0_12_builder(reqwest_0_12::Client::builder()),
            _ => {
                source.transport(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>())
            }
        };
        TokenCache::builder(source.build().unwrap())
            .fetch_timeout(timeout)
            .first_pause(Duration::from_millis(20))
            .build()
            .unwrap()
    }
}

impl Endpoint {
    /// Ignores errors, as the client may disconnect at any time.
    async fn respond(self, mut stream: TcpStream) {
        match self {
            Self::Closes(text) => drop(stream.write_all(&text).await),
            Self::Holds(text) => {
                let _ = stream.write_all(&text).await;
                std::future::pending().await
            }
            Self::Drips(start, more) => {
                let mut sent = stream.write_all(&start).await;
                while sent.is_ok() {
                    sleep(Duration::from_millis(50)).await;
                    sent = stream.write_all(more.as_bytes()).await;
                }
            }
            Self::Floods(start, more) => {
                let more = more.repeat((16 << 10) / more.len());
                let mut sent = stream.write_all(&start).await;
                while sent.is_ok() {
                    sent = stream.write_all(&more).await;
                }
            }
            Self::Resets => stream.set_zero_linger().unwrap(),
        }
    }
}

/// Reads a token request, which ends with the secret.
async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(SECRET.as_bytes()) {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
}
