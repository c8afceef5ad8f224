//! A token endpoint that lies (BEHAVIOUR C), by both transports: a typed error within the flight's
//! limit, in bounded memory and without a panic; and a token as soon as the endpoint is honest.
//!
//! Where the transports differ: reqwest (with its feature `gzip`) decodes `content-encoding: gzip`,
//! hyper-util's client hands it on as it came. Nowhere else.

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

/// Of a flight: room for three quick tries on a busy machine.
const LIMIT: Duration = Duration::from_secs(2);
/// What such a machine may add to it.
const SLACK: Duration = Duration::from_secs(1);
/// Of what a call for a token holds at any moment, connection and decoder included.
const MEMORY: u64 = 2 << 20;
const LONGEST_BODY: usize = 256 << 10;

const ZIP: &str = "content-encoding: gzip\r\n";
const SECRET: &str = "hush-hush";
const TOKEN: &str = r#"{"access_token":"told"}"#;
/// `TOKEN`, compressed.
const ZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xabVJLNN-.\x8e/\xc9\
    \xcfN\xcdS\xb2R*\xc9\xcfIQ\xaa\x05\x00\x0b7\xb6\xb9\x17\x00\x00\x00";
/// Begins a gzip stream of zeros: each zero byte that follows stands for 1,032 of them.
const BOMB: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\
    \xed\xc1\x31\x01\0\0\0\xc2\xa0\xf5\x4f\x6d\x08\x5f\xa0";

thread_local! {
    /// Of this thread, those too that a runtime has caught.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// What the endpoint does once it has read a token request.
#[derive(Clone)]
enum Lie {
    /// Sends this, then closes.
    Closes(Vec<u8>),
    /// Sends this, then nothing more.
    Holds(Vec<u8>),
    /// Sends the first, then the second every 50 ms for ever.
    Drips(Vec<u8>, &'static str),
    /// Sends the first, then the second again and again as fast as it can.
    Floods(Vec<u8>, Vec<u8>),
    Resets,
}

/// What becomes of it: the token `told`, or an error; by reqwest, by hyper-util.
type Outcomes = [Result<(), TokenErrorKind>; 2];

macro_rules! lies {
    ($($name:literal => $outcomes:expr, $lie:expr;)*) => {
        run(&[$(($name, $outcomes, $lie)),*])
    };
}

/// The head of a 200 with these lines.
fn head(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

/// A whole answer.
fn answer(status: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status}\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A 200 with this body, after which the endpoint closes.
fn body(body: impl AsRef<[u8]>) -> Lie {
    Lie::Closes(answer("200 OK", "content-type: application/json\r\n", body))
}

/// `times` arrays or objects in each other, as the member `name` beside a sound token.
fn nested(name: &str, open: &str, close: &str, times: usize) -> Lie {
    let (open, close) = (open.repeat(times), close.repeat(times));
    body(format!(
        "{{\"{name}\":{open}0{close},{}",
        TOKEN.strip_prefix('{').unwrap()
    ))
}

fn padded(length: usize) -> Vec<u8> {
    let blanks = repeat_n(b' ', length - TOKEN.len());
    TOKEN.bytes().chain(blanks).collect()
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn bodies_that_end_early_or_never() {
    let long = || head("content-length: 100000\r\n");
    let chunked = || head("transfer-encoding: chunked\r\n");
    let then = |head: Vec<u8>, more: &str| [head, bytes(more)].concat();
    let huge = head("content-length: 9223372036854775807\r\n");
    let two_lengths = head("content-length: 1\r\ncontent-length: 2\r\n");
    let failed = bytes("HTTP/1.1 503 x\r\ncontent-length: 999\r\n\r\n");
    let unkept = answer("200 OK", "connection: close\r\n", TOKEN);
    let chunk = "1\r\n \r\n";
    let chunks = format!("100\r\n{:256}\r\n", "");
    lies! {
        "a body that drips" => [Err(Timeout); 2], Lie::Drips(long(), " ");
        "a body that drips, with a 503" => [Err(Timeout); 2], Lie::Drips(failed, " ");
        "half a body, then closed" => [Err(Connection); 2], Lie::Closes(then(long(), TOKEN));
        "half a body, then silence" => [Err(Timeout); 2], Lie::Holds(then(long(), TOKEN));
        "a length beyond all memory" => [Err(Connection); 2], Lie::Closes(then(huge, TOKEN));
        "two lengths" => [Err(Connection); 2], Lie::Closes(two_lengths);
        "chunks without end" => [Err(InvalidResponse); 2],
            Lie::Floods(chunked(), bytes(&chunks));
        "chunks without end, slowly" => [Err(Timeout); 2], Lie::Drips(chunked(), chunk);
        "a chunk of no size" => [Err(InvalidResponse); 2], Lie::Closes(then(chunked(), "zz\r\n"));
        "a chunk of too large a size" => [Err(InvalidResponse); 2],
            Lie::Closes(then(chunked(), "FFFFFFFFFFFFFFFFF\r\n"));
        "a chunk's extension without end" => [Err(InvalidResponse); 2],
            Lie::Floods(then(chunked(), "1;"), bytes("x"));
        "trailers without end" => [Err(InvalidResponse); 2],
            Lie::Floods(then(chunked(), "0\r\n"), bytes("a: b\r\n"));
        "a body without length, closed" => [Ok(()); 2], Lie::Closes(then(head(""), TOKEN));
        "a body without length, not closed" => [Err(Timeout); 2],
            Lie::Holds(then(head(""), TOKEN));
        "a whole answer, not closed" => [Ok(()); 2], Lie::Holds(unkept);
    }
}

#[test]
fn bodies_too_long() {
    let zipped = |body: &[u8]| Lie::Closes(answer("200 OK", ZIP, body));
    let bomb = [BOMB, &[0; 10_240]].concat();
    let endless_bomb = [&head(ZIP), BOMB].concat();
    let failed = bytes("HTTP/1.1 503 x\r\n\r\n");
    lies! {
        "256 KiB, which is not" => [Ok(()); 2], body(padded(LONGEST_BODY));
        "one byte more" => [Err(InvalidResponse); 2], body(padded(LONGEST_BODY + 1));
        "8 MiB" => [Err(InvalidResponse); 2], body(padded(8 << 20));
        "without end" => [Err(InvalidResponse); 2], Lie::Floods(head(""), bytes(" "));
        "without end, with a 503" => [Err(Unavailable); 2], Lie::Floods(failed, bytes(" "));
        "10 MiB in 10 KiB of gzip" => [Err(InvalidResponse); 2], zipped(&bomb);
        "gzip without end" => [Err(InvalidResponse); 2], Lie::Floods(endless_bomb, vec![0]);
        "a token in gzip" => [Ok(()), Err(InvalidResponse)], zipped(ZIPPED);
        "a token that is not in gzip" => [Err(InvalidResponse), Ok(())], zipped(TOKEN.as_bytes());
        "half a token in gzip" => [Err(Connection), Err(InvalidResponse)],
            zipped(&ZIPPED[..ZIPPED.len() / 2]);
    }
}

#[test]
fn heads() {
    let start = || bytes("HTTP/1.1 200 OK\r\n");
    let line = || [start(), bytes("a: ")].concat();
    let ssh = bytes("SSH-2.0-OpenSSH_9.6\r\n");
    let upgrade = bytes("HTTP/1.1 101 x\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n");
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nlink: </x>\r\n\r\n";
    let late = [interim.as_bytes(), &answer("200 OK", "", TOKEN)].concat();
    let wide = answer("200 OK", &format!("a: {}\r\n", "x".repeat(1 << 20)), TOKEN);
    lies! {
        "closed at once" => [Err(Connection); 2], Lie::Closes(Vec::new());
        "reset" => [Err(Connection); 2], Lie::Resets;
        "no answer" => [Err(Timeout); 2], Lie::Holds(Vec::new());
        "half a head" => [Err(Timeout); 2], Lie::Holds(line());
        "a head that drips" => [Err(Timeout); 2], Lie::Drips(line(), "x");
        "another protocol" => [Err(Connection); 2], Lie::Closes(ssh);
        "noise" => [Err(Connection); 2], Lie::Closes(vec![0xFF; 9_999]);
        "lines without end" => [Err(Connection); 2], Lie::Floods(start(), bytes("a: b\r\n"));
        "one line without end" => [Err(Connection); 2], Lie::Floods(line(), bytes("x"));
        "a line of 1 MiB" => [Err(Connection); 2], Lie::Closes(wide);
        "interim answers" => [Ok(()); 2], Lie::Closes(late);
        // Not as a flood: hyper skips all that its buffer holds before it lets others run. In a
        // release build that is less than half a second, in this one it is half a minute.
        "interim answers without end" => [Err(Timeout); 2], Lie::Drips(Vec::new(), interim);
        "another protocol, politely" => [Err(InvalidResponse); 2], Lie::Closes(upgrade);
    }
}

#[test]
fn contents() {
    let utf16 = TOKEN.encode_utf16().flat_map(u16::to_le_bytes);
    let utf16: Vec<u8> = [0xFF, 0xFE].into_iter().chain(utf16).collect();
    let html = answer("200 OK", "content-type: text/html\r\n", TOKEN);
    let no_content = bytes("HTTP/1.1 204 No Content\r\n\r\n");
    let twice = r#"{"access_token":"told","access_token":"told"}"#;
    let object = r#"{"":"#;
    lies! {
        "nothing" => [Err(InvalidResponse); 2], body("");
        "a 204" => [Err(InvalidResponse); 2], Lie::Closes(no_content);
        "HTML" => [Err(InvalidResponse); 2], body("<!doctype html><title>Sign in</title>");
        "a token as HTML" => [Ok(()); 2], Lie::Closes(html);
        "an error" => [Err(InvalidClient); 2], body(r#"{"error":"invalid_client"}"#);
        "an unknown error" => [Err(InvalidResponse); 2],
            body(r#"{"access_token":"told","error":"oops"}"#);
        "a NUL" => [Err(InvalidResponse); 2], body(r#"{"access_token":"to\u0000ld"}"#);
        "a raw NUL" => [Err(InvalidResponse); 2], body("{\"access_token\":\"to\0ld\"}");
        "NULs at the end" => [Err(InvalidResponse); 2], body(format!("{TOKEN}\0\0"));
        "two tokens" => [Err(InvalidResponse); 2], body(twice);
        "UTF-16" => [Err(InvalidResponse); 2], body(utf16);
        "UTF-8 with a mark" => [Ok(()); 2], body(format!("\u{FEFF}{TOKEN}"));
        "Latin-1" => [Err(InvalidResponse); 2],
            body(b"{\"access_token\":\"told\",\"scope\":\"caf\xE9\"}");
        // Nobody reads that member, nor checks it.
        "Latin-1 elsewhere" => [Ok(()); 2],
            body(b"{\"access_token\":\"told\",\"name\":\"caf\xE9\"}");
        "deep arrays" => [Ok(()); 2], nested("x", "[", "]", 100_000);
        "deep objects" => [Ok(()); 2], nested("x", object, "}", 50_000);
        "deep arrays as token" => [Err(InvalidResponse); 2],
            nested("access_token", "[", "]", 100_000);
        "deep objects as token" => [Err(InvalidResponse); 2],
            nested("access_token", object, "}", 50_000);
        "100,000 objects, which are too long" => [Err(InvalidResponse); 2],
            nested("access_token", object, "}", 100_000);
    }
}

/// Each case by each transport, on a thread of its own: allocations are counted by thread.
fn run(cases: &[(&str, Outcomes, Lie)]) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            hook(info);
        }));
    });
    thread::scope(|scope| {
        for (name, outcomes, lie) in cases {
            for (by, outcome) in ["reqwest", "hyper"].into_iter().zip(outcomes) {
                scope.spawn(move || tell(name, lie, by, *outcome));
            }
        }
    });
}

fn tell(name: &str, lie: &Lie, by: &str, expected: Result<(), TokenErrorKind>) {
    let name = format!("{name} ({by})");
    let endpoint = Endpoint::start(lie);
    let mut runtime = runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let cache = endpoint.cache(by);
    let start = Instant::now();
    let mut told = None;
    let memory = measure(|| told = Some(runtime.block_on(cache.token()))).bytes_max;
    let (told, took) = (told.unwrap(), start.elapsed());
    let requests = endpoint.requests.load(Ordering::Relaxed);
    let kind = told.as_ref().map(|_| ()).map_err(TokenError::kind);
    eprintln!("{name}: {kind:?}, {took:.2?}, {memory} bytes, {requests} requests");
    assert_eq!(kind, expected, "{name}: {:?}", told.err());
    assert_eq!(PANICS.get(), 0, "{name}");
    assert!(took < LIMIT + SLACK, "{name}: {took:?}");
    assert!(memory < MEMORY, "{name}: {memory} bytes");
    assert!((1..=3).contains(&requests), "{name}: {requests} requests");
    let error = match told {
        Ok(token) => return assert_eq!(token.expose_secret(), "told", "{name}"),
        Err(error) => error,
    };
    let text = format!("{error} {error:?}");
    assert!(!text.contains("told") && !text.contains(SECRET), "{text}");

    endpoint.honest.store(true, Ordering::Relaxed);
    let healed = runtime.block_on(async {
        sleep(error.retry_after().unwrap()).await;
        cache.token().await
    });
    assert_eq!(healed.unwrap().expose_secret(), "honest", "{name}");
}

struct Endpoint {
    url: String,
    honest: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    /// Ends with it.
    _runtime: Runtime,
}

impl Endpoint {
    fn start(lie: &Lie) -> Self {
        let mut runtime = runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let (honest, requests) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (lie, is_honest, counter) = (lie.clone(), honest.clone(), requests.clone());
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (lie, honest, counter) = (lie.clone(), is_honest.clone(), counter.clone());
                tokio::spawn(async move {
                    read_request(&mut stream).await;
                    counter.fetch_add(1, Ordering::Relaxed);
                    let lie = match honest.load(Ordering::Relaxed) {
                        true => body(TOKEN.replace("told", "honest")),
                        false => lie,
                    };
                    lie.tell(stream).await;
                });
            }
        });
        Self {
            url,
            honest,
            requests,
            _runtime: runtime,
        }
    }

    fn cache(&self, by: &str) -> TokenCache {
        let source = ClientCredentials::builder(&self.url)
            .client_id("id")
            .client_secret(SECRET);
        let source = match by {
            "reqwest" => source,
            _ => {
                source.transport(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>())
            }
        };
        TokenCache::builder(source.build().unwrap())
            .fetch_timeout(LIMIT)
            .first_pause(Duration::from_millis(20))
            .build()
            .unwrap()
    }
}

impl Lie {
    /// The client may hang up at any point.
    async fn tell(self, mut stream: TcpStream) {
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

/// To its end, which is the secret.
async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(SECRET.as_bytes()) {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
}
