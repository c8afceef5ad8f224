//! Stores of refresh tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::error::TokenError;
use crate::secret::Secret;
use crate::token::request::TokenRequest;

/// A refresh token (RFC 6749 §1.5) as a store keeps it.
///
/// A store keeps two things: the value, and the mark that it is being presented to the server.
/// `Debug` shows no secret, and the value is zeroed when it is dropped.
#[derive(Clone)]
pub struct RefreshToken {
    value: Zeroizing<String>,
    is_presented: bool,
}

impl RefreshToken {
    /// Creates a token that was not presented yet.
    pub fn new(value: impl Into<Secret>) -> Self {
        Self::of(value.into().into_inner())
    }

    pub(super) fn of(value: Zeroizing<String>) -> Self {
        Self {
            value,
            is_presented: false,
        }
    }

    /// Sets the mark, for a store that reads a token back.
    ///
    /// Default: not presented.
    #[must_use]
    pub fn with_presented(mut self, is_presented: bool) -> Self {
        self.is_presented = is_presented;
        self
    }

    /// Returns true if the token was presented to the server, or is just being presented, without
    /// a known answer.
    pub fn is_presented(&self) -> bool {
        self.is_presented
    }

    /// Returns the token itself. Keep it out of logs and errors.
    pub fn expose_secret(&self) -> &str {
        &self.value
    }

    pub(super) fn value(&self) -> &Zeroizing<String> {
        &self.value
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken")
            .field("is_presented", &self.is_presented)
            .finish_non_exhaustive()
    }
}

/// Keeps refresh tokens, one per [`TokenRequest`].
///
/// A saved token must survive the end of the process, or the login ends with it: `save` returns
/// when the token is durable. Both methods need time limits of their own. Most stores choose the
/// record by the request's [`subject_key`](TokenRequest::subject_key) alone, since a refresh token
/// belongs to a login and not to a scope; calls for two requests with the same record must then
/// not overlap.
#[async_trait]
pub trait RefreshTokenStore: Send + Sync + 'static {
    /// Loads the refresh token for a request, with its mark. `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returned to the callers that wait for a token. Return [`TokenError::transient`] for what may
    /// end by itself.
    async fn load(&self, request: &TokenRequest) -> Result<Option<RefreshToken>, TokenError>;

    /// Saves the refresh token for a request, with its mark, in place of the one before.
    ///
    /// # Errors
    ///
    /// The same as of [`load`](Self::load). The token may have been stored all the same, as after a
    /// timeout, but must not be stored later, in place of one that was saved since. What the store
    /// should have is kept in memory and saved by the next fetch.
    async fn save(&self, request: &TokenRequest, token: RefreshToken) -> Result<(), TokenError>;
}

/// Keeps refresh tokens in memory, for tests and for servers without rotation.
///
/// With rotation, the login ends with the process. Clones share the tokens.
#[derive(Clone, Default)]
pub struct InMemoryRefreshTokenStore {
    tokens: Arc<Mutex<HashMap<TokenRequest, RefreshToken>>>,
}

impl InMemoryRefreshTokenStore {
    /// Creates a store with the refresh token for the default request.
    pub fn new(value: impl Into<Secret>) -> Self {
        let store = Self::default();
        store.insert(&TokenRequest::default(), value);
        store
    }

    /// Adds the refresh token for a request, or replaces it: after a login, for example.
    pub fn insert(&self, request: &TokenRequest, value: impl Into<Secret>) {
        self.put(request, RefreshToken::new(value));
    }

    fn put(&self, request: &TokenRequest, token: RefreshToken) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(request.clone(), token);
    }
}

#[async_trait]
impl RefreshTokenStore for InMemoryRefreshTokenStore {
    async fn load(&self, request: &TokenRequest) -> Result<Option<RefreshToken>, TokenError> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(tokens.get(request).cloned())
    }

    async fn save(&self, request: &TokenRequest, token: RefreshToken) -> Result<(), TokenError> {
        self.put(request, token);
        Ok(())
    }
}

impl fmt::Debug for InMemoryRefreshTokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryRefreshTokenStore")
            .finish_non_exhaustive()
    }
}
