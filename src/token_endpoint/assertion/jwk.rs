//! Private JSON Web Keys (RFC 7517, RFC 7518 §6, RFC 8037 §2), converted to DER.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::InvalidSetting;
use crate::token_endpoint::assertion::private_key::SETTING;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// The tag of the public key in an `ECPrivateKey` (RFC 5915 §3).
const PUBLIC_KEY: u8 = 0xA1;

/// `id-ecPublicKey` (RFC 5480 §2.1.1).
const EC_PUBLIC_KEY: [u8; 7] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
/// `secp256r1` (RFC 5480 §2.1.1.1).
const P256: [u8; 8] = [0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// `id-Ed25519` (RFC 8410 §3).
const ED25519: [u8; 3] = [0x2B, 0x65, 0x70];

/// A part of a key that is wiped when it is dropped.
type Secret = Zeroizing<Vec<u8>>;

/// The members of a private JWK. Those with key material are borrowed, so that they are not copied.
#[derive(Deserialize)]
pub(super) struct Jwk<'a> {
    #[serde(borrow, default)]
    kty: Cow<'a, str>,
    #[serde(borrow)]
    crv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) alg: Option<Cow<'a, str>>,
    n: Option<&'a str>,
    e: Option<&'a str>,
    d: Option<&'a str>,
    p: Option<&'a str>,
    q: Option<&'a str>,
    dp: Option<&'a str>,
    dq: Option<&'a str>,
    qi: Option<&'a str>,
    x: Option<&'a str>,
    y: Option<&'a str>,
}

impl<'a> Jwk<'a> {
    pub(super) fn parse(json: &'a [u8]) -> Result<Self, InvalidSetting> {
        // The error of the parser may contain a part of the key.
        serde_json::from_slice(json)
            .map_err(|_| invalid("must be one private key as JSON (RFC 7517), not a set of keys"))
    }

    /// Returns the key in the DER form that `jsonwebtoken` expects.
    pub(super) fn key(&self) -> Result<EncodingKey, InvalidSetting> {
        match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => Ok(EncodingKey::from_rsa_der(&self.rsa()?)),
            ("EC", Some("P-256")) => Ok(EncodingKey::from_ec_der(&self.p256()?)),
            ("OKP", Some("Ed25519")) => Ok(EncodingKey::from_ed_der(&self.ed25519()?)),
            ("EC" | "OKP", _) => Err(invalid(
                "must have the curve P-256 or Ed25519 in the `crv` of its JWK: others are not \
                 supported",
            )),
            _ => Err(invalid(
                "must have one of the types RSA, EC and OKP in the `kty` of its JWK, and must be \
                 one key, not a set of keys",
            )),
        }
    }

    /// Returns an `RSAPrivateKey` (RFC 8017 §A.1.2).
    fn rsa(&self) -> Result<Secret, InvalidSetting> {
        let mut content = integer(&[0]);
        for (name, value) in [
            ("n", self.n),
            ("e", self.e),
            ("d", self.d),
            ("p", self.p),
            ("q", self.q),
            ("dp", self.dp),
            ("dq", self.dq),
            ("qi", self.qi),
        ] {
            content = joined(&[&content, &integer(&bytes(name, value)?)]);
        }
        Ok(der(SEQUENCE, &[&content]))
    }

    /// Returns an `ECPrivateKey` (RFC 5915 §3) in PKCS#8 (RFC 5208 §5).
    fn p256(&self) -> Result<Secret, InvalidSetting> {
        let (d, x, y) = (
            bytes_of_32("d", self.d)?,
            bytes_of_32("x", self.x)?,
            bytes_of_32("y", self.y)?,
        );
        // No unused bits; a point that is not compressed.
        let point = der(BIT_STRING, &[&[0, 4], &x, &y]);
        let key = der(
            SEQUENCE,
            &[
                &integer(&[1]),
                &der(OCTET_STRING, &[&d]),
                &der(PUBLIC_KEY, &[&point]),
            ],
        );
        let algorithm = [der(OBJECT_ID, &[&EC_PUBLIC_KEY]), der(OBJECT_ID, &[&P256])];
        Ok(pkcs8(&algorithm, &key))
    }

    /// Returns a `CurvePrivateKey` (RFC 8410 §7) in PKCS#8 (RFC 5208 §5).
    fn ed25519(&self) -> Result<Secret, InvalidSetting> {
        let key = der(OCTET_STRING, &[&bytes_of_32("d", self.d)?]);
        Ok(pkcs8(&[der(OBJECT_ID, &[&ED25519])], &key))
    }
}

fn invalid(requirement: impl Into<Cow<'static, str>>) -> InvalidSetting {
    InvalidSetting::new(SETTING, requirement)
}

/// Decodes a member of the JWK.
fn bytes(name: &str, value: Option<&str>) -> Result<Secret, InvalidSetting> {
    let value = value.unwrap_or_default();
    // Room for all of it, so that no reallocation leaves a copy behind.
    let mut decoded = Zeroizing::new(Vec::with_capacity(value.len()));
    match URL_SAFE_NO_PAD.decode_vec(value, &mut decoded) {
        Ok(()) if !decoded.is_empty() => Ok(decoded),
        _ => Err(invalid(format!(
            "must be a private key, with `{name}` in base64url in its JWK"
        ))),
    }
}

fn bytes_of_32(name: &str, value: Option<&str>) -> Result<Secret, InvalidSetting> {
    let decoded = bytes(name, value)?;
    if decoded.len() == 32 {
        Ok(decoded)
    } else {
        Err(invalid(format!(
            "must have 32 bytes in `{name}` of its JWK, but has {}",
            decoded.len()
        )))
    }
}

fn pkcs8(algorithm: &[Secret], key: &[u8]) -> Secret {
    let parts: Vec<&[u8]> = algorithm.iter().map(|part| part.as_slice()).collect();
    der(
        SEQUENCE,
        &[
            &integer(&[0]),
            &der(SEQUENCE, &parts),
            &der(OCTET_STRING, &[key]),
        ],
    )
}

/// Returns the DER of a number that is not negative.
fn integer(number: &[u8]) -> Secret {
    let start = number.iter().position(|byte| *byte != 0);
    let digits = start.map_or(&[0][..], |start| &number[start..]);
    // The first bit is the sign.
    let sign: &[u8] = if digits.first().is_some_and(|byte| *byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    der(INTEGER, &[sign, digits])
}

/// Returns an element of DER (X.690 §8.1).
fn der(tag: u8, parts: &[&[u8]]) -> Secret {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let big_endian = length.to_be_bytes();
    let used = &big_endian[length.leading_zeros() as usize / 8..];
    let short = [length as u8];
    let long = [0x80 | used.len() as u8];
    let (first, rest): (&[u8], &[u8]) = if length < 0x80 {
        (&short, &[])
    } else {
        (&long, used)
    };
    let mut all: Vec<&[u8]> = vec![std::slice::from_ref(&tag), first, rest];
    all.extend(parts);
    joined(&all)
}

/// Joins the parts without a reallocation, which would leave a copy behind.
fn joined(parts: &[&[u8]]) -> Secret {
    let mut joined = Zeroizing::new(Vec::with_capacity(parts.iter().map(|it| it.len()).sum()));
    parts.iter().for_each(|part| joined.extend_from_slice(part));
    joined
}
