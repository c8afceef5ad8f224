//! Access tokens.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use zeroize::{Zeroize, Zeroizing};

use crate::clock;
use crate::error::InvalidToken;
use crate::token::request::TokenRequest;

pub(crate) mod request;

/// The longest life that is believed; longer ones are cut to it.
pub(crate) const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

const PREFIX: &str = "Bearer ";

/// An OAuth 2.0 access token (RFC 6749 §1.4), opaque to this crate.
///
/// A [`TokenSource`](crate::TokenSource) makes one and says how long it lives; the
/// [`TokenCache`](crate::TokenCache) hands out clones, which are cheap. A token that names no life
/// gets the cache's [`default_lifetime`](crate::TokenCacheBuilder::default_lifetime).
///
/// `Debug` shows no secret. The value is stored once, inside the ready-made header value, and that
/// memory is wiped when the last clone of token and header is gone. What an HTTP client copies into
/// its own write buffers is out of this crate's reach.
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

/// Where a token's parts are: on their own, or with what a cache knows of it beside them, so that a
/// lookup finds all in one place.
pub(crate) trait Held: Send + Sync + RefUnwindSafe + 'static {
    fn parts(&self) -> &Parts;
}

#[derive(Clone)]
pub(crate) struct Parts {
    /// `Bearer <token>`, marked sensitive: what a request is given, made once.
    authorization: HeaderValue,
    lifetime: Lifetime,
    expires_at: Option<SystemTime>,
    scope: Option<Box<str>>,
    issued: Option<Issued>,
}

/// How long the source says that a token lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lifetime {
    Unspecified,
    Limited(Duration),
    /// The server says that none is left (`expires_in` of 0 or less).
    Ended,
    Unlimited,
}

/// Which place of which cache a token came from.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) request: TokenRequest,
    pub(crate) generation: u64,
}

impl AccessToken {
    /// Makes a token of `value`, with no life named.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`] if `value` is empty or has a byte outside of 0x21 to 0x7E: it could not be
    /// sent in an `Authorization` header (RFC 6750 §2.1).
    pub fn new(value: impl Into<String>) -> Result<Self, InvalidToken> {
        let mut value = value.into();
        let authorization = authorization(&value);
        value.zeroize();
        Ok(Self(Arc::new(Parts {
            authorization: authorization?,
            lifetime: Lifetime::Unspecified,
            expires_at: None,
            scope: None,
            issued: None,
        })))
    }

    /// Says how long the token lives, counted from just before it was asked for.
    ///
    /// Zero means that no life is known; more than 10 years are cut to 10 years.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        let lifetime = lifetime.min(LONGEST_LIFE);
        self.edited(|parts| {
            if lifetime.is_zero() {
                parts.lifetime = Lifetime::Unspecified;
                parts.expires_at = None;
            } else {
                parts.lifetime = Lifetime::Limited(lifetime);
                parts.expires_at = clock::wall_now().checked_add(lifetime);
            }
        })
    }

    /// Says that the token never expires; it is used until it is rejected.
    #[must_use]
    pub fn without_expiry(self) -> Self {
        self.edited(|parts| {
            parts.lifetime = Lifetime::Unlimited;
            parts.expires_at = None;
        })
    }

    /// Says which scope the server granted, if it said so (RFC 6749 §5.1).
    #[must_use]
    pub fn with_scope(self, scope: impl Into<String>) -> Self {
        self.edited(|parts| parts.scope = Some(scope.into().into_boxed_str()))
    }

    /// When the token's life ends, by the wall clock; `None` if it never does or no life is known.
    ///
    /// A token from a cache counts from just before its token request was sent.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.parts().expires_at
    }

    /// The scope that the server granted, if it named one; narrower, perhaps, than the one asked for.
    pub fn scope(&self) -> Option<&str> {
        self.parts().scope.as_deref()
    }

    /// The token itself. Keep it out of logs and errors.
    pub fn expose_secret(&self) -> &str {
        // The constructor saw visible ASCII only, so neither step can come up empty.
        let value = self.authorization().to_str().unwrap_or_default();
        value.get(PREFIX.len()..).unwrap_or_default()
    }

    /// The ready `Authorization` header value, marked sensitive.
    pub fn authorization(&self) -> &HeaderValue {
        self.parts().authorization()
    }

    /// The same header value in the same memory, with a reference count of its own.
    pub(crate) fn header_with_own_count(&self) -> HeaderValue {
        /// Aligned, so that no two counts are on one cache line.
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

    pub(crate) fn issued(&self) -> Option<&Issued> {
        self.parts().issued.as_ref()
    }

    pub(crate) fn is_same_value(&self, other: &Self) -> bool {
        self.parts().is_same_value(other.parts())
    }

    /// Its parts, as its cache hands them out.
    pub(crate) fn issue(&self, expires_at: Option<SystemTime>, issued: Issued) -> Parts {
        Parts {
            expires_at,
            issued: Some(issued),
            ..self.parts().clone()
        }
    }

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
    fn refuses_what_no_header_can_carry() {
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
    fn a_header_that_is_header_with_own_count_is_the_same_memory() {
        let token = AccessToken::new("abc").unwrap();
        let apart = token.header_with_own_count();
        assert_eq!(apart, token.authorization());
        assert!(apart.is_sensitive());
        assert_eq!(
            apart.as_bytes().as_ptr(),
            token.authorization().as_bytes().as_ptr()
        );
    }

    #[test]
    fn lives_are_positive_and_capped() {
        let token = AccessToken::new("a").unwrap();
        assert_eq!(token.lifetime(), Lifetime::Unspecified);
        let none = token.clone().with_lifetime(Duration::ZERO);
        assert_eq!(
            (none.lifetime(), none.expires_at()),
            (Lifetime::Unspecified, None)
        );
        let long = token.clone().with_lifetime(Duration::MAX);
        assert_eq!(long.lifetime(), Lifetime::Limited(LONGEST_LIFE));
        assert!(long.expires_at().is_some());
        assert_eq!(token.without_expiry().expires_at(), None);
    }
}
