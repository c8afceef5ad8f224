//! Clients that authenticate by their certificate (RFC 8705): accepted, and refused for each reason,
//! and tokens that are bound to the certificate.

use std::fs;
use std::path::{Path, PathBuf};

use bearer_auth::{
    BearerAuthLayer, BoxError, ClientAuthentication, ClientCredentials, ClientCredentialsBuilder,
    TokenCache, TokenError, TokenErrorKind,
};
use serde_json::Value;

use crate::server::{Counters, Server};
use crate::support::stack::{Kind, Stack};
use crate::{ONE_OF_EACH, accepted, layer};

const CA: &[u8] = include_bytes!("../keys/tls/ca.pem");
const CLIENT_1: &[u8] = include_bytes!("../keys/tls/client-1.pem");
const CLIENT_2: &[u8] = include_bytes!("../keys/tls/client-2.pem");
const SELF_SIGNED_1: &[u8] = include_bytes!("../keys/tls/self-signed-1.pem");
const SELF_SIGNED_2: &[u8] = include_bytes!("../keys/tls/self-signed-2.pem");

/// Returns a client that trusts the server, without a certificate of its own.
fn anonymous() -> reqwest::ClientBuilder {
    let ca = reqwest::Certificate::from_pem(CA).unwrap();
    reqwest::Client::builder()
        .tls_backend_rustls()
        .tls_certs_only([ca])
}

fn presenting(certificate: &[u8]) -> reqwest::ClientBuilder {
    anonymous().identity(reqwest::Identity::from_pem(certificate).unwrap())
}

/// Returns a client that uses the endpoint for certificates, which the metadata names.
fn client(server: &Server, id: &str) -> ClientCredentialsBuilder {
    ClientCredentials::discover(&server.issuer)
        .allow_token_origin(&server.mtls_url)
        .unwrap()
        .client_id(id)
        .client_authentication(ClientAuthentication::TlsClientAuth)
        .scope("tenant/42")
}

async fn fetch(source: ClientCredentialsBuilder) -> Result<(), TokenError> {
    let cache = TokenCache::new(source.build().unwrap());
    cache.token().await.map(drop)
}

#[tokio::test]
async fn a_certificate_gets_a_token_at_the_endpoint_for_certificates() {
    let Some(server) = Server::start().await else {
        return;
    };
    for (id, certificate) in [
        ("tls-client", CLIENT_1),
        ("self-signed-client", SELF_SIGNED_1),
        ("self-signed-client", SELF_SIGNED_2),
    ] {
        for is_factory in [false, true] {
            server.reset_counters().await;
            let source = client(&server, id);
            let source = if is_factory {
                source.reqwest_factory(|| presenting(certificate))
            } else {
                source.reqwest_builder(presenting(certificate))
            };
            let stack = Stack::new(Kind::ALL[0], &layer(&server, source));
            let report = accepted(stack.get(server.url("/")).await);
            assert_eq!(report["client"], id);
            let expected = Counters {
                token_requests_tls: 1,
                ..ONE_OF_EACH
            };
            assert_eq!(server.counters().await, expected, "{id}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_the_server_refuses_is_an_invalid_client() {
    let Some(server) = Server::start().await else {
        return;
    };
    for (id, http, reason) in [
        (
            "tls-client",
            presenting(CLIENT_2),
            "does not match the registered one",
        ),
        (
            "tls-client",
            presenting(SELF_SIGNED_1),
            "certificate was not verified",
        ),
        ("tls-client", anonymous(), "certificate was not provided"),
        (
            "self-signed-client",
            presenting(CLIENT_1),
            "unregistered client certificate",
        ),
        (
            "self-signed-client",
            anonymous(),
            "certificate was not provided",
        ),
        (
            "post-client",
            presenting(CLIENT_1),
            "does not match the registered client",
        ),
    ] {
        server.reset_counters().await;
        let source = client(&server, id).reqwest_builder(http);
        let error = fetch(source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::InvalidClient, "{reason}");
        assert_eq!(error.oauth_error(), Some("invalid_client"));
        assert_eq!(error.status().unwrap(), 401);
        assert!(!error.is_transient());
        let seen = server.last_reason().await;
        assert!(seen.contains(reason), "{reason}: {seen}");
        assert_eq!(server.counters().await.token_requests, 1, "{reason}");
    }

    // A factory may read another certificate the second time.
    server.reset_counters().await;
    let source = client(&server, "tls-client").reqwest_factory(|| presenting(CLIENT_2));
    let error = fetch(source).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert_eq!(server.counters().await.token_requests, 2);
}

/// Returns a file with a certificate and its key, and the function that reads it.
fn certificate_file() -> (
    PathBuf,
    impl Fn() -> Result<reqwest::ClientBuilder, BoxError>,
) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificate-of-bound-client");
    let read = path.clone();
    (path, move || Ok(presenting(&fs::read(&read)?)))
}

#[tokio::test]
async fn a_bound_token_is_replaced_when_the_certificate_is() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (file, factory) = certificate_file();
    fs::write(&file, SELF_SIGNED_1).unwrap();
    let source = client(&server, "bound-client").reqwest_factory(factory);
    let layer = BearerAuthLayer::new(source.build().unwrap());
    let cache = layer.cache().clone();
    let layer = layer.allow_origin(&server.mtls_url).unwrap();
    let url = format!("{}/orders", server.mtls_url);
    let get = async |certificate| -> Value {
        let client =
            reqwest_middleware::ClientBuilder::new(presenting(certificate).build().unwrap());
        let response = client
            .with(layer.clone())
            .build()
            .get(&url)
            .send()
            .await
            .unwrap();
        let status = response.status();
        let report = response.json().await.unwrap();
        assert_eq!(status, 200, "{report}");
        report
    };
    assert_eq!(get(SELF_SIGNED_1).await["client"], "bound-client");
    let first = cache.token().await.unwrap();

    // The token alone is worth nothing.
    for http in [anonymous(), presenting(SELF_SIGNED_2)] {
        let request = http
            .build()
            .unwrap()
            .get(&url)
            .bearer_auth(first.expose_secret());
        assert_eq!(request.send().await.unwrap().status(), 401);
    }

    fs::write(&file, SELF_SIGNED_2).unwrap();
    server.reset_counters().await;
    get(SELF_SIGNED_2).await;
    let second = cache.token().await.unwrap();
    assert_ne!(second.expose_secret(), first.expose_secret());
    let expected = Counters {
        token_requests_tls: 1,
        api_requests: 2,
        api_unauthorized: 1,
        ..ONE_OF_EACH
    };
    assert_eq!(server.counters().await, expected, "one replay");
}
