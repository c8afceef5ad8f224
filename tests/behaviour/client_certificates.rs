//! Clients that authenticate by the certificate of their connection (RFC 8705), against a server
//! that requires one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bearer_auth::{
    BoxError, ClientAuthentication, ClientCredentials, ClientCredentialsBuilder, TokenCache,
    TokenErrorKind,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::client_assertions::fetch;
use crate::discovery::chain;
use crate::support::rotation::{TENANTS, rotate_under_load, short_lived};

const CA: &[u8] = include_bytes!("../keys/tls/ca.pem");
const SERVER: &[u8] = include_bytes!("../keys/tls/server.pem");
const CLIENT_1: &[u8] = include_bytes!("../keys/tls/client-1.pem");
const CLIENT_2: &[u8] = include_bytes!("../keys/tls/client-2.pem");

/// A token endpoint that requires a certificate of the test's CA, and accepts the one that is in a
/// file at the time of the request.
#[derive(Clone)]
struct Server {
    url: String,
    accepted: PathBuf,
    /// Closes the connections of other certificates, as a server does that no longer trusts them.
    closes: Arc<AtomicBool>,
    /// The certificate and the form of each request.
    requests: Arc<Mutex<Vec<(CertificateDer<'static>, String)>>>,
}

impl Server {
    async fn start(accepted: &Path) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate(CA)).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![certificate(SERVER)],
                PrivateKeyDer::from_pem_slice(SERVER).unwrap(),
            );
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("https://{}/token", listener.local_addr().unwrap()),
            accepted: accepted.to_owned(),
            closes: Arc::default(),
            requests: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(acceptor.clone(), stream));
            }
        });
        server
    }

    async fn serve(self, acceptor: TlsAcceptor, stream: TcpStream) {
        // Clients without a certificate fail here.
        let Ok(stream) = acceptor.accept(stream).await else {
            return;
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap();
        let presented = certificates[0].clone().into_owned();
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, presented) = (self.clone(), presented.clone());
            async move {
                let body = request.into_body().collect().await;
                let form = body.map_err(io::Error::other)?.to_bytes();
                let response = server.respond(presented, &form);
                response.ok_or_else(|| io::Error::other("no longer trusted"))
            }
        });
        // An error closes the connection.
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let _ = connection.await;
    }

    fn respond(
        &self,
        presented: CertificateDer<'static>,
        form: &[u8],
    ) -> Option<Response<Full<Bytes>>> {
        let is_accepted = presented == certificate(&fs::read(&self.accepted).unwrap());
        let form = String::from_utf8(form.to_vec()).unwrap();
        self.requests.lock().unwrap().push((presented, form));
        if is_accepted {
            return Some(short_lived());
        }
        if self.closes.load(Ordering::Relaxed) {
            return None;
        }
        let mut response = Response::new(Full::from(r#"{"error":"invalid_client"}"#));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        Some(response)
    }

    /// Returns the certificates of all requests.
    fn presented(&self) -> Vec<CertificateDer<'static>> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .map(|(presented, _)| presented.clone())
            .collect()
    }

    fn client(&self) -> ClientCredentialsBuilder {
        ClientCredentials::builder(&self.url)
            .client_id("my client")
            .client_authentication(ClientAuthentication::TlsClientAuth)
    }
}

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

/// Returns a client that trusts the test's CA only.
fn trusting() -> reqwest::ClientBuilder {
    let ca = reqwest::Certificate::from_pem(CA).unwrap();
    reqwest::Client::builder()
        .tls_backend_rustls()
        .tls_certs_only([ca])
}

/// Returns the function that reads a certificate for each client.
fn reading(file: &Path) -> impl Fn() -> Result<reqwest::ClientBuilder, BoxError> + use<> {
    let file = file.to_owned();
    move || {
        let identity = reqwest::Identity::from_pem(&fs::read(&file)?)?;
        Ok(trusting().identity(identity))
    }
}

/// Returns a file with the first certificate.
fn certificate_file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("certificate-{name}"));
    fs::write(&path, CLIENT_1).unwrap();
    path
}

/// Replaces the file in one step.
fn replace(file: &Path, certificate: &[u8]) {
    let draft = file.with_extension("draft");
    fs::write(&draft, certificate).unwrap();
    fs::rename(draft, file).unwrap();
}

#[tokio::test]
async fn a_certificate_authenticates_the_client_and_the_form_has_its_id_alone() {
    let file = certificate_file("login");
    let server = Server::start(&file).await;
    let identity = reqwest::Identity::from_pem(CLIENT_1).unwrap();
    let client = server
        .client()
        .reqwest_builder(trusting().identity(identity));
    fetch(client).await.unwrap();
    let requests = server.requests.lock().unwrap().clone();
    let (presented, form) = &requests[0];
    assert_eq!(*presented, certificate(CLIENT_1));
    assert_eq!(form, "grant_type=client_credentials&client_id=my+client");

    // Without a certificate there is no connection.
    let error = fetch(server.client().reqwest_builder(trusting())).await;
    assert_eq!(error.unwrap_err().kind(), TokenErrorKind::Connection);
    assert_eq!(server.presented().len(), 1);
}

#[tokio::test]
async fn a_factory_uses_a_rotated_certificate_at_once() {
    let file = certificate_file("rotated");
    let server = Server::start(&file).await;
    let source = server.client().reqwest_factory(reading(&file)).build();
    let cache = TokenCache::new(source.unwrap());
    for client in [CLIENT_1, CLIENT_2, CLIENT_1] {
        replace(&file, client);
        cache.invalidate(&cache.token().await.unwrap());
        cache.token().await.unwrap();
    }
    let expected = [CLIENT_1, CLIENT_2, CLIENT_1].map(certificate);
    let mut presented = server.presented();
    presented.dedup();
    assert_eq!(presented, expected);
}

#[tokio::test]
async fn a_factory_for_reqwest_0_12_uses_a_rotated_certificate_at_once() {
    let file = certificate_file("rotated-0-12");
    let server = Server::start(&file).await;
    let read = file.clone();
    let factory = move || -> Result<_, BoxError> {
        let identity = reqwest_0_12::Identity::from_pem(&fs::read(&read)?)?;
        Ok(reqwest_0_12::Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .add_root_certificate(reqwest_0_12::Certificate::from_pem(CA)?)
            .identity(identity))
    };
    let source = server.client().reqwest_0_12_factory(factory).build();
    let source = source.unwrap();
    for client in [CLIENT_1, CLIENT_2] {
        replace(&file, client);
        TokenCache::new(source.clone()).token().await.unwrap();
    }
    assert_eq!(server.presented(), [CLIENT_1, CLIENT_2].map(certificate));
}

/// Returns a factory that reads the file and then has it rotated, before the request is sent.
fn rotating_once(file: &Path) -> impl Fn() -> Result<reqwest::ClientBuilder, BoxError> + use<> {
    let (read, file, is_first) = (reading(file), file.to_owned(), AtomicBool::new(true));
    move || {
        let client = read();
        if is_first.swap(false, Ordering::Relaxed) {
            replace(&file, CLIENT_2);
        }
        client
    }
}

#[tokio::test]
async fn a_certificate_rotated_before_the_answer_costs_no_error() {
    for closes in [false, true] {
        let file = certificate_file(&format!("before-the-answer-{closes}"));
        let server = Server::start(&file).await;
        server.closes.store(closes, Ordering::Relaxed);
        let client = server.client().reqwest_factory(rotating_once(&file));
        fetch(client).await.unwrap();
        assert_eq!(server.presented(), [CLIENT_1, CLIENT_2].map(certificate));
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_accepted_is_presented_twice_and_then_paused() {
    let file = certificate_file("not-accepted");
    let server = Server::start(&file).await;
    let other = certificate_file("other");
    replace(&other, CLIENT_2);
    let source = server.client().reqwest_factory(reading(&other)).build();
    let cache = TokenCache::new(source.unwrap());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert!(cache.token().await.unwrap_err().is_paused());
    assert_eq!(server.presented().len(), 2);

    // One client for all token requests has one certificate.
    let identity = reqwest::Identity::from_pem(CLIENT_2).unwrap();
    let client = server
        .client()
        .reqwest_builder(trusting().identity(identity));
    fetch(client).await.unwrap_err();
    assert_eq!(server.presented().len(), 3);
}

#[tokio::test]
async fn a_factory_that_fails_is_a_transient_error_and_is_not_called_before_the_first_fetch() {
    let file = Path::new("/nowhere/certificate");
    let client = || {
        let client = ClientCredentials::builder("https://127.0.0.1:9/token").client_id("id");
        client.client_authentication(ClientAuthentication::TlsClientAuth)
    };
    let error = fetch(client().reqwest_factory(reading(file)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::Source);
    assert!(error.is_transient());
    assert!(chain(&error).contains("No such file"), "{error:?}");

    fn panics() -> reqwest::ClientBuilder {
        panic!("hush-hush")
    }
    let error = fetch(client().reqwest_factory(panics)).await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::SourcePanicked);
    assert!(!chain(&error).contains("hush"), "{error:?}");

    let calls = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&calls);
    let factory = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        trusting()
    };
    let source = client().reqwest_factory(factory).build().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    TokenCache::new(source).token().await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 3, "once for each try");
}

#[test]
fn a_certificate_is_the_only_proof() {
    let client = || {
        let client = ClientCredentials::builder("https://id.example.com/token").client_id("id");
        client.client_authentication(ClientAuthentication::TlsClientAuth)
    };
    let source = client().build().unwrap();
    assert!(format!("{source:?}").contains("TlsClientAuth"));
    for (builder, setting) in [
        (client().client_secret("s"), "client_authentication"),
        (client().client_secret_file("s"), "client_authentication"),
        (client().client_assertion_file("a"), "client_authentication"),
        (client().audience("https://id.example.com"), "audience"),
        (client().client_id(""), "client_id"),
    ] {
        assert_eq!(builder.build().unwrap_err().setting(), setting);
    }
}

/// Takes 5 s of real time, since it is about the rate of requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_rotated_under_load_costs_no_request() {
    let file = certificate_file("load");
    let server = Server::start(&file).await;
    let source = server.client().reqwest_factory(reading(&file)).build();
    rotate_under_load("certificate", source.unwrap(), 50, |number| {
        let is_odd = number % 2 == 1;
        replace(&file, if is_odd { CLIENT_2 } else { CLIENT_1 });
        server.closes.store(is_odd, Ordering::Relaxed);
    })
    .await;
    let presented = server.presented();
    println!("{} token requests", presented.len());
    assert!(presented.len() > 3 * TENANTS);
    assert!(
        [CLIENT_1, CLIENT_2]
            .iter()
            .all(|client| presented.contains(&certificate(client)))
    );
}
