//! Client authentication at the token endpoint (RFC 6749 §2.3).

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::byte_serialize;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::error::TokenError;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::jwt::SecretJwt;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::key_file::KeyFile;
use crate::token_endpoint::assertion::{Assertion, AssertionContext, ClientAssertion, JWT_BEARER};
use crate::token_endpoint::form::Field;
use crate::token_endpoint::secret_file::SecretFile;

/// The way in which the client authenticates to the token endpoint (RFC 6749 §2.3.1).
///
/// A token request uses exactly one, and the cache never tries another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// Sends `client_id` and `client_secret` as fields of the form (`client_secret_post`).
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "client_secret_post"))]
    SecretPost,
    /// Sends HTTP Basic with id and secret form-encoded first, as RFC 6749 §2.3.1 requires
    /// (`client_secret_basic`). A space is sent as `%20`, which every server decodes.
    #[cfg_attr(feature = "serde", serde(rename = "client_secret_basic"))]
    SecretBasic,
    /// Sends HTTP Basic with id and secret as they are, for servers that do not decode them. The
    /// id must not contain a colon.
    #[cfg_attr(feature = "serde", serde(rename = "client_secret_basic_raw"))]
    SecretBasicRaw,
    /// Sends `client_id` only (`none`), for public clients and for grants whose own field is enough
    /// to authenticate. The client credentials grant does not allow it (RFC 6749 §4.4).
    #[cfg_attr(feature = "serde", serde(rename = "none"))]
    None,
    /// Sends `client_id` only, and the connection authenticates the client by its certificate
    /// (`tls_client_auth` and `self_signed_tls_client_auth`, RFC 8705 §2).
    ///
    /// The certificate is the transport's: see `reqwest_factory` for one that rotates,
    /// `reqwest_builder` and [`transport`](crate::GrantBuilder::transport).
    #[cfg_attr(feature = "serde", serde(rename = "tls_client_auth"))]
    TlsClientAuth,
    /// Sends a JWT with a MAC by the secret, HS256, instead of the secret itself
    /// (`client_secret_jwt`, OpenID Connect Core 1.0 §9). It needs an
    /// [`audience`](crate::GrantBuilder::audience) and a secret of at least 32 bytes, and is made
    /// as that of `PrivateKeyJwt`, which is the better choice: a server that has only the public
    /// key cannot lose the private one.
    #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
    #[cfg_attr(feature = "serde", serde(rename = "client_secret_jwt"))]
    SecretJwt,
}

/// The client's id and what proves it.
pub(crate) struct Authentication {
    pub(crate) client_id: String,
    pub(crate) proof: Proof,
}

/// The proof of the client's identity.
pub(crate) enum Proof {
    None,
    /// The certificate of the connection.
    Certificate,
    Secret {
        secret: Zeroizing<String>,
        style: ClientAuthentication,
    },
    /// A secret that is read anew for each try.
    SecretFile {
        file: SecretFile,
        style: ClientAuthentication,
        /// For `client_secret_jwt`.
        context: AssertionContext,
    },
    /// An assertion, which is made anew for each try.
    Assertion {
        /// The name of the method, for `Debug`.
        method: &'static str,
        source: Arc<dyn ClientAssertion>,
        context: AssertionContext,
    },
    /// An assertion signed by a key that is read anew for each try.
    #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
    KeyFile {
        file: KeyFile,
        context: AssertionContext,
    },
}

/// The credentials of one token request.
#[derive(Default)]
pub(crate) struct Credentials {
    pub(crate) fields: Vec<Field>,
    pub(crate) authorization: Option<HeaderValue>,
    /// The secret or the key, if it may be another one when it is read again.
    rotating_secret: Option<Zeroizing<String>>,
}

impl Credentials {
    /// Returns true if the secret or the key was rotated after `sent` was read.
    pub(crate) fn is_rotated_since(&self, sent: &Self) -> bool {
        self.rotating_secret != sent.rotating_secret
    }
}

impl Authentication {
    /// Returns the credentials for one try of a token request.
    pub(crate) async fn credentials(&self) -> Result<Credentials, TokenError> {
        match &self.proof {
            Proof::None | Proof::Certificate => Ok(self.id_only()),
            Proof::Secret { secret, style } => Ok(self.secret(secret, *style)),
            Proof::SecretFile {
                file,
                style,
                context,
            } => self.secret_of_file(file, *style, context).await,
            Proof::Assertion {
                source, context, ..
            } => Ok(self.assertion(&source.assertion(context).await?)),
            #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
            Proof::KeyFile { file, context } => {
                let (key, content) = file.read().await?;
                let credentials = self.assertion(&key.assertion(context).await?);
                Ok(Credentials {
                    rotating_secret: Some(content),
                    ..credentials
                })
            }
        }
    }

    /// Returns true if the connection authenticates the client (RFC 8705).
    pub(crate) fn uses_certificate(&self) -> bool {
        matches!(self.proof, Proof::Certificate)
    }

    /// Returns true if the secret or the key is in a file.
    pub(crate) fn has_secret_file(&self) -> bool {
        match self.proof {
            Proof::SecretFile { .. } => true,
            #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
            Proof::KeyFile { .. } => true,
            _ => false,
        }
    }

    /// Returns the name of the way in which the client authenticates, for `Debug`.
    pub(crate) fn style(&self) -> &dyn fmt::Debug {
        match &self.proof {
            Proof::None => &ClientAuthentication::None,
            Proof::Certificate => &ClientAuthentication::TlsClientAuth,
            Proof::Secret { style, .. } | Proof::SecretFile { style, .. } => style,
            Proof::Assertion { method, .. } => method,
            #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
            Proof::KeyFile { .. } => &"private_key_file",
        }
    }

    fn id_only(&self) -> Credentials {
        let id = (!self.client_id.is_empty()).then(|| self.client_id.clone());
        Credentials {
            fields: id
                .map(|id| ("client_id", Zeroizing::new(id)))
                .into_iter()
                .collect(),
            ..Credentials::default()
        }
    }

    /// Returns the fields of RFC 7521 §4.2.
    fn assertion(&self, assertion: &Assertion) -> Credentials {
        let field = |value: &str| Zeroizing::new(value.to_owned());
        Credentials {
            fields: vec![
                ("client_id", field(&self.client_id)),
                ("client_assertion_type", field(JWT_BEARER)),
                ("client_assertion", field(assertion.expose_secret())),
            ],
            ..Credentials::default()
        }
    }

    async fn secret_of_file(
        &self,
        file: &SecretFile,
        style: ClientAuthentication,
        context: &AssertionContext,
    ) -> Result<Credentials, TokenError> {
        #[cfg(not(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto")))]
        let _ = context;
        let secret = file.read().await?;
        let credentials = match style {
            #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
            ClientAuthentication::SecretJwt => {
                self.assertion(&SecretJwt::new(&secret)?.assertion(context).await?)
            }
            _ => self.secret(&secret, style),
        };
        Ok(Credentials {
            rotating_secret: Some(secret),
            ..credentials
        })
    }

    fn secret(&self, secret: &str, style: ClientAuthentication) -> Credentials {
        let id = &*self.client_id;
        // Room for both encoded, so that no reallocation leaves a copy of the secret behind.
        let capacity = 3 * (id.len() + secret.len()) + 1;
        let mut pair = Zeroizing::new(String::with_capacity(capacity));
        match style {
            ClientAuthentication::SecretPost => {
                return Credentials {
                    fields: vec![
                        ("client_id", Zeroizing::new(id.to_owned())),
                        ("client_secret", Zeroizing::new(secret.to_owned())),
                    ],
                    ..Credentials::default()
                };
            }
            ClientAuthentication::SecretBasic => {
                push_encoded(&mut pair, id);
                pair.push(':');
                push_encoded(&mut pair, secret);
            }
            _ => {
                pair.push_str(id);
                pair.push(':');
                pair.push_str(secret);
            }
        }
        Credentials {
            authorization: basic(&pair),
            ..Credentials::default()
        }
    }
}

/// Returns the header value of HTTP Basic (RFC 7617 §2).
fn basic(pair: &str) -> Option<HeaderValue> {
    let mut line = Zeroizing::new(String::with_capacity(6 + 4 * (pair.len() / 3 + 1)));
    line.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut line);
    let owned = Zeroizing::new(line.as_bytes().to_vec());
    // Base64 is always a valid header value.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(owned)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Appends `text` form-encoded, with spaces as `%20`.
fn push_encoded(to: &mut String, text: &str) {
    for piece in byte_serialize(text.as_bytes()) {
        // A plus sign itself is encoded as `%2B`, so this is a space.
        to.push_str(if piece == "+" { "%20" } else { piece });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL_SECRET: &str = "p@ss:w%rd&=+ /";

    async fn credentials(style: ClientAuthentication) -> Credentials {
        let authentication = Authentication {
            client_id: "my client".to_owned(),
            proof: Proof::Secret {
                secret: Zeroizing::new(SPECIAL_SECRET.to_owned()),
                style,
            },
        };
        authentication.credentials().await.unwrap()
    }

    fn basic(credentials: &Credentials) -> String {
        let value = credentials.authorization.as_ref().unwrap();
        assert!(value.is_sensitive());
        assert!(credentials.fields.is_empty());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn secret_post_sends_the_secret_only_in_the_form() {
        let credentials = credentials(ClientAuthentication::SecretPost).await;
        assert!(credentials.authorization.is_none());
        let fields = credentials.fields.iter();
        let fields: Vec<_> = fields.map(|(name, value)| (*name, &***value)).collect();
        let expected = [
            ("client_id", "my client"),
            ("client_secret", SPECIAL_SECRET),
        ];
        assert_eq!(fields, expected);
    }

    #[tokio::test]
    async fn secret_basic_sends_the_secret_only_in_the_header() {
        let encoded = credentials(ClientAuthentication::SecretBasic).await;
        assert_eq!(
            basic(&encoded),
            "my%20client:p%40ss%3Aw%25rd%26%3D%2B%20%2F"
        );
        let raw = credentials(ClientAuthentication::SecretBasicRaw).await;
        assert_eq!(basic(&raw), format!("my client:{SPECIAL_SECRET}"));
    }
}
