use jsonwebtoken::DecodingKey;

use super::*;

const RSA: &str = include_str!("../../../../tests/keys/rsa.pem");
const RSA_PKCS1: &str = include_str!("../../../../tests/keys/rsa-pkcs1.pem");
const RSA_JWK: &str = include_str!("../../../../tests/keys/rsa.jwk.json");
const RSA_PUBLIC: &str = include_str!("../../../../tests/keys/rsa-public.pem");
const RSA_1024: &str = include_str!("../../../../tests/keys/rsa-1024.pem");
const P256: &str = include_str!("../../../../tests/keys/p256.pem");
const P256_SEC1: &str = include_str!("../../../../tests/keys/p256-sec1.pem");
const P256_JWK: &str = include_str!("../../../../tests/keys/p256.jwk.json");
const P256_PUBLIC: &str = include_str!("../../../../tests/keys/p256-public.pem");
const P384: &str = include_str!("../../../../tests/keys/p384.pem");
const ED25519: &str = include_str!("../../../../tests/keys/ed25519.pem");
const ED25519_JWK: &str = include_str!("../../../../tests/keys/ed25519.jwk.json");
const ED25519_PUBLIC: &str = include_str!("../../../../tests/keys/ed25519-public.pem");
const ENCRYPTED: &str = include_str!("../../../../tests/keys/encrypted.pem");

/// The backends that this build has: both, if both features are on.
static BACKENDS: &[&CryptoProvider] = &[
    #[cfg(feature = "private-key-jwt")]
    &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER,
    #[cfg(feature = "private-key-jwt-rust-crypto")]
    &jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER,
];

fn key(text: &str) -> EncodingKey {
    let key = if text.starts_with('{') {
        PrivateKeyJwt::from_jwk(text)
    } else {
        PrivateKeyJwt::from_pem(text)
    };
    key.unwrap().key
}

#[test]
fn each_encoding_of_a_key_signs_with_each_backend() {
    let rsa = DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).unwrap();
    let p256 = DecodingKey::from_ec_pem(P256_PUBLIC.as_bytes()).unwrap();
    let ed25519 = DecodingKey::from_ed_pem(ED25519_PUBLIC.as_bytes()).unwrap();
    for (texts, public, algorithm) in [
        (&[RSA, RSA_PKCS1, RSA_JWK][..], &rsa, Algorithm::RS256),
        (&[RSA, RSA_JWK], &rsa, Algorithm::PS256),
        (&[P256, P256_JWK], &p256, Algorithm::ES256),
        (&[ED25519, ED25519_JWK], &ed25519, Algorithm::EdDSA),
    ] {
        for (text, signs) in texts
            .iter()
            .flat_map(|it| BACKENDS.iter().map(move |b| (it, b)))
        {
            let signature = sign(signs, &key(text), algorithm, b"message").unwrap();
            for verifies in BACKENDS {
                let verifier = (verifies.verifier_factory)(&algorithm, public).unwrap();
                verifier.verify(b"message", &signature).unwrap();
                assert!(verifier.verify(b"another", &signature).is_err());
            }
        }
    }
    assert!(!BACKENDS.is_empty());
}

#[test]
fn keys_that_cannot_be_used_sign_with_no_backend() {
    let p384 = EncodingKey::from_ec_pem(P384.as_bytes()).unwrap();
    let rsa_1024 = EncodingKey::from_rsa_pem(RSA_1024.as_bytes()).unwrap();
    for backend in BACKENDS {
        assert!(!can_sign(backend, &p384, Algorithm::ES256));
        assert!(!can_sign(backend, &rsa_1024, Algorithm::RS256));
        assert!(can_sign(backend, &key(RSA), Algorithm::PS256));
    }
}

#[test]
fn the_error_of_unusable_pem_says_what_to_do() {
    let damaged = RSA.replacen("MII", "MIJ", 1);
    let certificate = P256_PUBLIC.replace("PUBLIC KEY", "CERTIFICATE");
    let openssh = P256.replace("BEGIN PRIVATE", "BEGIN OPENSSH PRIVATE");
    for (pem, expected) in [
        (&*openssh, "ssh-keygen -p -m PKCS8"),
        ("", "must be a private key in PEM"),
        ("\u{0}\u{ff}", "must be a private key in PEM"),
        (P256_JWK, "must be a private key in PEM"),
        (P256_PUBLIC, "not a public key or a certificate"),
        (RSA_PUBLIC, "not a public key or a certificate"),
        (&certificate, "not a public key or a certificate"),
        (ENCRYPTED, "openssl pkcs8 -in KEY"),
        (P256_SEC1, "openssl pkcs8 -topk8 -nocrypt"),
        (P384, "must be a key of the curve P-256"),
        (RSA_1024, "at least 2048 bits"),
        (&damaged, "must be an RSA key"),
    ] {
        let error = PrivateKeyJwt::from_pem(pem).unwrap_err();
        assert_eq!(error.setting(), SETTING);
        assert!(error.to_string().contains(expected), "{error}\n{pem}");
    }
}

#[test]
fn the_error_of_an_unusable_jwk_says_what_to_do_without_the_key() {
    let set = format!(r#"{{"keys":[{P256_JWK}]}}"#);
    let without = |member: &str, jwk: &str| jwk.replace(&format!("\"{member}\":"), "\"_\":");
    let d = r#""d": "1X2"#;
    for (jwk, expected) in [
        (String::new(), "one private key as JSON"),
        ("[]".to_owned(), "one private key as JSON"),
        (RSA.to_owned(), "one private key as JSON"),
        (set, "not a set of keys"),
        (P256_JWK.replace("P-256", "P-384"), "the curve P-256"),
        (
            ED25519_JWK.replace("Ed25519", "X25519"),
            "the curve P-256 or Ed25519",
        ),
        (
            r#"{"kty":"oct","k":"1X2Xuo1b"}"#.to_owned(),
            "one of the types RSA",
        ),
        (without("d", P256_JWK), "`d`"),
        (without("x", P256_JWK), "`x`"),
        (without("p", RSA_JWK), "`p`"),
        (without("qi", RSA_JWK), "`qi`"),
        (ED25519_JWK.replace(d, r#""d": "+X2"#), "`d` in base64url"),
        (
            ED25519_JWK.replace(d, r#""d": "1X2A1X2A"#),
            "must have 32 bytes in `d`",
        ),
        (
            ED25519_JWK.replace(d, r#""d": 5, "_": "1X2"#),
            "one private key as JSON",
        ),
        (
            RSA_JWK.replace("\"e\": \"AQAB\"", "\"e\": \"Aw\""),
            "valid RSA key",
        ),
    ] {
        let error = PrivateKeyJwt::from_jwk(&jwk).unwrap_err();
        assert_eq!(error.setting(), SETTING);
        assert!(error.to_string().contains(expected), "{error}\n{jwk}");
        assert!(!error.to_string().contains("1X2Xuo1b"), "{error}");
    }
}

#[test]
fn the_algorithm_has_to_fit_the_key() {
    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    for (pem, fitting, names) in [
        (RSA, &[Rs256, Ps256][..], "`Rs256` or `Ps256`"),
        (P256, &[Es256], "`Es256`"),
        (ED25519, &[EdDsa], "`EdDsa`"),
    ] {
        let key = PrivateKeyJwt::from_pem(pem).unwrap();
        for algorithm in [Rs256, Ps256, Es256, EdDsa] {
            let checked = key.clone().algorithm(algorithm).check();
            assert_eq!(checked.is_ok(), fitting.contains(&algorithm));
            if let Err(error) = checked {
                assert!(error.to_string().contains(names), "{error}");
            }
        }
    }
}
