//! A source that reads an environment variable.

use std::env::{self, VarError};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{InvalidSetting, TokenError};
use crate::secret::Secret;
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// A source that returns the token in an environment variable, for every [`TokenRequest`].
///
/// The variable is read at each fetch, and white space around the token is removed. The token is
/// used until an API rejects it, unless [`with_lifetime`](Self::with_lifetime) is set.
///
/// A variable that is not set or not Unicode is a permanent error
/// ([`TokenErrorKind::Source`](crate::TokenErrorKind::Source)).
///
/// ```
/// use bearer_auth::{BearerAuthLayer, EnvTokenSource};
///
/// let layer = BearerAuthLayer::new(EnvTokenSource::new("API_TOKEN"))
///     .allow_origin("https://api.example.com")?;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
#[derive(Clone, Debug)]
pub struct EnvTokenSource {
    variable: String,
    lifetime: Option<Duration>,
}

impl EnvTokenSource {
    /// Creates a source that reads this variable.
    pub fn new(variable: impl Into<String>) -> Self {
        Self {
            variable: variable.into(),
            lifetime: None,
        }
    }

    /// Sets the lifetime of the token, after which the variable is read again.
    ///
    /// Default: the token never expires.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    fn read(&self) -> Result<Secret, TokenError> {
        let variable = &self.variable;
        // std panics for neither, but says that such a variable is not set.
        if variable.is_empty() || variable.contains(['=', '\0']) {
            let requirement = "must be a name without `=` and NUL";
            return Err(InvalidSetting::new("variable", requirement).into());
        }
        match env::var(variable) {
            Ok(value) => Ok(value.into()),
            // The error itself contains the value.
            Err(VarError::NotUnicode(_)) => Err(TokenError::permanent(format!(
                "the environment variable `{variable}` is not Unicode: set it to a token"
            ))),
            Err(VarError::NotPresent) => Err(TokenError::permanent(format!(
                "the environment variable `{variable}` is not set: set it to a token"
            ))),
        }
    }
}

#[async_trait]
impl TokenSource for EnvTokenSource {
    async fn fetch(&self, _request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let value = self.read()?;
        let token = AccessToken::new(value.expose_secret().trim())?;
        Ok(match self.lifetime {
            Some(lifetime) => token.with_lifetime(lifetime),
            None => token.without_expiry(),
        })
    }
}
