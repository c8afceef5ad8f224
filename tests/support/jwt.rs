//! Reads the JWTs that the crate signs, and verifies their signatures.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

pub(crate) struct Jwt {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    /// The part that is signed.
    message: String,
    signature: Vec<u8>,
}

impl Jwt {
    pub(crate) fn parse(jwt: &str) -> Self {
        let parts: Vec<_> = jwt.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            panic!("not three parts: {jwt}");
        };
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let json = |part: &str| serde_json::from_slice(&bytes(part)).unwrap();
        Self {
            header: json(header),
            claims: json(claims),
            message: format!("{header}.{claims}"),
            signature: bytes(signature),
        }
    }

    pub(crate) fn is_signed_by(&self, algorithm: Algorithm, key: &DecodingKey) -> bool {
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key).unwrap();
        let message = self.message.as_bytes();
        verifier.verify(message, &self.signature).is_ok()
    }
}
