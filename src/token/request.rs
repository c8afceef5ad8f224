//! The identity of a token: its scope and its other parameters.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::error::invalid::InvalidSetting;

/// Identifies a token by its scope and parameters. It is the cache's key.
///
/// The default stands for the source's own configuration. [`scope`](TokenRequest::scope) overrides
/// the scope that the source was built with; the `with_…` methods add parameters of the token
/// request. Two requests are equal if they identify the same token: the order of scope names and
/// parameters and the number of spaces do not matter. Clones are cheap.
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

/// The differences from the source's own configuration, and their hash.
#[derive(Clone)]
struct Key {
    /// Stored next to the pointer, so that a map finds the bucket of a key without following it.
    hash: u64,
    overrides: Arc<Overrides>,
}

/// A parameter's name and value.
type Param = (Box<str>, Box<str>);

/// The differences themselves. Small, since comparing two requests loads both from memory.
#[derive(Clone, Default)]
struct Overrides {
    /// The scope as it is sent: in the caller's order, with single spaces.
    scope: Option<Box<str>>,
    /// Boxed, since few requests have it.
    rest: Option<Box<Rest>>,
}

/// The differences that few requests have.
#[derive(Clone, Default)]
struct Rest {
    /// The scope as it is compared: sorted, each name once. `None` if it is sent like that.
    sorted_scope: Option<Box<str>>,
    /// Sorted, each parameter once.
    params: Vec<Param>,
    subject: Option<Box<str>>,
}

impl TokenRequest {
    /// Creates a request for a token with this scope (RFC 6749 §3.3) instead of the source's own.
    ///
    /// A scope is a list of names, separated by spaces. If it is empty, no scope is sent. If it has
    /// characters that RFC 6749 does not allow, `ClientCredentials` fails with an
    /// [`InvalidSetting`](crate::TokenErrorKind::InvalidSetting) error before it sends anything.
    ///
    /// Each space starts a new name. If a part of `scope` is untrusted input, such as a tenant id
    /// from a URL, `1 tenant/2` in its place adds a scope: use
    /// [`single_scope`](Self::single_scope).
    pub fn scope(scope: impl AsRef<str>) -> Self {
        Self::with_overrides(Overrides::scope(scope.as_ref()))
    }

    /// Adds a `resource` parameter: a resource that the token is for (RFC 8707 §2).
    ///
    /// It is an absolute URI without a fragment. Call this again for each further resource, if the
    /// server supports several.
    ///
    /// Default: none.
    #[must_use]
    pub fn with_resource(self, resource: impl Into<String>) -> Self {
        self.with_param("resource", resource)
    }

    /// Adds an `audience` parameter, which some servers use for what RFC 8707 calls a resource.
    ///
    /// Default: none.
    #[must_use]
    pub fn with_audience(self, audience: impl Into<String>) -> Self {
        self.with_param("audience", audience)
    }

    /// Adds a parameter of the token request.
    ///
    /// It replaces the source's own parameters of the same name. If the name is empty or that of a
    /// standard parameter, `ClientCredentials` fails with an
    /// [`InvalidSetting`](crate::TokenErrorKind::InvalidSetting) error before it sends anything.
    ///
    /// Default: none.
    #[must_use]
    pub fn with_param(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let param = (name.into().into_boxed_str(), value.into().into_boxed_str());
        self.changed(|rest| {
            if let Err(place) = rest.params.binary_search(&param) {
                rest.params.insert(place, param);
            }
        })
    }

    /// Creates a request for a token on behalf of a subject, such as a user (RFC 8693 §1.1).
    ///
    /// **The key decides whose token is served.** Derive it from what you have verified, see
    /// [`with_subject`](Self::with_subject).
    pub fn subject(key: impl Into<String>) -> Self {
        Self::default().with_subject(key)
    }

    /// Chooses the subject of the token, for the grants that have one: `TokenExchange` and
    /// `JwtBearer`.
    ///
    /// **The key decides whose token is served.** A token in the cache is returned to every caller
    /// that names its key, without looking at a subject token again. Derive the key from what you
    /// have verified: issuer, subject and session of the user, never a name from the request
    /// itself. The key of another user serves that user's token.
    ///
    /// The key is neither sent nor shown by `Debug`. A source whose grant has no subject fails with
    /// an [`InvalidSetting`](crate::TokenErrorKind::InvalidSetting) error.
    ///
    /// Default: none.
    #[must_use]
    pub fn with_subject(self, key: impl Into<String>) -> Self {
        self.changed(|rest| rest.subject = Some(key.into().into_boxed_str()))
    }

    /// Returns the key of the subject, if the request names one.
    pub fn subject_key(&self) -> Option<&str> {
        self.0.as_ref()?.overrides.subject()
    }

    /// Returns the scope that overrides the source's own, if there is one, in the caller's order.
    pub fn scopes(&self) -> Option<&str> {
        self.0.as_ref()?.overrides.scope.as_deref()
    }

    /// Returns the overriding scope as it is compared: sorted, each name once.
    #[cfg(feature = "fleet")]
    pub(crate) fn sorted_scopes(&self) -> Option<&str> {
        self.0.as_ref()?.overrides.canonical().0
    }

    /// Returns the parameters other than the scope, as sorted pairs of name and value.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        let params = self
            .0
            .as_ref()
            .map_or(&[][..], |key| key.overrides.params());
        params.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the hash, which is the same for equal requests in this process.
    #[inline]
    pub(crate) fn hash_of_key(&self) -> u64 {
        self.0.as_ref().map_or(0, |key| key.hash)
    }

    /// Returns true if this stands for the source's own configuration.
    pub fn is_default(&self) -> bool {
        self.0.is_none()
    }

    fn changed(self, change: impl FnOnce(&mut Rest)) -> Self {
        let overrides = self.0.map(|key| Arc::unwrap_or_clone(key.overrides));
        let mut overrides = overrides.unwrap_or_default();
        change(overrides.rest.get_or_insert_default());
        Self::with_overrides(overrides)
    }

    fn with_overrides(overrides: Overrides) -> Self {
        // Seeded at random in each process, so that no attacker can choose scopes that collide.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(Some(Key {
            hash: HASHER.hash_one(overrides.canonical()),
            overrides: Arc::new(overrides),
        }))
    }

    /// Creates a request for a token with this scope, which has to be a single name.
    ///
    /// Use it in place of [`scope`](Self::scope) for a name that contains untrusted input, such as
    /// a tenant id from a URL: a space in it cannot add a second scope.
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

impl Overrides {
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
                ..Rest::default()
            })
        });
        let scope = Some(sent.into_boxed_str());
        Self { scope, rest }
    }

    fn params(&self) -> &[Param] {
        self.rest.as_deref().map_or(&[], |rest| &rest.params)
    }

    fn subject(&self) -> Option<&str> {
        self.rest.as_deref()?.subject.as_deref()
    }

    /// Returns what is equal for requests that identify the same token.
    fn canonical(&self) -> (Option<&str>, &[Param], Option<&str>) {
        let sorted = self
            .rest
            .as_deref()
            .and_then(|rest| rest.sorted_scope.as_deref());
        let scope = sorted.or(self.scope.as_deref());
        (scope, self.params(), self.subject())
    }
}

impl PartialEq for TokenRequest {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(key), Some(other)) => {
                key.hash == other.hash
                    && (Arc::ptr_eq(&key.overrides, &other.overrides)
                        || key.overrides.canonical() == other.overrides.canonical())
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
    fn order_spaces_and_repeated_names_do_not_matter() {
        let set: HashSet<_> = ["a b", "b a", " a   b ", "a b a"]
            .map(TokenRequest::scope)
            .into();
        assert_eq!(set.len(), 1);
        assert_ne!(TokenRequest::scope("a b"), TokenRequest::scope("ab"));
    }

    #[test]
    fn parameters_matter_and_their_order_does_not() {
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
    fn debug_shows_the_scope_and_neither_parameters_nor_subject() {
        let request = TokenRequest::scope("tenant/42")
            .with_param("audience", "hidden")
            .with_subject("hidden");
        let shown = format!("{request:?}");
        assert!(shown.contains("tenant/42"), "{shown}");
        assert!(!shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn subjects_have_tokens_of_their_own() {
        let one = TokenRequest::subject("alice").with_audience("x");
        assert_eq!(one.subject_key(), Some("alice"));
        assert_eq!(
            one,
            TokenRequest::default()
                .with_audience("x")
                .with_subject("alice")
        );
        for different in [
            TokenRequest::subject("bob").with_audience("x"),
            TokenRequest::default().with_audience("x"),
            TokenRequest::subject("alice"),
            TokenRequest::scope("alice").with_audience("x"),
        ] {
            assert_ne!(one, different);
        }
    }

    #[test]
    fn empty_scope_is_not_the_default() {
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
