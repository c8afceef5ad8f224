//! The certificates by which servers are known.

#[cfg(feature = "rustls")]
use redis::TlsCertificates;
use redis::cluster::ClusterClientBuilder;
use redis::sentinel::SentinelClientBuilder;
use redis::{Client, ConnectionInfo, RedisResult};

/// The root certificates of servers; those of the system unless others are set.
#[derive(Clone, Default)]
pub(super) struct Roots(#[cfg(feature = "rustls")] Option<TlsCertificates>);

#[cfg(feature = "rustls")]
impl Roots {
    pub(super) fn of_pem(pem: &[u8]) -> Self {
        Self(Some(TlsCertificates {
            client_tls: None,
            root_cert: Some(pem.to_vec()),
        }))
    }

    /// Chooses a provider for the process if it has none. The client of redis takes the one of the
    /// process, and panics if there is none and rustls has several or none to choose from.
    pub(super) fn choose_crypto_provider() {
        use rustls::crypto::{CryptoProvider, aws_lc_rs};

        if CryptoProvider::get_default().is_none() {
            // Fails if another thread was quicker.
            let _ = aws_lc_rs::default_provider().install_default();
        }
    }

    pub(super) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        match &self.0 {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    pub(super) fn sentinel(&self, builder: SentinelClientBuilder) -> SentinelClientBuilder {
        match &self.0 {
            Some(certificates) => builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone()),
            None => builder,
        }
    }

    pub(super) fn cluster(&self, builder: ClusterClientBuilder) -> ClusterClientBuilder {
        match &self.0 {
            Some(certificates) => builder.certs(certificates.clone()),
            None => builder,
        }
    }
}

#[cfg(not(feature = "rustls"))]
impl Roots {
    pub(super) fn choose_crypto_provider() {}

    pub(super) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        Client::open(info)
    }

    pub(super) fn sentinel(&self, builder: SentinelClientBuilder) -> SentinelClientBuilder {
        builder
    }

    pub(super) fn cluster(&self, builder: ClusterClientBuilder) -> ClusterClientBuilder {
        builder
    }
}
