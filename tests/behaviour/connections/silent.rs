//! Addresses that do not answer, which only Linux makes of a listener with a full backlog.

use std::net::SocketAddr;

use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;

const HOST: &str = "identity.test";
const URL: &str = "http://identity.test/token";

/// A listener that drops all further connection attempts.
struct Silent {
    address: SocketAddr,
    _listener: TcpListener,
    _backlog: Vec<TcpStream>,
}

impl Silent {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut backlog = Vec::new();
        let connect = || timeout(TRY_TIMEOUT, TcpStream::connect(address));
        while let Ok(stream) = connect().await {
            backlog.push(stream.unwrap());
        }
        Self {
            address,
            _listener: listener,
            _backlog: backlog,
        }
    }
}

/// A builder of either version of reqwest.
trait AnyClientBuilder {
    fn transport_of(self, source: ClientCredentialsBuilder) -> ClientCredentialsBuilder;
}

impl AnyClientBuilder for reqwest::ClientBuilder {
    fn transport_of(self, source: ClientCredentialsBuilder) -> ClientCredentialsBuilder {
        source.reqwest_builder(self)
    }
}

impl AnyClientBuilder for reqwest_0_12::ClientBuilder {
    fn transport_of(self, source: ClientCredentialsBuilder) -> ClientCredentialsBuilder {
        source.reqwest_0_12_builder(self)
    }
}

for_both_reqwests! {
    #[tokio::test]
    async fn a_silent_first_address_costs_no_try() {
        let silent = Silent::start().await;
        let endpoint = Endpoint::start(Version::HTTP_11, |_, _| true).await;
        let addresses = [silent.address, ([127, 0, 0, 1], endpoint.port).into()];
        // As on the transport that the crate builds, with a shorter limit.
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .resolve_to_addrs(HOST, &addresses);
        let source = source(URL).allow_http().try_timeout(20 * TRY_TIMEOUT);
        let cache = cache(client.transport_of(source));
        for scope in ["a", "b"] {
            cache.token_for(&TokenRequest::scope(scope)).await.unwrap();
        }
        assert_eq!(endpoint.counts(), (2, 2));
    }

    /// Resolves the host to the next of these addresses.
    struct Rotation(Mutex<Vec<SocketAddr>>);

    impl reqwest::dns::Resolve for Rotation {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            let next = self.0.lock().unwrap().pop();
            let addresses: reqwest::dns::Addrs = Box::new(next.into_iter());
            Box::pin(ready(Ok(addresses)))
        }
    }

    #[tokio::test]
    async fn a_connect_timeout_of_over_a_second_costs_one_try() {
        let silent = Silent::start().await;
        let endpoint = Endpoint::start(Version::HTTP_11, |_, _| true).await;
        let answering = ([127, 0, 0, 1], endpoint.port).into();
        let resolver = Rotation(Mutex::new(vec![answering, silent.address]));
        let client = reqwest::Client::builder()
            .no_proxy()
            // Longer than a failure may take that is tried again for being quick.
            .connect_timeout(Duration::from_millis(1_200))
            .dns_resolver(Arc::new(resolver));
        let source = source(URL).allow_http().try_timeout(20 * TRY_TIMEOUT);
        cache(client.transport_of(source)).token().await.unwrap();
        assert_eq!(endpoint.counts(), (1, 1));
    }
}

#[tokio::test]
async fn a_connect_timeout_of_a_tower_transport_is_a_timeout() {
    let silent = Silent::start().await;
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(Duration::from_millis(20)));
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let source = source(&format!("http://{}/token", silent.address)).transport(client);
    let error = cache(source).token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Timeout);
}
