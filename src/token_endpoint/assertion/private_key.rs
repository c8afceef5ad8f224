//! Assertions that are signed by the client's private key (`private_key_jwt`).

use std::fmt;

use async_trait::async_trait;
use jsonwebtoken::crypto::CryptoProvider;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};

use crate::error::{InvalidSetting, TokenError};
use crate::token_endpoint::assertion::jwk::Jwk;
use crate::token_endpoint::assertion::jwt::{PROVIDER, assertion, sign};
use crate::token_endpoint::assertion::{Assertion, AssertionContext, ClientAssertion};

/// The setting that errors name.
pub(super) const SETTING: &str = "private_key_jwt";

/// The length that the modulus of an RSA key must have at least, in bytes (RFC 7518 §3.3).
const SHORTEST_MODULUS: usize = 256;

/// An algorithm that signs assertions (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (`RS256`), for RSA keys.
    #[cfg_attr(feature = "serde", serde(rename = "RS256"))]
    Rs256,
    /// RSASSA-PSS with SHA-256 (`PS256`), for RSA keys.
    #[cfg_attr(feature = "serde", serde(rename = "PS256"))]
    Ps256,
    /// ECDSA with SHA-256 (`ES256`), for keys of the curve P-256.
    #[cfg_attr(feature = "serde", serde(rename = "ES256"))]
    Es256,
    /// EdDSA (`EdDSA`), for Ed25519 keys.
    #[cfg_attr(feature = "serde", serde(rename = "EdDSA"))]
    EdDsa,
}

/// The client's private key, which signs its assertions (`private_key_jwt`, RFC 7523 §2.2).
///
/// A new JWT is signed for each try of a token request. Its `iss` and `sub` are the client's id,
/// its `aud` is one string, the [`audience`](crate::GrantBuilder::audience) exactly as it was set,
/// its `jti` has 128 random bits, and it expires after 60 s by the system's clock.
///
/// Use one key for each issuer. The key is wiped from memory when the last clone is dropped, but
/// not the copies that are made while PEM is parsed. `Debug` does not show it. For keys that must
/// not be in memory at all, implement [`ClientAssertion`].
///
/// ```no_run
/// use bearer_auth::{ClientCredentials, PrivateKeyJwt};
///
/// let pem = std::fs::read("/etc/my-client/key.pem")?;
/// let source = ClientCredentials::builder("https://identity.example.com/connect/token")
///     .client_id("my-client")
///     .private_key_jwt(PrivateKeyJwt::from_pem(pem)?.key_id("2026-11"))
///     .audience("https://identity.example.com")
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct PrivateKeyJwt {
    key: EncodingKey,
    key_id: Option<String>,
    thumbprint: Option<String>,
    algorithm: SigningAlgorithm,
}

impl PrivateKeyJwt {
    /// Reads a private key from PEM: PKCS#8 (`BEGIN PRIVATE KEY`) with an RSA key, a key of the
    /// curve P-256 or an Ed25519 key, or PKCS#1 (`BEGIN RSA PRIVATE KEY`).
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if the text is no such key, or if the key is encrypted, has
    /// another curve, or is an RSA key of less than 2048 bits. It says what to do.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, InvalidSetting> {
        let pem = pem.as_ref();
        check_label(pem)?;
        let key = EncodingKey::from_ec_pem(pem)
            .or_else(|_| EncodingKey::from_ed_pem(pem))
            .or_else(|_| EncodingKey::from_rsa_pem(pem))
            .map_err(|_| {
                InvalidSetting::new(
                    SETTING,
                    "must be an RSA key, a key of the curve P-256 or an Ed25519 key, alone in \
                     its PEM",
                )
            })?;
        Self::new(key)
    }

    /// Reads a private key from a JSON Web Key (RFC 7517): RSA, the curve P-256, or Ed25519 (RFC
    /// 8037). Its `kid` and `alg` are used, if it has them.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if the text is no such key, such as a public key or a set of
    /// keys, or if its `alg` does not fit it. It says what to do.
    pub fn from_jwk(json: impl AsRef<[u8]>) -> Result<Self, InvalidSetting> {
        let jwk = Jwk::parse(json.as_ref())?;
        let mut key = Self::new(jwk.key()?)?;
        key.key_id = jwk.kid.map(|id| id.into_owned());
        match jwk.alg.as_deref() {
            None => Ok(key),
            Some("RS256") => key.checked(SigningAlgorithm::Rs256),
            Some("PS256") => key.checked(SigningAlgorithm::Ps256),
            Some("ES256") => key.checked(SigningAlgorithm::Es256),
            Some("EdDSA" | "Ed25519") => key.checked(SigningAlgorithm::EdDsa),
            Some(_) => Err(InvalidSetting::new(
                SETTING,
                "must have one of the algorithms RS256, PS256, ES256 and EdDSA in the `alg` of \
                 its JWK, or none",
            )),
        }
    }

    /// Sets the id of the key (`kid`, RFC 7515 §4.1.4) by which the server finds its public key.
    ///
    /// Default: that of the JWK, or none, and the server tries all keys of the client.
    #[must_use]
    pub fn key_id(mut self, id: impl Into<String>) -> Self {
        self.key_id = Some(id.into());
        self
    }

    /// Sets the thumbprint of the certificate with the public key (`x5t#S256`, RFC 7515 §4.1.8):
    /// the SHA-256 of its DER in base64url. Microsoft Entra finds the key by it.
    ///
    /// Default: none.
    #[must_use]
    pub fn certificate_thumbprint(mut self, thumbprint: impl Into<String>) -> Self {
        self.thumbprint = Some(thumbprint.into());
        self
    }

    /// Sets the algorithm.
    ///
    /// One that does not fit the key is an error of [`build`](crate::GrantBuilder::build).
    ///
    /// Default: that of the JWK, or else [`Rs256`](SigningAlgorithm::Rs256) for an RSA key,
    /// [`Es256`](SigningAlgorithm::Es256) for a key of the curve P-256, and
    /// [`EdDsa`](SigningAlgorithm::EdDsa) for an Ed25519 key.
    #[must_use]
    pub fn algorithm(mut self, algorithm: SigningAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Checks that the algorithm fits the key.
    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        if self.algorithm.of_library().family() == self.key.family() {
            return Ok(());
        }
        let fitting = match self.key.family() {
            AlgorithmFamily::Rsa => "`Rs256` or `Ps256` for an RSA key",
            AlgorithmFamily::Ec => "`Es256` for a key of the curve P-256",
            _ => "`EdDsa` for an Ed25519 key",
        };
        let requirement = format!(
            "must have an algorithm that fits the key: {fitting}, but not `{:?}`",
            self.algorithm
        );
        Err(InvalidSetting::new(SETTING, requirement))
    }

    fn checked(self, algorithm: SigningAlgorithm) -> Result<Self, InvalidSetting> {
        let key = self.algorithm(algorithm);
        key.check().map(|()| key)
    }

    /// Checks the key by a signature, since parsing shows only that it has the right form.
    fn new(key: EncodingKey) -> Result<Self, InvalidSetting> {
        let (algorithm, requirement) = match key.family() {
            AlgorithmFamily::Ec => (
                SigningAlgorithm::Es256,
                "must be a key of the curve P-256 (`prime256v1`): others are not supported",
            ),
            AlgorithmFamily::Ed => (
                SigningAlgorithm::EdDsa,
                "must be a valid Ed25519 key, but is damaged: export it again",
            ),
            _ => (
                SigningAlgorithm::Rs256,
                "must be a valid RSA key of at least 2048 bits: export it again, or create one \
                 (`openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072`)",
            ),
        };
        if can_sign(PROVIDER, &key, algorithm.of_library()) {
            Ok(Self {
                key,
                key_id: None,
                thumbprint: None,
                algorithm,
            })
        } else {
            Err(InvalidSetting::new(SETTING, requirement))
        }
    }
}

#[async_trait]
impl ClientAssertion for PrivateKeyJwt {
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
        self.check()?;
        let mut header = Header::new(self.algorithm.of_library());
        header.kid.clone_from(&self.key_id);
        header.x5t_s256.clone_from(&self.thumbprint);
        assertion(&self.key, header, context)
    }

    fn needs_audience(&self) -> bool {
        true
    }
}

impl fmt::Debug for PrivateKeyJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKeyJwt")
            .field("key_id", &self.key_id)
            .field("certificate_thumbprint", &self.thumbprint)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl SigningAlgorithm {
    fn of_library(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// Returns true if the key is long enough and signs.
fn can_sign(provider: &CryptoProvider, key: &EncodingKey, algorithm: Algorithm) -> bool {
    if key.family() == AlgorithmFamily::Rsa {
        let components = (provider.key_utils.rsa_pub_components_from_private_key)(key.as_bytes());
        if components.map_or(0, |(modulus, _)| modulus.len()) < SHORTEST_MODULUS {
            return false;
        }
    }
    sign(provider, key, algorithm, b"a trial").is_ok()
}

/// Checks that the label of the PEM is one of those that can be read.
fn check_label(pem: &[u8]) -> Result<(), InvalidSetting> {
    let has = |label: &str| {
        let begin = format!("-----BEGIN {label}-----");
        pem.windows(begin.len())
            .any(|part| part == begin.as_bytes())
    };
    let requirement = if has("ENCRYPTED PRIVATE KEY") {
        "must not be encrypted: decrypt it with `openssl pkcs8 -in KEY`"
    } else if has("EC PRIVATE KEY") {
        "must be in PKCS#8 (`BEGIN PRIVATE KEY`): convert it with `openssl pkcs8 -topk8 -nocrypt \
         -in KEY`"
    } else if has("OPENSSH PRIVATE KEY") {
        "must be in PKCS#8 (`BEGIN PRIVATE KEY`): convert it with `ssh-keygen -p -m PKCS8 -f KEY`"
    } else if has("PRIVATE KEY") || has("RSA PRIVATE KEY") {
        return Ok(());
    } else {
        "must be a private key in PEM (`BEGIN PRIVATE KEY`), not a public key or a certificate"
    };
    Err(InvalidSetting::new(SETTING, requirement))
}

#[cfg(test)]
mod tests;
