//! One token, for ever.

use async_trait::async_trait;

use crate::error::{InvalidToken, TokenError};
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// A source of one token that never expires, whatever the [`TokenRequest`] says.
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
    /// Makes a source of this token.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] if no header can carry the value, see [`AccessToken::new`].
    pub fn new(token: impl Into<String>) -> Result<Self, InvalidToken> {
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
