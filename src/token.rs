//! Access tokens.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::clock;
use crate::error::InvalidToken;
use crate::secret::Secret;
use crate::token::request::TokenRequest;

#[cfg(any(feature = "client-credentials", feature = "token-file"))]
pub(crate) mod jwt;
pub(crate) mod request;
#[cfg(feature = "client-credentials")]
pub(crate) mod security_token;
pub(crate) mod windows;

/// The maximum lifetime. Longer ones are reduced to it.
pub(crate) const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

const PREFIX: &str = "Bearer ";

/// An OAuth 2.0 access token (RFC 6749 §1.4), opaque to this crate.
///
/// A [`TokenSource`](crate::TokenSource) creates it and sets its lifetime; the
/// [`TokenCache`](crate::TokenCache) returns clones, which are cheap. A token of unknown lifetime
/// gets the cache's [`default_lifetime`](crate::TokenCacheBuilder::default_lifetime).
///
/// `Debug` shows no secret. The value is stored once, inside the complete header value, and that
/// memory is zeroed when the last clone of the token and of the header is dropped. This crate
/// cannot zero the copies in the buffers of an HTTP client, nor those in the response that the
/// token was parsed from.
///
/// ```
/// use std::time::Duration;
/// use bearer_auth::AccessToken;
///
/// let token = AccessToken::new("opaque")?.with_lifetime(Duration::from_secs(900));
/// assert_eq!(token.expose_secret(), "opaque");
/// assert!(!format!("{token:?}").contains("opaque"));
/// # Ok::<(), bearer_auth::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct AccessToken(Arc<dyn Held>);

/// Owns the parts of a token: either `Parts` alone, or a cached token, which keeps what the cache
/// knows about the token next to them, so that a lookup follows one pointer.
pub(crate) trait Held: Send + Sync + RefUnwindSafe + 'static {
    fn parts(&self) -> &Parts;
}

/// The value of a token and what is known about it.
#[derive(Clone)]
pub(crate) struct Parts {
    /// `Bearer <token>`, marked sensitive: made once, for all requests.
    authorization: HeaderValue,
    lifetime: Lifetime,
    expires_at: Option<SystemTime>,
    scope: Option<Box<str>>,
    issued: Option<Issued>,
    /// Boxed, since few tokens have them.
    times: Option<Box<Times>>,
}

/// The times that a source set besides the lifetime.
#[derive(Clone, Default)]
struct Times {
    issued_at: Option<SystemTime>,
    due_at: Option<SystemTime>,
}

/// The lifetime of a token as its source set it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lifetime {
    Unspecified,
    Limited(Duration),
    /// The server says that none is left (`expires_in` of 0 or less).
    // Only token responses say so.
    #[cfg_attr(not(feature = "client-credentials"), allow(dead_code))]
    Ended,
    Unlimited,
}

/// The entry of a cache that a token came from, and which of its tokens this is.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) request: TokenRequest,
    pub(crate) generation: u64,
}

impl AccessToken {
    /// Creates a token of unknown lifetime.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidToken`] if `value` is empty or has a byte outside of 0x21 to 0x7E, so that
    /// it cannot be sent in an `Authorization` header (RFC 6750 §2.1).
    pub fn new(value: impl Into<Secret>) -> Result<Self, InvalidToken> {
        let value = value.into();
        Ok(Self(Arc::new(Parts {
            authorization: authorization(value.expose_secret())?,
            lifetime: Lifetime::Unspecified,
            expires_at: None,
            scope: None,
            issued: None,
            times: None,
        })))
    }

    /// Sets the lifetime, which a cache counts from just before the token was requested.
    ///
    /// Zero means unknown. More than 10 years is reduced to 10 years.
    ///
    /// Default: unknown, and the cache's
    /// [`default_lifetime`](crate::TokenCacheBuilder::default_lifetime) applies.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        let lifetime = lifetime.min(LONGEST_LIFE);
        self.edited(|parts| {
            if lifetime.is_zero() {
                parts.lifetime = Lifetime::Unspecified;
                parts.expires_at = None;
            } else {
                parts.lifetime = Lifetime::Limited(lifetime);
                let since = parts.issued_at().unwrap_or_else(clock::wall_now);
                parts.expires_at = since.checked_add(lifetime);
            }
        })
    }

    /// Sets the time at which the token was issued, by the wall clock, for a source that returns
    /// tokens of some age: from a file, or from a store that others share.
    ///
    /// The [`lifetime`](Self::with_lifetime), if one is set, then counts from this time and stands
    /// for the whole life of the token, from which a cache derives when to refresh it. A time in
    /// the future counts as now.
    ///
    /// Default: the lifetime counts from just before the token was requested.
    #[must_use]
    pub fn with_issued_at(self, time: SystemTime) -> Self {
        self.edited(|parts| {
            parts.times.get_or_insert_default().issued_at = Some(time);
            if let Lifetime::Limited(lifetime) = parts.lifetime {
                parts.expires_at = time.checked_add(lifetime);
            }
        })
    }

    /// Sets the time from which a cache refreshes the token, by the wall clock.
    ///
    /// The cache uses it unchanged, without the random part that it adds to its own due times. With
    /// a time at or after the end of the token, the token is not refreshed ahead of its expiry.
    ///
    /// Default: the cache derives the time from the lifetime.
    #[must_use]
    pub fn with_due_at(self, time: SystemTime) -> Self {
        self.edited(|parts| parts.times.get_or_insert_default().due_at = Some(time))
    }

    /// Makes the token never expire: it is used until an API rejects it.
    ///
    /// Default: the lifetime is unknown, see [`with_lifetime`](Self::with_lifetime).
    #[must_use]
    pub fn without_expiry(self) -> Self {
        self.edited(|parts| {
            parts.lifetime = Lifetime::Unlimited;
            parts.expires_at = None;
        })
    }

    /// Marks the token as one of which the server says that its life has ended.
    #[cfg(any(test, feature = "client-credentials"))]
    pub(crate) fn with_ended_lifetime(self) -> Self {
        self.edited(|parts| {
            parts.lifetime = Lifetime::Ended;
            parts.expires_at = None;
        })
    }

    /// Sets the scope that the server granted (RFC 6749 §5.1).
    ///
    /// Default: none, as in a response that does not name the scope.
    #[must_use]
    pub fn with_scope(self, scope: impl Into<String>) -> Self {
        self.edited(|parts| parts.scope = Some(scope.into().into_boxed_str()))
    }

    /// Returns the time at which the token expires, by the wall clock; `None` if it never expires
    /// or its lifetime is unknown.
    ///
    /// The lifetime of a token from a cache counts from just before its token request was sent.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.parts().expires_at
    }

    /// Returns the scope that the server granted, if it named one. It may be narrower than the
    /// requested one.
    pub fn scope(&self) -> Option<&str> {
        self.parts().scope.as_deref()
    }

    /// Returns the token itself. Keep it out of logs and errors.
    pub fn expose_secret(&self) -> &str {
        // The constructor allows visible ASCII only, so neither default is ever used.
        let value = self.authorization().to_str().unwrap_or_default();
        value.get(PREFIX.len()..).unwrap_or_default()
    }

    /// Returns the complete value of the `Authorization` header, marked sensitive.
    pub fn authorization(&self) -> &HeaderValue {
        self.parts().authorization()
    }

    /// Returns the same header value in the same memory, with a reference count of its own, so that
    /// threads which clone it do not contend.
    pub(crate) fn header_with_own_count(&self) -> HeaderValue {
        /// Aligned, so that no two reference counts share a cache line.
        #[repr(align(128))]
        struct Line(HeaderValue);

        impl AsRef<[u8]> for Line {
            fn as_ref(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        let header = self.authorization();
        let line = Bytes::from_owner(Line(header.clone()));
        let mut copy = HeaderValue::from_maybe_shared(line).unwrap_or_else(|_| header.clone());
        copy.set_sensitive(true);
        copy
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.parts().lifetime
    }

    pub(crate) fn issued_at(&self) -> Option<SystemTime> {
        self.parts().issued_at()
    }

    pub(crate) fn due_at(&self) -> Option<SystemTime> {
        self.parts().times.as_ref()?.due_at
    }

    pub(crate) fn issued(&self) -> Option<&Issued> {
        self.parts().issued.as_ref()
    }

    pub(crate) fn is_same_value(&self, other: &Self) -> bool {
        self.parts().is_same_value(other.parts())
    }

    /// Returns a copy of the parts as a cache issues them: with its expiry time and its entry.
    pub(crate) fn issue(&self, expires_at: Option<SystemTime>, issued: Issued) -> Parts {
        Parts {
            expires_at,
            issued: Some(issued),
            ..self.parts().clone()
        }
    }

    /// Returns the token whose parts `holder` owns.
    pub(crate) fn held_by(holder: Arc<impl Held>) -> Self {
        Self(holder)
    }

    pub(crate) fn parts(&self) -> &Parts {
        self.0.parts()
    }

    fn edited(self, edit: impl FnOnce(&mut Parts)) -> Self {
        let mut parts = self.parts().clone();
        edit(&mut parts);
        Self(Arc::new(parts))
    }
}

impl Parts {
    pub(crate) fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    pub(crate) fn is_same_value(&self, other: &Self) -> bool {
        self.authorization == other.authorization
    }

    fn issued_at(&self) -> Option<SystemTime> {
        self.times.as_ref()?.issued_at
    }
}

impl Held for Parts {
    fn parts(&self) -> &Self {
        self
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("lifetime", &self.parts().lifetime)
            .field("expires_at", &self.parts().expires_at)
            .field("scope", &self.parts().scope)
            .finish_non_exhaustive()
    }
}

fn authorization(value: &str) -> Result<HeaderValue, InvalidToken> {
    if value.is_empty() {
        return Err(InvalidToken::empty());
    }
    if let Some(position) = value
        .bytes()
        .position(|byte| !(0x21..=0x7E).contains(&byte))
    {
        return Err(InvalidToken::at(position));
    }
    let mut line = Zeroizing::new(Vec::with_capacity(PREFIX.len() + value.len()));
    line.extend_from_slice(PREFIX.as_bytes());
    line.extend_from_slice(value.as_bytes());
    let mut header =
        HeaderValue::from_maybe_shared(Bytes::from_owner(line)).map_err(|_| InvalidToken::at(0))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_that_no_header_can_carry_is_an_error() {
        for value in ["", " ", "a b", "a\n", "a\r\nX: y", "é", "\u{7f}", "a\0"] {
            assert!(AccessToken::new(value).is_err(), "{value:?}");
        }
        for value in ["a", "!~", "a.b-c_d/e+f==", "{\"x\":1}"] {
            assert_eq!(AccessToken::new(value).unwrap().expose_secret(), value);
        }
    }

    #[test]
    fn header_is_sensitive_and_complete() {
        let token = AccessToken::new("abc").unwrap();
        assert_eq!(token.authorization(), "Bearer abc");
        assert!(token.authorization().is_sensitive());
        assert!(token.authorization().clone().is_sensitive());
    }

    #[test]
    fn header_with_own_count_shares_the_memory() {
        let token = AccessToken::new("abc").unwrap();
        let copy = token.header_with_own_count();
        assert_eq!(copy, token.authorization());
        assert!(copy.is_sensitive());
        assert_eq!(
            copy.as_bytes().as_ptr(),
            token.authorization().as_bytes().as_ptr()
        );
    }

    #[test]
    fn lifetime_is_positive_and_limited() {
        let token = AccessToken::new("a").unwrap();
        assert_eq!(token.lifetime(), Lifetime::Unspecified);
        let zero = token.clone().with_lifetime(Duration::ZERO);
        assert_eq!(
            (zero.lifetime(), zero.expires_at()),
            (Lifetime::Unspecified, None)
        );
        let long = token.clone().with_lifetime(Duration::MAX);
        assert_eq!(long.lifetime(), Lifetime::Limited(LONGEST_LIFE));
        assert!(long.expires_at().is_some());
        assert_eq!(token.without_expiry().expires_at(), None);
    }
}
