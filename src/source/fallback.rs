//! A source that asks others in turn.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{InvalidSetting, TokenError};
use crate::source::TokenSource;
use crate::source::context::FetchContext;
use crate::token::AccessToken;
use crate::token::request::TokenRequest;

/// A source that asks other sources in turn, and returns the first token that one has.
///
/// Each fetch begins with the first source. All share the time limit of the fetch: a source that
/// hangs leaves no time for those after it.
///
/// If none has a token, the error is the first one that is transient, so that the cache tries
/// again; else that of the first source.
///
/// ```
/// use bearer_auth::{EnvTokenSource, FallbackTokenSource, StaticTokenSource};
///
/// let source = FallbackTokenSource::new([EnvTokenSource::new("API_TOKEN")])
///     .or(EnvTokenSource::new("LEGACY_API_TOKEN"))
///     .or(StaticTokenSource::new("development")?);
/// # Ok::<(), bearer_auth::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct FallbackTokenSource {
    sources: Vec<Arc<dyn TokenSource>>,
}

impl FallbackTokenSource {
    /// Creates a source that asks these sources, in this order.
    ///
    /// Sources of different types can be added with [`or`](Self::or), or be a
    /// `Box<dyn TokenSource>` each.
    pub fn new<S: TokenSource>(sources: impl IntoIterator<Item = S>) -> Self {
        let sources = sources.into_iter();
        Self {
            sources: sources.map(|source| Arc::new(source) as _).collect(),
        }
    }

    /// Adds a source that is asked after the others.
    #[must_use]
    pub fn or(mut self, source: impl TokenSource) -> Self {
        self.sources.push(Arc::new(source));
        self
    }

    async fn first<'a, F>(
        &'a self,
        fetch: impl Fn(&'a dyn TokenSource) -> F + Send,
    ) -> Result<AccessToken, TokenError>
    where
        F: Future<Output = Result<AccessToken, TokenError>> + Send,
    {
        let mut first: Option<TokenError> = None;
        for source in &self.sources {
            match fetch(&**source).await {
                Ok(token) => return Ok(token),
                Err(error) => match &first {
                    Some(first) if first.is_transient() || !error.is_transient() => {}
                    _ => first = Some(error),
                },
            }
        }
        Err(first.unwrap_or_else(|| {
            InvalidSetting::new("sources", "must contain at least one source").into()
        }))
    }
}

#[async_trait]
impl TokenSource for FallbackTokenSource {
    async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
        self.first(|source| source.fetch(request)).await
    }

    async fn fetch_with(
        &self,
        request: &TokenRequest,
        context: &FetchContext,
    ) -> Result<AccessToken, TokenError> {
        self.first(|source| source.fetch_with(request, context))
            .await
    }
}

impl fmt::Debug for FallbackTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackTokenSource")
            .field("sources", &self.sources.len())
            .finish_non_exhaustive()
    }
}
