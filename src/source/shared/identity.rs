//! The identity of a fleet, and the names that it gives to tokens.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::InvalidSetting;
use crate::store::StoreKey;
use crate::token::request::TokenRequest;

/// The least number of bytes in a key for names: the length of the hash (RFC 2104 §3).
const MIN_KEY_LENGTH: usize = 32;

/// Identifies the tokens that the processes of a fleet share: everything that makes the token of
/// one configuration differ from that of another.
///
/// Processes with equal identities, and equal keys, share tokens. If you change what a source
/// sends, change its identity, too, or the new processes get tokens of the old kind.
///
/// ```
/// use bearer_auth::FleetIdentity;
///
/// let identity = FleetIdentity::new("https://identity.example.com/connect/token", "my-client")
///     .default_scope("tenant/4f1c2d3e")
///     .param("audience", "https://api.example.com");
/// # let _ = identity;
/// ```
#[derive(Clone)]
pub struct FleetIdentity {
    issuer: String,
    client_id: String,
    grant: String,
    default_scope: Option<String>,
    params: Vec<(String, String)>,
    certificate: Option<Vec<u8>>,
}

impl FleetIdentity {
    /// Creates the identity of a client at an issuer, or at a token URL.
    ///
    /// They are compared as they are written.
    pub fn new(issuer_or_token_url: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            issuer: issuer_or_token_url.into(),
            client_id: client_id.into(),
            grant: "client_credentials".to_owned(),
            default_scope: None,
            params: Vec::new(),
            certificate: None,
        }
    }

    /// Sets the grant by which the source obtains tokens, such as its `grant_type`.
    ///
    /// Default: `client_credentials`.
    #[must_use]
    pub fn grant(mut self, grant: impl Into<String>) -> Self {
        self.grant = grant.into();
        self
    }

    /// Sets the scope that the source was built with. The order of its names does not matter.
    ///
    /// Default: none.
    #[must_use]
    pub fn default_scope(mut self, scope: impl AsRef<str>) -> Self {
        let mut names: Vec<_> = scope.as_ref().split_ascii_whitespace().collect();
        names.sort_unstable();
        names.dedup();
        self.default_scope = Some(names.join(" "));
        self
    }

    /// Adds a parameter that the source was built with. The order of parameters does not matter.
    ///
    /// Default: none.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let param = (name.into(), value.into());
        if let Err(place) = self.params.binary_search(&param) {
            self.params.insert(place, param);
        }
        self
    }

    /// Sets the thumbprint of the client certificate that tokens are bound to (RFC 8705 §3).
    ///
    /// Processes with other certificates cannot use them.
    ///
    /// Default: none; tokens are not bound.
    #[must_use]
    pub fn certificate_thumbprint(mut self, thumbprint: impl Into<Vec<u8>>) -> Self {
        self.certificate = Some(thumbprint.into());
        self
    }

    /// Returns the same bytes for equal identities, and other bytes for any other.
    fn canonical(&self) -> Vec<u8> {
        let mut bytes = Canonical::default();
        bytes.text(&self.issuer);
        bytes.text(&self.client_id);
        bytes.text(&self.grant);
        bytes.optional(self.default_scope.as_deref().map(str::as_bytes));
        bytes.pairs(self.params.iter().map(|(name, value)| (&**name, &**value)));
        bytes.optional(self.certificate.as_deref());
        bytes.0
    }
}

impl fmt::Debug for FleetIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetIdentity").finish_non_exhaustive()
    }
}

/// Names the tokens of a fleet.
pub(super) struct Names {
    identity: Vec<u8>,
    fleet: [u8; 16],
    key: Zeroizing<Vec<u8>>,
}

/// A token as the store and the seal know it.
#[derive(Clone)]
pub(super) struct TokenName {
    pub(super) key: StoreKey,
    /// The identities of the fleet and of the request, which every record of the token is bound to.
    pub(super) identity: Vec<u8>,
}

impl Names {
    pub(super) fn new(identity: &FleetIdentity, key: &[u8]) -> Result<Self, InvalidSetting> {
        if key.len() < MIN_KEY_LENGTH {
            return Err(InvalidSetting::new(
                "name_key",
                "must have at least 32 bytes",
            ));
        }
        let mut names = Self {
            identity: identity.canonical(),
            fleet: [0; 16],
            key: Zeroizing::new(key.to_vec()),
        };
        names.fleet = names.hash(b"fleet", &names.identity);
        Ok(names)
    }

    pub(super) fn of(&self, request: &TokenRequest) -> TokenName {
        let mut identity = Canonical::default();
        identity.bytes(&self.identity);
        identity.request(request);
        TokenName {
            key: StoreKey::new(self.fleet, self.hash(b"token", &identity.0)),
            identity: identity.0,
        }
    }

    fn hash(&self, use_of_it: &[u8], identity: &[u8]) -> [u8; 16] {
        let mut name = [0; 16];
        // A key of any length is allowed.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) {
            mac.update(b"bearer-auth ");
            mac.update(use_of_it);
            mac.update(b"\0");
            mac.update(identity);
            name.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        }
        name
    }
}

/// An encoding in which every part has its length before it, so that no two lists of parts have the
/// same bytes.
#[derive(Default)]
struct Canonical(Vec<u8>);

impl Canonical {
    fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&(length as u64).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        self.0.push(u8::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default());
    }

    fn pairs<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        let pairs: Vec<_> = pairs.collect();
        self.length(pairs.len());
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
        }
    }

    fn request(&mut self, request: &TokenRequest) {
        self.0.push(u8::from(request.is_default()));
        self.optional(request.sorted_scopes().map(str::as_bytes));
        self.pairs(request.params());
        self.optional(request.subject_key().map(str::as_bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn identity() -> FleetIdentity {
        FleetIdentity::new("https://identity.example.com/token", "client")
    }

    fn key_of(identity: &FleetIdentity, request: &TokenRequest) -> StoreKey {
        Names::new(identity, &[7; 32]).unwrap().of(request).key
    }

    #[test]
    fn each_part_of_the_identity_makes_another_name() {
        let identities = [
            identity(),
            FleetIdentity::new("https://identity.example.com/tokencl", "ient"),
            FleetIdentity::new("https://identity.example.com/token", "other"),
            identity().grant("other"),
            identity().default_scope(""),
            identity().default_scope("a b"),
            identity().default_scope("ab"),
            identity().param("a", "b"),
            identity().param("a", "b").param("c", "d"),
            identity().param("ab", ""),
            identity().certificate_thumbprint([1]),
        ];
        let requests = [
            TokenRequest::default(),
            TokenRequest::scope(""),
            TokenRequest::scope("a"),
            TokenRequest::scope("a b"),
            TokenRequest::subject("a"),
            TokenRequest::default().with_param("a", ""),
            TokenRequest::default().with_param("", "a"),
            TokenRequest::scope("a").with_subject("a"),
        ];
        let keys: HashSet<_> = identities
            .iter()
            .flat_map(|identity| requests.iter().map(|request| key_of(identity, request)))
            .map(|key| *key.token())
            .collect();
        assert_eq!(keys.len(), identities.len() * requests.len());
    }

    #[test]
    fn order_makes_no_other_name() {
        let one = identity()
            .default_scope("a  b")
            .param("a", "b")
            .param("c", "d");
        let other = identity()
            .default_scope("b a")
            .param("c", "d")
            .param("a", "b");
        let scope = TokenRequest::scope("x y");
        assert_eq!(
            key_of(&one, &scope),
            key_of(&other, &TokenRequest::scope("y  x"))
        );
        assert_eq!(
            key_of(&one, &scope).fleet(),
            key_of(&one, &TokenRequest::default()).fleet()
        );
    }

    /// Processes of different versions must agree, so the names never change.
    #[test]
    fn names_are_stable() {
        let key = key_of(
            &identity().default_scope("a").param("b", "c"),
            &TokenRequest::scope("tenant/42").with_subject("s"),
        );
        let hex = |bytes: &[u8; 16]| u128::from_be_bytes(*bytes);
        assert_eq!(
            format!("{:032x} {:032x}", hex(key.fleet()), hex(key.token())),
            "7d61debc779b0ce3c2ec520707ff2221 5254b30d7366e4090e319ba478a68e76"
        );
    }

    #[test]
    fn a_short_key_is_an_error() {
        for length in [0, 31] {
            let error = Names::new(&identity(), &vec![0; length]).err().unwrap();
            assert_eq!(error.setting(), "name_key");
        }
        assert!(Names::new(&identity(), &[0; 100]).is_ok());
    }
}
