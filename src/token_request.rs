//! Which token is meant.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Says which token is meant, and is the cache's key.
///
/// The default is the source's own configuration. [`scope`](TokenRequest::scope) overrides the scope
/// that the source was built with. Two requests are equal if they mean the same token: the order of
/// scopes and doubled blanks make no difference. Clones are cheap.
///
/// ```
/// use bearer_auth::TokenRequest;
///
/// assert_eq!(TokenRequest::scope("read  write"), TokenRequest::scope("write read"));
/// assert_eq!(TokenRequest::scope("b  a").scopes(), Some("b a"));
/// assert_eq!(TokenRequest::default().scopes(), None);
/// ```
#[derive(Clone, Default)]
pub struct TokenRequest(Option<Arc<Named>>);

struct Named {
    /// As it is sent: the caller's order, single blanks.
    scope: Box<str>,
    /// As it is compared: sorted, each scope once.
    key: Box<str>,
}

impl TokenRequest {
    /// A token with this scope (RFC 6749 §3.3: a list of names, separated by blanks) in place of the
    /// source's own. An empty scope means that none is sent.
    pub fn scope(scope: impl AsRef<str>) -> Self {
        let mut names: Vec<&str> = scope.as_ref().split_ascii_whitespace().collect();
        let scope = names.join(" ").into_boxed_str();
        names.sort_unstable();
        names.dedup();
        let key = names.join(" ").into_boxed_str();
        Self(Some(Arc::new(Named { scope, key })))
    }

    /// The scope that overrides the source's own, in the caller's order, if there is one.
    pub fn scopes(&self) -> Option<&str> {
        self.0.as_deref().map(|named| &*named.scope)
    }

    /// Whether this is the source's own configuration.
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }

    fn key(&self) -> Option<&str> {
        self.0.as_deref().map(|named| &*named.key)
    }
}

impl PartialEq for TokenRequest {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for TokenRequest {}

impl Hash for TokenRequest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("scope", &self.scopes())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn order_blanks_and_repeats_make_no_second_key() {
        let set: HashSet<_> = ["a b", "b a", " a   b ", "a b a"]
            .map(TokenRequest::scope)
            .into();
        assert_eq!(set.len(), 1);
        assert_ne!(TokenRequest::scope("a b"), TokenRequest::scope("ab"));
    }

    #[test]
    fn no_scope_is_not_the_sources_scope() {
        assert_ne!(TokenRequest::scope(""), TokenRequest::default());
        assert_eq!(TokenRequest::scope("  ").scopes(), Some(""));
    }
}
