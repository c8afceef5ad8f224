//! A source of one fixed token.

use async_trait::async_trait;

use crate::error::{InvalidToken, TokenError};
use crate::secret::Secret;
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// A source that returns one fixed token, which never expires, for every [`TokenRequest`].
///
/// ```
/// use bearer_auth::{BearerAuthLayer, StaticTokenSource};
///
/// let layer = BearerAuthLayer::new(StaticTokenSource::new("api-key")?)
///     .allow_origin("https://api.example.com")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StaticTokenSource {
    token: AccessToken,
}

impl StaticTokenSource {
    /// Creates a source of this token.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidToken`] if no header can carry the value, see [`AccessToken::new`].
    pub fn new(token: impl Into<Secret>) -> Result<Self, InvalidToken> {
        Ok(Self {
            token: AccessToken::new(token)?.without_expiry(),
        })
    }
}

#[async_trait]
impl TokenSource for StaticTokenSource {
    async fn fetch(&self, _request: &TokenRequest) -> Result<AccessToken, TokenError> {
        Ok(self.token.clone())
    }
}
