//! Secrets that a user passes to this crate.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

/// A secret: zeroed in memory when it is dropped, and hidden in `Debug`.
///
/// Setters take `impl Into<Secret>`: a `&str`, a `String`, a `Zeroizing<String>` or, with the
/// feature `secrecy`, a `secrecy::SecretString`.
///
/// ```
/// use bearer_auth::Secret;
///
/// let secret = Secret::from("s3cret");
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// ```
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the secret itself. Keep it out of logs and errors.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }

    #[cfg(feature = "client-credentials")]
    pub(crate) fn into_inner(self) -> Zeroizing<String> {
        self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(Zeroizing::new(value))
    }
}

impl From<&String> for Secret {
    fn from(value: &String) -> Self {
        value.clone().into()
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        value.to_owned().into()
    }
}

impl From<Box<str>> for Secret {
    fn from(value: Box<str>) -> Self {
        value.into_string().into()
    }
}

impl From<Cow<'_, str>> for Secret {
    fn from(value: Cow<'_, str>) -> Self {
        value.into_owned().into()
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(value: Zeroizing<String>) -> Self {
        Self(value)
    }
}

#[cfg(feature = "secrecy")]
impl From<secrecy::SecretString> for Secret {
    fn from(value: secrecy::SecretString) -> Self {
        (&value).into()
    }
}

#[cfg(feature = "secrecy")]
impl From<&secrecy::SecretString> for Secret {
    fn from(value: &secrecy::SecretString) -> Self {
        use secrecy::ExposeSecret;

        value.expose_secret().into()
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
