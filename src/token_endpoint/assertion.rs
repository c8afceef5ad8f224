//! Client authentication by assertions (RFC 7521 §4.2, RFC 7523 §2.2).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::error::{InvalidSetting, TokenError};

pub(crate) mod file;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
mod jwk;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
pub(crate) mod jwt;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
pub(crate) mod key_file;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
pub(crate) mod private_key;

/// The value of `client_assertion_type` for a JWT (RFC 7523 §2.2).
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Makes the assertions by which a client authenticates to its token endpoint (RFC 7523 §2.2).
///
/// Implement it to sign with a key that never leaves a KMS or an HSM, or to obtain assertions from
/// a service such as Vault. Set it with
/// [`client_assertion`](crate::GrantBuilder::client_assertion). The trait is object-safe and also
/// implemented for `Arc<T>` and `Box<T>`.
///
/// For a file that something else rotates, use
/// [`client_assertion_file`](crate::GrantBuilder::client_assertion_file), and for a key in memory
/// or in a file `PrivateKeyJwt` or `PrivateKeyFile` (feature `private-key-jwt`).
///
/// ```
/// use bearer_auth::{Assertion, AssertionContext, ClientAssertion, ClientCredentials, TokenError};
///
/// struct KeyService;
///
/// impl KeyService {
///     async fn sign(&self, client_id: &str, audience: &str) -> std::io::Result<String> {
///         Ok(format!("a.jwt.for.{client_id}.and.{audience}"))
///     }
/// }
///
/// #[async_trait::async_trait]
/// impl ClientAssertion for KeyService {
///     async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
///         let audience = context.audience().unwrap_or_default();
///         let jwt = self.sign(context.client_id(), audience).await;
///         Ok(Assertion::new(jwt.map_err(TokenError::transient)?)?)
///     }
///
///     fn needs_audience(&self) -> bool {
///         true
///     }
/// }
///
/// let source = ClientCredentials::builder("https://identity.example.com/connect/token")
///     .client_id("my-client")
///     .client_assertion(KeyService)
///     .audience("https://identity.example.com")
///     .build();
/// ```
#[async_trait]
pub trait ClientAssertion: Send + Sync + 'static {
    /// Returns an assertion that no token request has used yet.
    ///
    /// Called for each try of a token request. The time that it takes counts towards
    /// [`try_timeout`](crate::GrantBuilder::try_timeout).
    ///
    /// # Errors
    ///
    /// Return [`TokenError::transient`] for a failure that may end by itself, and
    /// [`TokenError::permanent`] for any other. The error must not contain the assertion.
    ///
    /// # Cancel safety
    ///
    /// This future is dropped when `try_timeout` or the limit of the fetch has passed, and when
    /// nothing waits for the fetch any more because its cache was dropped.
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError>;

    /// Returns true if no assertion can be made without an audience.
    ///
    /// `build` then returns an error if [`audience`](crate::GrantBuilder::audience) is not set.
    ///
    /// Default: false.
    fn needs_audience(&self) -> bool {
        false
    }
}

#[async_trait]
impl<T: ClientAssertion + ?Sized> ClientAssertion for Arc<T> {
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
        (**self).assertion(context).await
    }

    fn needs_audience(&self) -> bool {
        (**self).needs_audience()
    }
}

#[async_trait]
impl<T: ClientAssertion + ?Sized> ClientAssertion for Box<T> {
    async fn assertion(&self, context: &AssertionContext) -> Result<Assertion, TokenError> {
        (**self).assertion(context).await
    }

    fn needs_audience(&self) -> bool {
        (**self).needs_audience()
    }
}

/// The client and the audience that an assertion is made for (RFC 7523 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionContext {
    client_id: String,
    audience: Option<String>,
}

impl AssertionContext {
    /// Creates a context without an audience, for tests of a [`ClientAssertion`].
    pub fn new(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            audience: None,
        }
    }

    /// Sets the audience.
    ///
    /// Default: none.
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Returns the client's id, which is the issuer and the subject of the assertion.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Returns the audience of the assertion, if one is set.
    pub fn audience(&self) -> Option<&str> {
        self.audience.as_deref()
    }
}

/// An assertion: a signed statement by which a client authenticates (RFC 7521 §4.2).
///
/// It is a secret, since whoever has it can use it until it expires. Its memory is wiped when it is
/// dropped, and `Debug` does not show it.
#[derive(Clone)]
pub struct Assertion(Zeroizing<String>);

impl Assertion {
    /// Creates an assertion from its encoded form, such as a JWT.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if the value is empty or has other bytes than 0x21 to 0x7E, such
    /// as a line break. `?` turns it into a permanent [`TokenError`].
    pub fn new(value: impl Into<String>) -> Result<Self, InvalidSetting> {
        let value = Zeroizing::new(value.into());
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(value))
        } else {
            Err(InvalidSetting::new(
                "client_assertion",
                "must be one or more of the bytes 0x21 to 0x7E (was a line break or space read \
                 with it?)",
            ))
        }
    }

    /// Returns the assertion in its encoded form.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_is_visible_ascii() {
        let assertion = Assertion::new("eyJ.e30.c2ln").unwrap();
        assert_eq!(assertion.expose_secret(), "eyJ.e30.c2ln");
        assert!(!format!("{assertion:?}").contains("eyJ"));
        for value in ["", "a b", "a\n", "é", "\u{7f}"] {
            let error = Assertion::new(value).unwrap_err();
            assert_eq!(error.setting(), "client_assertion", "{value:?}");
            assert!(error.to_string().contains("line break"), "{error}");
        }
    }
}
