//! Connections to the token endpoint that are dead, silent or slow, through every transport.

use std::convert::Infallible;
use std::error::Error;
use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bearer_auth::{
    ClientCredentials, ClientCredentialsBuilder, TokenCache, TokenErrorKind, TokenRequest,
};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower::Service;

#[cfg(target_os = "linux")]
mod silent;

const TOKEN: &str = r#"{"access_token":"sesame","expires_in":900}"#;
const SECRET: &str = "hush";
/// Short, since it passes in real time, and long enough for an answer on a busy machine.
const TRY_TIMEOUT: Duration = Duration::from_millis(500);

/// A request as it was received: number of the connection, version and headers.
type Received = (usize, Version, http::HeaderMap);

/// A token endpoint that answers only some requests, and keeps all connections open.
struct Endpoint {
    port: u16,
    log: Arc<Mutex<Vec<Received>>>,
}

impl Endpoint {
    /// Starts an endpoint. `answers` gets the number of the connection and of the request on it.
    async fn start(version: Version, answers: fn(usize, usize) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::<Mutex<Vec<Received>>>::default();
        let requests = Arc::clone(&log);
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, number) = (Arc::clone(&requests), AtomicUsize::new(0));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (parts, _) = request.into_parts();
                    let received = (connection, parts.version, parts.headers);
                    log.lock().unwrap().push(received);
                    let is_answered = answers(connection, number.fetch_add(1, Ordering::Relaxed));
                    async move {
                        if !is_answered {
                            pending::<()>().await;
                        }
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(TOKEN))))
                    }
                });
                let stream = TokioIo::new(stream);
                if version == Version::HTTP_2 {
                    let server = http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(server.serve_connection(stream, service));
                } else {
                    tokio::spawn(http1::Builder::new().serve_connection(stream, service));
                }
            }
        });
        Self { port, log }
    }

    /// Returns the builders of sources with each transport: reqwest as the crate and as a user
    /// builds it, reqwest 0.12, and hyper-util's client.
    fn builders(&self) -> [(&'static str, ClientCredentialsBuilder); 4] {
        let builder = || source(&format!("http://127.0.0.1:{}/token", self.port));
        let hyper = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        [
            ("default", builder()),
            ("builder", builder().reqwest_builder(reqwest_builder())),
            ("earlier", builder().reqwest_0_12_builder(earlier_builder())),
            ("hyper", builder().transport(hyper)),
        ]
    }

    /// Returns the number of connections with a request, and of requests.
    fn counts(&self) -> (usize, usize) {
        let log = self.log.lock().unwrap();
        let mut connections: Vec<_> = log.iter().map(|request| request.0).collect();
        connections.sort_unstable();
        connections.dedup();
        (connections.len(), log.len())
    }
}

fn source(url: &str) -> ClientCredentialsBuilder {
    ClientCredentials::builder(url)
        .client_id("id")
        .client_secret(SECRET)
        .try_timeout(TRY_TIMEOUT)
}

fn reqwest_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

fn earlier_builder() -> reqwest_0_12::ClientBuilder {
    reqwest_0_12::Client::builder().no_proxy()
}

fn cache(builder: ClientCredentialsBuilder) -> TokenCache {
    TokenCache::new(builder.build().unwrap())
}

#[tokio::test]
async fn every_transport_asks_for_no_compression_and_only_the_default_one_names_itself() {
    let own_name = format!("bearer-auth/{}", env!("CARGO_PKG_VERSION"));
    let endpoint = Endpoint::start(Version::HTTP_11, |_, _| true).await;
    for (transport, builder) in endpoint.builders() {
        cache(builder).token().await.unwrap();
        let (_, version, headers) = endpoint.log.lock().unwrap().pop().unwrap();
        assert_eq!(version, Version::HTTP_11, "{transport}");
        let encodings: Vec<_> = headers.get_all(ACCEPT_ENCODING).iter().collect();
        assert_eq!(encodings, ["identity"], "{transport}");
        let expected = (transport == "default").then_some(own_name.as_str());
        let name = headers.get(USER_AGENT).map(|name| name.to_str().unwrap());
        assert_eq!(name, expected, "{transport}");
    }

    let [_, (_, builder), ..] = endpoint.builders();
    let client = reqwest_builder().user_agent("own").gzip(true);
    cache(builder.reqwest_builder(client))
        .token()
        .await
        .unwrap();
    let (_, _, headers) = endpoint.log.lock().unwrap().pop().unwrap();
    assert_eq!(headers[USER_AGENT], "own");
    assert_eq!(headers[ACCEPT_ENCODING], "identity");
}

#[tokio::test]
async fn a_connection_without_an_answer_costs_one_try() {
    for transport in 0..4 {
        let endpoint = Endpoint::start(Version::HTTP_11, |connection, _| connection > 0).await;
        let (transport, builder) = endpoint.builders().into_iter().nth(transport).unwrap();
        let cache = cache(builder);
        assert_eq!(
            cache.token().await.unwrap().expose_secret(),
            "sesame",
            "{transport}"
        );
        assert_eq!(endpoint.counts(), (2, 2), "{transport}");
        // Nothing is paused.
        cache.token().await.unwrap();
        cache.token_for(&TokenRequest::scope("a")).await.unwrap();
        assert_eq!(endpoint.counts().1, 3, "{transport}");
    }
}

#[tokio::test]
async fn a_connection_that_the_peer_forgot_costs_at_most_one_try() {
    for transport in 0..4 {
        let endpoint = Endpoint::start(Version::HTTP_11, |_, request| request == 0).await;
        let (transport, builder) = endpoint.builders().into_iter().nth(transport).unwrap();
        let cache = cache(builder);
        for scope in ["a", "b", "c"] {
            let token = cache.token_for(&TokenRequest::scope(scope)).await;
            assert!(token.is_ok(), "{transport}: {token:?}");
        }
        // reqwest keeps no connection, and hyper-util's client does.
        let requests = if transport == "hyper" { 5 } else { 3 };
        assert_eq!(endpoint.counts(), (3, requests), "{transport}");
    }
}

#[tokio::test]
async fn a_dead_http2_connection_is_not_used_again() {
    let with_client: [&dyn Fn(ClientCredentialsBuilder) -> ClientCredentialsBuilder; 2] = [
        &|source| source.reqwest_builder(reqwest_builder().http2_prior_knowledge()),
        &|source| source.reqwest_0_12_builder(earlier_builder().http2_prior_knowledge()),
    ];
    for with_client in with_client {
        let endpoint = Endpoint::start(Version::HTTP_2, |_, request| request == 0).await;
        let url = format!("http://127.0.0.1:{}/token", endpoint.port);
        let cache = cache(with_client(source(&url)));
        for scope in ["a", "b", "c"] {
            let token = cache.token_for(&TokenRequest::scope(scope)).await;
            assert!(token.is_ok(), "{token:?}");
        }
        assert_eq!(endpoint.counts(), (3, 3));
        let log = endpoint.log.lock().unwrap();
        assert!(log.iter().all(|request| request.1 == Version::HTTP_2));
    }
}

#[tokio::test]
async fn an_endpoint_that_never_answers_costs_three_tries_and_a_pause() {
    for transport in 0..4 {
        let endpoint = Endpoint::start(Version::HTTP_11, |_, _| false).await;
        let (transport, builder) = endpoint.builders().into_iter().nth(transport).unwrap();
        let cache = cache(builder);
        let error = cache.token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout, "{transport}");
        assert!(error.is_transient());
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("`try_timeout` (500ms)"), "{cause}");
        cache.token().await.unwrap_err();
        assert_eq!(endpoint.counts(), (3, 3), "{transport}");
    }
}

#[tokio::test]
async fn a_slow_body_keeps_the_status_and_the_retry_after() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut read = Vec::new();
            while !read.ends_with(SECRET.as_bytes()) {
                stream.read_buf(&mut read).await.unwrap();
            }
            let head = "HTTP/1.1 503 x\r\nretry-after: 7\r\ncontent-length: 99\r\n\r\n{";
            stream.write_all(head.as_bytes()).await.unwrap();
            connections.push(stream);
        }
    });
    let endpoint = Endpoint {
        port,
        log: Arc::default(),
    };
    for (transport, builder) in endpoint.builders() {
        let error = cache(builder).token().await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::Timeout, "{transport}");
        assert_eq!(error.status().unwrap(), 503, "{transport}");
        let wait = error.retry_after();
        assert_eq!(wait, Some(Duration::from_secs(7)), "{transport}");
        assert_eq!(requests.swap(0, Ordering::Relaxed), 1, "{transport}");
    }
}

/// A tower service whose first clone is never ready, and whose second never answers.
#[derive(Default)]
struct Stuck {
    clones: Arc<AtomicUsize>,
    number: usize,
}

impl Clone for Stuck {
    fn clone(&self) -> Self {
        Self {
            clones: Arc::clone(&self.clones),
            number: 1 + self.clones.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Service<Request<Full<Bytes>>> for Stuck {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.number {
            1 => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        match self.number {
            2 => Box::pin(pending()),
            _ => Box::pin(ready(Ok(Response::new(Full::from(TOKEN))))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_ends_after_ten_seconds_by_default_also_if_the_service_is_not_ready() {
    let source = ClientCredentials::builder("https://id.example.com/token")
        .client_id("id")
        .client_secret(SECRET)
        .transport(Stuck::default());
    let start = Instant::now();
    cache(source).token().await.unwrap();
    // Two tries and the waits after them.
    let (two, waits) = (Duration::from_secs(20), Duration::from_millis(610));
    assert!((two..two + waits).contains(&start.elapsed()));
}

#[test]
fn a_try_timeout_out_of_range_is_an_error_of_build() {
    let build = |limit| {
        source("https://id.example.com/token")
            .try_timeout(limit)
            .build()
    };
    let day = Duration::from_secs(24 * 60 * 60);
    assert!(build(Duration::from_nanos(1)).is_ok() && build(day).is_ok());
    for limit in [Duration::ZERO, day + Duration::from_nanos(1), Duration::MAX] {
        let error = build(limit).unwrap_err();
        assert_eq!(error.setting(), "try_timeout");
        assert!(error.to_string().contains("at most one day"), "{error}");
    }
}
