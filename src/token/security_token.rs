//! Security tokens that are exchanged for an access token: subject tokens and assertions.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::token::jwt::JwtTimes;

/// A token that a grant exchanges for an access token: a subject token of `TokenExchange`
/// (RFC 8693 §2.1) or an assertion of `JwtBearer` (RFC 7523 §2.1).
///
/// `Debug` shows no secret, and the value is zeroed when it is dropped.
#[derive(Clone)]
pub struct SecurityToken {
    value: Zeroizing<String>,
    token_type: Cow<'static, str>,
    expires_at: Option<SystemTime>,
}

impl SecurityToken {
    /// Creates a token of this type, an identifier of RFC 8693 §3 such as
    /// `urn:ietf:params:oauth:token-type:saml2`.
    pub fn new(value: impl Into<Secret>, token_type: impl Into<Cow<'static, str>>) -> Self {
        Self {
            value: value.into().into_inner(),
            token_type: token_type.into(),
            expires_at: None,
        }
    }

    /// Creates an OAuth 2.0 access token (`urn:ietf:params:oauth:token-type:access_token`).
    pub fn access_token(value: impl Into<Secret>) -> Self {
        Self::new(value, "urn:ietf:params:oauth:token-type:access_token")
    }

    /// Creates an OpenID Connect ID token (`urn:ietf:params:oauth:token-type:id_token`).
    pub fn id_token(value: impl Into<Secret>) -> Self {
        Self::new(value, "urn:ietf:params:oauth:token-type:id_token")
    }

    /// Creates a JSON Web Token (`urn:ietf:params:oauth:token-type:jwt`).
    pub fn jwt(value: impl Into<Secret>) -> Self {
        Self::new(value, "urn:ietf:params:oauth:token-type:jwt")
    }

    /// Sets the time at which the token expires, by the wall clock.
    ///
    /// Default: the `exp` claim if the token is a JWT, else unknown.
    #[must_use]
    pub fn with_expires_at(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Returns the time at which the token expires, if it is known.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
            .or_else(|| JwtTimes::read(&self.value).map(|times| times.expires_at))
    }

    pub(crate) fn into_parts(self) -> (Zeroizing<String>, Cow<'static, str>) {
        (self.value, self.token_type)
    }
}

impl fmt::Debug for SecurityToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityToken")
            .field("token_type", &self.token_type)
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}
