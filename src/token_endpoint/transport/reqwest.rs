//! reqwest as the transport for token requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::client::{Client, ClientBuilder, Error, Request, redirect};
use crate::error::{BoxError, InvalidSetting, TokenError, TokenErrorKind};
use crate::token_endpoint::transport::{Factory, LimitedBody, RawResponse, Transport, body_error};
use crate::token_endpoint::try_limit::{TryLimit, timed_out};

/// The time in which the client that is built by default must connect, TLS included. Several
/// addresses of one host share it, so that a silent first one does not take all of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends token requests through reqwest, with redirects disabled.
pub(crate) struct ReqwestTransport(Client);

impl ReqwestTransport {
    /// Builds the client. `builder` keeps its protocol, time limits and `User-Agent`.
    ///
    /// The error names `setting`.
    pub(crate) fn new(
        setting: &'static str,
        builder: ClientBuilder,
    ) -> Result<Self, InvalidSetting> {
        builder
            .redirect(redirect::Policy::none())
            .referer(false)
            // Each try gets a new connection: a pooled one may be dead without a sign of it, and
            // between two token requests its peer has time to forget it.
            .pool_max_idle_per_host(0)
            .build()
            .map(Self)
            .map_err(|error| {
                let problem = format!("must build a client, but reqwest reports: {error}");
                InvalidSetting::new(setting, problem)
            })
    }
}

/// Returns the builder of the client that is used if the user gives none.
pub(crate) fn default_client() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("bearer-auth/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // A token request gains nothing from HTTP/2.
        .http1_only()
}

#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(
        &self,
        request: http::Request<Bytes>,
        limit: TryLimit,
    ) -> Result<RawResponse, TokenError> {
        let request = Request::try_from(request).map_err(token_error)?;
        let response = async { self.0.execute(request).await.map_err(token_error) };
        let mut response = limit.run(response).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = async {
            let mut body = LimitedBody::default();
            while let Some(chunk) = response.chunk().await.map_err(token_error)? {
                if !body.push(chunk) {
                    return Ok(None);
                }
            }
            Ok(Some(body.freeze()))
        };
        match limit.run(body).await {
            Ok(body) => Ok(RawResponse {
                status,
                headers,
                body,
            }),
            Err(error) => Err(body_error(error, status, &headers)),
        }
    }
}

/// Sends each token request through a client of its own.
pub(crate) struct ReqwestFactory(pub(crate) Factory<ClientBuilder>);

#[async_trait]
impl Transport for ReqwestFactory {
    async fn send(
        &self,
        request: http::Request<Bytes>,
        limit: TryLimit,
    ) -> Result<RawResponse, TokenError> {
        limit.run(self.client()).await?.send(request, limit).await
    }

    fn is_built_anew(&self) -> bool {
        true
    }
}

impl ReqwestFactory {
    /// Builds a client on a thread that may block: it reads a certificate, and the system's.
    async fn client(&self) -> Result<ReqwestTransport, TokenError> {
        let factory = Arc::clone(&self.0);
        let built = spawn_blocking(move || {
            let client = ReqwestTransport::new("reqwest_factory", factory()?)?;
            Ok::<_, BoxError>(client)
        });
        match built.await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(TokenError::transient(error).with_unsent()),
            // The text of a panic may contain a secret.
            Err(_) => Err(TokenError::new(TokenErrorKind::SourcePanicked, true).with_unsent()),
        }
    }
}

/// Converts an error of sending a token request or of reading the response.
pub(crate) fn token_error(error: Error) -> TokenError {
    // The URL may contain confidential parameters.
    let error = error.without_url();
    let is_unsent = error.is_connect() || error.is_builder();
    let error = if error.is_timeout() {
        timed_out(error)
    } else {
        TokenError::new(TokenErrorKind::Connection, true).with_cause(error)
    };
    if is_unsent {
        error.with_unsent()
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_client_speaks_http_1_and_has_a_connect_timeout() {
        // reqwest has no accessors, but its `Debug` shows the settings.
        let debug = format!("{:?}", default_client());
        assert!(debug.contains("http1_only: true"), "{debug}");
        assert!(debug.contains("connect_timeout: 5s"), "{debug}");
    }

    /// Takes half of the connect timeout in real time. Only Linux drops connection attempts when a
    /// backlog is full.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_default_client_passes_over_a_silent_address() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio::net::{TcpListener, TcpSocket, TcpStream};
        use tokio::time::timeout;

        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = socket.listen(0).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let connect = || {
            timeout(
                Duration::from_millis(500),
                TcpStream::connect(silent_address),
            )
        };
        let mut backlog = Vec::new();
        while let Ok(stream) = connect().await {
            backlog.push(stream.unwrap());
        }

        let answering = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [silent_address, answering.local_addr().unwrap()];
        let client = default_client()
            .no_proxy()
            .resolve_to_addrs("id.test", &addresses);
        let transport = ReqwestTransport::new("reqwest_builder", client).unwrap();
        let request = http::Request::post("http://id.test/token").body(Bytes::from("x"));
        let limit = TryLimit::start(Duration::from_secs(10));
        let send = transport.send(request.unwrap(), limit);
        let answer = async {
            let (mut stream, _) = answering.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\nx") {
                stream.read_buf(&mut read).await.unwrap();
            }
            let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(response).await.unwrap();
            stream
        };
        let (response, _stream) = tokio::join!(send, answer);
        assert_eq!(response.unwrap().body.unwrap(), "ok");
    }
}
