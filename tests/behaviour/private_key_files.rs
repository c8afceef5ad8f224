//! A private key in a file that another process rotates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bearer_auth::{
    ClientAuthentication, ClientCredentials, PrivateKeyFile, SigningAlgorithm, TokenCache,
    TokenErrorKind,
};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::client_assertions::{ED25519, ISSUER, P256, client_of, fetch, field, issued};
use crate::discovery::chain;
use crate::secret_files::{invalid_client, replace};
use crate::support::api::{Api, Received};
use crate::support::jwt::Jwt;
use crate::support::rotation::{TENANTS, rotate_under_load, short_lived};

/// Returns the path of a file of this test alone, which does not exist yet.
fn path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("key-{name}"));
    let _ = fs::remove_file(&path);
    path
}

fn assertion(request: &Received) -> Jwt {
    Jwt::parse(&field(request, "client_assertion"))
}

/// Returns true if the assertion is signed by the key in this PEM.
fn is_signed_by(jwt: &Jwt, private: &str) -> bool {
    let (algorithm, public) = match private {
        P256 => (
            Algorithm::ES256,
            DecodingKey::from_ec_pem(include_bytes!("../keys/p256-public.pem")),
        ),
        _ => (
            Algorithm::EdDSA,
            DecodingKey::from_ed_pem(include_bytes!("../keys/ed25519-public.pem")),
        ),
    };
    jwt.header["alg"] == format!("{algorithm:?}") && jwt.is_signed_by(algorithm, &public.unwrap())
}

#[tokio::test]
async fn the_key_file_is_read_for_each_token_request() {
    let endpoint = Api::start(|_| issued()).await;
    let file = path("each-request");
    let key = PrivateKeyFile::new(&file).key_id("2026-11");
    let source = client_of(&endpoint)
        .private_key_file(key)
        .audience(ISSUER)
        .build()
        .unwrap();
    assert!(format!("{source:?}").contains("private_key_file"));
    for key in [P256, ED25519, P256] {
        fs::write(&file, key).unwrap();
        TokenCache::new(source.clone()).token().await.unwrap();
        let jwt = assertion(endpoint.requests().last().unwrap());
        assert!(is_signed_by(&jwt, key), "{:?}", jwt.header);
        assert_eq!(jwt.header["kid"], "2026-11");
        assert_eq!(jwt.claims["aud"], ISSUER);
        assert_eq!(jwt.claims["sub"], "my client");
    }
}

#[tokio::test]
async fn a_jwk_in_a_file_names_its_key_and_the_settings_come_first() {
    let endpoint = Api::start(|_| issued()).await;
    let file = path("jwk");
    let jwk = include_str!("../keys/rsa.jwk.json").trim_start();
    let jwk = format!(
        "\n{{\"kid\":\"of-the-file\",\"alg\":\"PS256\",{}",
        &jwk[1..]
    );
    fs::write(&file, jwk).unwrap();
    for (key, id, algorithm) in [
        (PrivateKeyFile::new(&file), "of-the-file", "PS256"),
        (
            PrivateKeyFile::new(&file)
                .key_id("set")
                .algorithm(SigningAlgorithm::Rs256),
            "set",
            "RS256",
        ),
    ] {
        let source = client_of(&endpoint).private_key_file(key).audience(ISSUER);
        fetch(source).await.unwrap();
        let header = assertion(endpoint.requests().last().unwrap()).header;
        assert_eq!(
            (&header["kid"], &header["alg"]),
            (&id.into(), &algorithm.into())
        );
    }
}

#[tokio::test]
async fn a_key_rotated_before_the_answer_signs_in_the_same_fetch() {
    let file = path("rotated-once");
    fs::write(&file, P256).unwrap();
    let rotated = file.clone();
    let endpoint = Api::start(move |request| {
        replace(&rotated, ED25519);
        match is_signed_by(&assertion(request), ED25519) {
            true => issued(),
            false => invalid_client(),
        }
    })
    .await;
    let key = PrivateKeyFile::new(&file);
    fetch(client_of(&endpoint).private_key_file(key).audience(ISSUER))
        .await
        .unwrap();
    assert_eq!(endpoint.requests().len(), 2);
}

#[tokio::test]
async fn a_key_that_has_not_changed_signs_once_and_then_there_is_a_pause() {
    let file = path("wrong");
    fs::write(&file, P256).unwrap();
    let endpoint = Api::start(|_| invalid_client()).await;
    let key = PrivateKeyFile::new(&file);
    let source = client_of(&endpoint).private_key_file(key).audience(ISSUER);
    let cache = TokenCache::new(source.build().unwrap());
    let error = cache.token().await.unwrap_err();
    assert_eq!(error.kind(), TokenErrorKind::InvalidClient);
    assert!(cache.token().await.unwrap_err().is_paused());
    assert_eq!(endpoint.requests().len(), 1);
}

#[tokio::test]
async fn a_key_file_that_cannot_be_used_is_a_typed_error_without_its_content() {
    let endpoint = Api::start(|_| issued()).await;
    let hush = "-----BEGIN PRIVATE KEY-----\naHVzaC1odXNo\n-----END PRIVATE KEY-----";
    for (name, content, transient, expected) in [
        ("missing", None, true, "cannot be read"),
        ("empty", Some(&b""[..]), true, "is empty"),
        ("blank", Some(b" \r\n"), true, "is empty"),
        ("no-key", Some(hush.as_bytes()), false, "must be an RSA key"),
        (
            "secret",
            Some(b"hush-hush"),
            false,
            "must be a private key in PEM",
        ),
        ("object", Some(b"{\"hush\":1}"), false, "must be"),
        ("bytes", Some(b"hush\xff"), false, "must be text"),
        ("long", Some(&[b'x'; 65537]), false, "longer than 65536"),
        (
            "encrypted",
            Some(include_bytes!("../keys/encrypted.pem")),
            false,
            "must not be encrypted",
        ),
        (
            "other-algorithm",
            Some(P256.as_bytes()),
            false,
            "must have an algorithm that fits the key",
        ),
    ] {
        let file = path(name);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let mut key = PrivateKeyFile::new(&file);
        if name == "other-algorithm" {
            key = key.algorithm(SigningAlgorithm::EdDsa);
        }
        let source = client_of(&endpoint).private_key_file(key).audience(ISSUER);
        let error = fetch(source).await.unwrap_err();
        assert_eq!(error.kind(), TokenErrorKind::CredentialFile, "{name}");
        assert_eq!(error.is_transient(), transient, "{name}");
        let text = chain(&error);
        assert!(text.contains(expected), "{name}: {text}");
        assert!(text.contains(&format!("key-{name}")), "{text}");
        assert!(!text.contains("hush") && !text.contains("aHVza"), "{text}");
    }
    assert!(endpoint.requests().is_empty());
}

#[test]
fn a_key_file_needs_a_path_an_audience_and_no_other_proof() {
    let client = || {
        let client = ClientCredentials::builder("https://id.example.com/token");
        client.client_id("id")
    };
    let key = || PrivateKeyFile::new("/run/secrets/key.pem");
    for (builder, names) in [
        (
            client()
                .private_key_file(PrivateKeyFile::new(""))
                .audience(ISSUER),
            ["private_key_file", "private_key_file"],
        ),
        (
            client().private_key_file(key()),
            ["audience", "private_key_file"],
        ),
        (
            client().private_key_file(key()).client_secret("s"),
            ["client_secret", "private_key_file"],
        ),
        (
            client()
                .private_key_file(key())
                .client_authentication(ClientAuthentication::SecretJwt),
            ["client_authentication", "private_key_file"],
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.setting(), names[0]);
        assert!(error.to_string().contains(names[1]), "{error}");
    }
    client()
        .private_key_file(key())
        .audience(ISSUER)
        .build()
        .unwrap();
}

/// Takes 5 s of real time, since it is about the rate of requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_rotated_under_load_costs_no_request() {
    let file = path("load");
    fs::write(&file, P256).unwrap();
    let (accepted, refused) = (file.clone(), Arc::<AtomicUsize>::default());
    let refusals = Arc::clone(&refused);
    // The server switches with the file: an assertion by the key that was there before is refused.
    let endpoint = Api::start(move |request| {
        let key = fs::read_to_string(&accepted).unwrap();
        if is_signed_by(&assertion(request), &key) {
            short_lived()
        } else {
            refusals.fetch_add(1, Ordering::Relaxed);
            invalid_client()
        }
    })
    .await;
    let source = client_of(&endpoint)
        .private_key_file(PrivateKeyFile::new(&file))
        .audience(ISSUER)
        .build();
    rotate_under_load("key", source.unwrap(), 10, |number| {
        replace(&file, if number % 2 == 0 { P256 } else { ED25519 });
    })
    .await;
    let requests = endpoint.requests().len();
    println!("{requests} token requests, {refused:?} refused and sent again");
    assert!(requests > 3 * TENANTS);
}
