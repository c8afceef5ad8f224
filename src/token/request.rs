//! Which token is meant.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::error::InvalidSetting;

/// Says which token is meant, and is the cache's key.
///
/// The default is the source's own configuration. [`scope`](TokenRequest::scope) overrides the scope
/// that the source was built with; the `with_…` methods add parameters of the token request. Two
/// requests are equal if they mean the same token: the order of scopes and parameters and doubled
/// blanks make no difference. Clones are cheap.
///
/// ```
/// use bearer_auth::TokenRequest;
///
/// assert_eq!(TokenRequest::scope("read  write"), TokenRequest::scope("write read"));
/// assert_eq!(TokenRequest::scope("b  a").scopes(), Some("b a"));
/// assert_eq!(TokenRequest::default().scopes(), None);
///
/// let orders = TokenRequest::default().with_resource("https://orders.example.com/");
/// assert_ne!(orders, TokenRequest::default());
/// ```
#[derive(Clone, Default)]
pub struct TokenRequest(Option<Key>);

/// What differs from the source's own configuration.
#[derive(Clone)]
struct Key {
    /// Beside the pointer, so that a map finds the place of a key without a look at what it names.
    hash: u64,
    named: Arc<Named>,
}

/// Name and value.
type Param = (Box<str>, Box<str>);

/// Small: where two requests have to be compared, both come from memory.
#[derive(Clone, Default)]
struct Named {
    /// As it is sent: the caller's order, single blanks.
    scope: Option<Box<str>>,
    /// Few requests have it.
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Default)]
struct Rest {
    /// The scope as it is compared, sorted, each name once: if that is not how it is sent.
    sorted_scope: Option<Box<str>>,
    /// Sorted, each pair once.
    params: Vec<Param>,
}

impl TokenRequest {
    /// A token with this scope (RFC 6749 §3.3) in place of the source's own.
    ///
    /// A scope is a list of names, separated by blanks. An empty one means that none is sent. One with
    /// characters that RFC 6749 has no room for makes `ClientCredentials` fail with an
    /// [`InvalidSetting`](crate::TokenErrorKind::InvalidSetting), before anything is sent.
    ///
    /// Each space starts a new name. If a part of `scope` is foreign input, such as a tenant id from
    /// a URL, `1 tenant/2` in its place adds a scope: use [`single_scope`](Self::single_scope).
    pub fn scope(scope: impl AsRef<str>) -> Self {
        Self::named(Named::scope(scope.as_ref()))
    }

    /// Adds a `resource` that the token is to be good for (RFC 8707 §2).
    ///
    /// It is an absolute URI without fragment. Again for more, where the server takes more than one.
    #[must_use]
    pub fn with_resource(self, resource: impl Into<String>) -> Self {
        self.with_param("resource", resource)
    }

    /// Adds an `audience`, as some servers name what RFC 8707 calls a resource.
    #[must_use]
    pub fn with_audience(self, audience: impl Into<String>) -> Self {
        self.with_param("audience", audience)
    }

    /// Adds a parameter of the token request.
    ///
    /// It takes the place of those that the source was built with under the same name. With the name of a
    /// standard one, or none, `ClientCredentials` fails with an
    /// [`InvalidSetting`](crate::TokenErrorKind::InvalidSetting), before anything is sent.
    #[must_use]
    pub fn with_param(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let named = self.0.map(|key| Arc::unwrap_or_clone(key.named));
        let mut named = named.unwrap_or_default();
        let params = &mut named.rest.get_or_insert_default().params;
        let param = (name.into().into_boxed_str(), value.into().into_boxed_str());
        if let Err(place) = params.binary_search(&param) {
            params.insert(place, param);
        }
        Self::named(named)
    }

    /// The scope that overrides the source's own, in the caller's order, if there is one.
    pub fn scopes(&self) -> Option<&str> {
        self.0.as_ref()?.named.scope.as_deref()
    }

    /// The parameters beside the scope, by name and value, sorted.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        let params = self.0.as_ref().map_or(&[][..], |key| key.named.params());
        params.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The same for equal requests, in this process.
    #[inline]
    pub(crate) fn hash_of_key(&self) -> u64 {
        self.0.as_ref().map_or(0, |key| key.hash)
    }

    /// Whether this is the source's own configuration.
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }

    fn named(named: Named) -> Self {
        // The process's own, so that nobody can make up scopes which all have the same.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(Some(Key {
            hash: HASHER.hash_one(named.compared()),
            named: Arc::new(named),
        }))
    }

    /// Creates a request for a token with this scope, which has to be a single name.
    ///
    /// Use it in place of [`scope`](Self::scope) for a name that contains foreign input, such as a
    /// tenant id from a URL: a space in it cannot add a second scope.
    ///
    /// The name is not checked further. In particular it may contain `/` and `.`.
    ///
    /// ```
    /// use bearer_auth::TokenRequest;
    ///
    /// let request = |id: &str| TokenRequest::single_scope(format!("tenant/{id}"));
    /// assert_eq!(request("1")?, TokenRequest::scope("tenant/1"));
    /// assert!(request("1 tenant/2").is_err());
    /// # Ok::<(), bearer_auth::InvalidSetting>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if `name` is not a `scope-token` (RFC 6749 §3.3): if it is empty,
    /// or contains anything other than visible ASCII without `"` and `\`.
    pub fn single_scope(name: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        let name = name.as_ref();
        let is_allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        if name.is_empty() || !name.bytes().all(is_allowed) {
            return Err(InvalidSetting::new(
                "scope",
                "must be a single name of visible ASCII without spaces, `\"` and `\\` \
                 (RFC 6749 §3.3)",
            ));
        }
        Ok(Self::scope(name))
    }
}

impl Named {
    fn scope(scope: &str) -> Self {
        let names = scope.split_ascii_whitespace();
        let mut sent = String::with_capacity(scope.len());
        let (mut last, mut is_sorted) = ("", true);
        for name in names.clone() {
            if !sent.is_empty() {
                sent.push(' ');
            }
            sent.push_str(name);
            is_sorted &= last < name;
            last = name;
        }
        let rest = (!is_sorted).then(|| {
            let mut names: Vec<_> = names.collect();
            names.sort_unstable();
            names.dedup();
            Box::new(Rest {
                sorted_scope: Some(names.join(" ").into_boxed_str()),
                params: Vec::new(),
            })
        });
        let scope = Some(sent.into_boxed_str());
        Self { scope, rest }
    }

    fn params(&self) -> &[Param] {
        self.rest.as_deref().map_or(&[], |rest| &rest.params)
    }

    fn compared(&self) -> (Option<&str>, &[Param]) {
        let sorted = self
            .rest
            .as_deref()
            .and_then(|rest| rest.sorted_scope.as_deref());
        (sorted.or(self.scope.as_deref()), self.params())
    }
}

impl PartialEq for TokenRequest {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(key), Some(other)) => {
                key.hash == other.hash
                    && (Arc::ptr_eq(&key.named, &other.named)
                        || key.named.compared() == other.named.compared())
            }
            (None, None) => true,
            _ => false,
        }
    }
}

impl Eq for TokenRequest {}

impl Hash for TokenRequest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash_of_key());
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
    fn parameters_are_part_of_the_key_in_any_order() {
        let one = TokenRequest::scope("a")
            .with_resource("r")
            .with_audience("b")
            .with_resource("r");
        let other = TokenRequest::scope("a")
            .with_audience("b")
            .with_resource("r");
        assert_eq!(one, other);
        let params: Vec<_> = one.params().collect();
        assert_eq!(params, [("audience", "b"), ("resource", "r")]);
        for different in [
            TokenRequest::scope("a"),
            TokenRequest::scope("a").with_resource("r"),
            TokenRequest::scope("b")
                .with_resource("r")
                .with_audience("b"),
            TokenRequest::default()
                .with_resource("r")
                .with_audience("b"),
        ] {
            assert_ne!(one, different);
        }
        assert!(!TokenRequest::default().with_param("x", "y").is_default());
    }

    #[test]
    fn debug_names_the_scope() {
        let shown = format!("{:?}", TokenRequest::scope("tenant/42"));
        assert!(shown.contains("tenant/42"), "{shown}");
    }

    #[test]
    fn no_scope_is_not_the_sources_scope() {
        assert_ne!(TokenRequest::scope(""), TokenRequest::default());
        assert_eq!(TokenRequest::scope("  ").scopes(), Some(""));
    }
    #[test]
    fn single_scope_accepts_exactly_the_scope_tokens() {
        for byte in 0..=u8::MAX {
            let name = format!("tenant/{}", char::from(byte));
            let is_accepted = match TokenRequest::single_scope(&name) {
                Ok(request) => {
                    assert_eq!(request, TokenRequest::scope(&name));
                    assert_eq!(request.scopes(), Some(&*name));
                    true
                }
                Err(error) => {
                    assert_eq!(error.setting(), "scope");
                    false
                }
            };
            let is_scope_token = (0x21..=0x7E).contains(&byte) && !b"\"\\".contains(&byte);
            assert_eq!(is_accepted, is_scope_token, "{byte:#04x}");
        }
        for name in [
            "",
            " ",
            "1 tenant/2",
            " 1",
            "1 ",
            "1\ttenant/2",
            "1\u{a0}2",
            "1\u{2003}2",
        ] {
            assert!(TokenRequest::single_scope(name).is_err(), "{name:?}");
        }
    }
}
