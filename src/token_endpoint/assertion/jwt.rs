//! Makes and signs the JWTs of `private_key_jwt` and `client_secret_jwt` (RFC 7523 §3).

use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
// Called by name: the process-wide default of `jsonwebtoken` panics if another crate has turned on
// the other backend, too.
use jsonwebtoken::crypto::CryptoProvider;
#[cfg(feature = "private-key-jwt")]
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
#[cfg(not(feature = "private-key-jwt"))]
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::clock;
use crate::error::{BoxError, InvalidSetting, TokenError};
use crate::token_endpoint::assertion::{Assertion, AssertionContext, ClientAssertion};

/// The time in which an assertion can be used, in seconds: enough for a slow endpoint and clocks
/// that differ, and short for whoever steals one.
const LIFETIME: u64 = 60;

/// The length that a secret must have at least, in bytes (RFC 7518 §3.2).
const SHORTEST_SECRET: usize = 32;

/// The length of the random id in bytes (RFC 7519 §4.1.7).
const ID_BYTES: usize = 16;

/// The backend that signs.
pub(super) static PROVIDER: &CryptoProvider = &DEFAULT_PROVIDER;

/// The claims of a client's assertion (RFC 7523 §3). There is no `nbf`: it would only make clocks
/// that differ an error.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    /// One string, never a list: an assertion for two servers could be replayed at the other one.
    aud: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
}

/// Authenticates the client by a JWT with a MAC of its secret (`client_secret_jwt`).
pub(crate) struct SecretJwt(EncodingKey);

impl SecretJwt {
    pub(crate) fn new(secret: &str) -> Result<Self, InvalidSetting> {
        if secret.len() < SHORTEST_SECRET {
            return Err(InvalidSetting::new(
                "client_secret",
                format!(
                    "must have at least {SHORTEST_SECRET} bytes with `SecretJwt` (RFC 7518 §3.2)"
                ),
            ));
        }
        Ok(Self(EncodingKey::from_secret(secret.as_bytes())))
    }
}

#[async_trait]
impl ClientAssertion for SecretJwt {
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
        assertion(&self.0, Header::new(Algorithm::HS256), context)
    }

    fn needs_audience(&self) -> bool {
        true
    }
}

/// Returns a new assertion of the client, which expires after [`LIFETIME`].
pub(super) fn assertion(
    key: &EncodingKey,
    header: Header,
    context: &AssertionContext,
) -> Result<Assertion, TokenError> {
    let Some(audience) = context.audience() else {
        let error = InvalidSetting::new("audience", "must be set to sign an assertion");
        return Err(error.into());
    };
    let now = clock::wall_now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let claims = Claims {
        iss: context.client_id(),
        sub: context.client_id(),
        aud: audience,
        jti: random_id().map_err(TokenError::transient)?,
        iat: now,
        exp: now + LIFETIME,
    };
    let jwt = encode(PROVIDER, key, &header, &claims).map_err(TokenError::permanent)?;
    Ok(Assertion(jwt))
}

/// Returns the JWS in its compact form (RFC 7515 §7.1).
fn encode(
    provider: &CryptoProvider,
    key: &EncodingKey,
    header: &Header,
    claims: &Claims<'_>,
) -> Result<Zeroizing<String>, BoxError> {
    let message = format!("{}.{}", encoded(header)?, encoded(claims)?);
    let signature = sign(provider, key, header.alg, message.as_bytes())?;
    // Room for all of it, so that no reallocation leaves a copy of the secret behind.
    let capacity = message.len() + 1 + 4 * signature.len().div_ceil(3);
    let mut jwt = Zeroizing::new(String::with_capacity(capacity));
    jwt.push_str(&message);
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(&*signature, &mut jwt);
    Ok(jwt)
}

/// Returns the signature of a message.
pub(super) fn sign(
    provider: &CryptoProvider,
    key: &EncodingKey,
    algorithm: Algorithm,
    message: &[u8],
) -> Result<Zeroizing<Vec<u8>>, BoxError> {
    let signer = (provider.signer_factory)(&algorithm, key)?;
    Ok(Zeroizing::new(signer.try_sign(message)?))
}

/// Returns a part of a JWS: JSON in base64url.
fn encoded(part: &impl Serialize) -> Result<String, BoxError> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(part)?))
}

fn random_id() -> Result<String, getrandom::Error> {
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id)?;
    Ok(URL_SAFE_NO_PAD.encode(id))
}
