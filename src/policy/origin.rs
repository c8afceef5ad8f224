//! Origins (RFC 6454): scheme, host and port of the place that a request goes to, or may go to.

use std::net::Ipv4Addr;

use http::Uri;
use http::uri::{Authority, Scheme};

mod host;
mod parse;

/// The target of a request, borrowed from its URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// An origin.
    Origin {
        https: bool,
        /// Without userinfo. An IPv6 address is in brackets.
        host: &'a str,
        port: u16,
    },
    /// An origin as a URI contains it. It is parsed only if comparing the text does not suffice.
    Unparsed {
        https: bool,
        authority: &'a Authority,
    },
    /// A path alone: the inner service knows the origin.
    PathOnly,
    /// Anything else: an authority without scheme, a scheme other than http and https, or an
    /// invalid port.
    Other,
}

/// An origin that was allowed or assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    https: bool,
    /// In lower case.
    host: Box<str>,
    port: u16,
    /// Host and port as most URIs contain them: in lower case, without the default port.
    authority: Box<str>,
}

/// The origin of a request that was sent without keeping a copy.
#[derive(Clone, Debug)]
pub(crate) enum KeptOrigin {
    Authority {
        https: bool,
        authority: Authority,
    },
    /// The origin of a URL, which cannot be shared.
    #[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
    Parts {
        https: bool,
        host: KeptHost,
        port: u16,
    },
    /// No origin that a response can be compared with.
    Other,
}

/// A copy of a host, which allocates only if the host is unusually long.
#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
#[derive(Clone, Debug)]
pub(crate) enum KeptHost {
    Inline { len: u8, bytes: [u8; MAX_INLINE] },
    Boxed(Box<[u8]>),
}

#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
const MAX_INLINE: usize = 30;

impl<'a> Target<'a> {
    #[inline]
    pub(crate) fn of_uri(uri: &'a Uri) -> Self {
        match (uri.scheme(), uri.authority()) {
            (None, None) => Self::PathOnly,
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTPS => Self::Unparsed {
                https: true,
                authority,
            },
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP => Self::Unparsed {
                https: false,
                authority,
            },
            _ => Self::Other,
        }
    }

    /// Returns the target of a URL, whose scheme and host are in lower case.
    #[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
    pub(crate) fn new(scheme: &str, host: &'a str, port: Option<u16>) -> Self {
        match scheme {
            "https" => Self::origin(true, host, port),
            "http" => Self::origin(false, host, port),
            _ => Self::Other,
        }
    }

    fn origin(https: bool, host: &'a str, port: Option<u16>) -> Self {
        if host.is_empty() {
            return Self::Other;
        }
        Self::Origin {
            https,
            host,
            port: port.unwrap_or(default_port(https)),
        }
    }

    /// Parses the authority. The result is never `Unparsed`.
    pub(crate) fn parsed(self) -> Self {
        let Self::Unparsed { https, authority } = self else {
            return self;
        };
        // Most authorities are a host alone. `]` does not occur without `[`.
        let is_delimiter = |byte| matches!(byte, b'@' | b':' | b'[');
        if !authority.as_str().bytes().any(is_delimiter) {
            return Self::origin(https, authority.as_str(), None);
        }
        let host = authority.host();
        let port = authority
            .as_str()
            .rsplit('@')
            .next()
            .and_then(|it| it.get(host.len()..));
        let number = authority.port_u16();
        let is_number =
            |digits: &str| number.is_some() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match port {
            Some("" | ":") => {}
            // `Authority` accepts more than digits: a sign, and anything between `]` and `:`.
            Some(port) if port.strip_prefix(':').is_some_and(is_number) => {}
            _ => return Self::Other,
        }
        Self::origin(https, host, number)
    }

    /// Returns host and port, without a default port; empty if this is no origin.
    #[cfg(feature = "client-credentials")]
    pub(crate) fn authority(self) -> String {
        match self.parsed() {
            Self::Origin { https, host, port } if port == default_port(https) => host.to_owned(),
            Self::Origin { host, port, .. } => format!("{host}:{port}"),
            Self::Unparsed { .. } | Self::PathOnly | Self::Other => String::new(),
        }
    }

    /// Returns true if both targets are the same origin, or both are a path alone.
    pub(crate) fn is_same_origin(self, other: Target<'_>) -> bool {
        match (self.parsed(), other.parsed()) {
            (
                Self::Origin { https, host, port },
                Target::Origin {
                    https: other_https,
                    host: other_host,
                    port: other_port,
                },
            ) => {
                https == other_https && port == other_port && host.eq_ignore_ascii_case(other_host)
            }
            (Self::PathOnly, Target::PathOnly) => true,
            _ => false,
        }
    }
}

impl KeptOrigin {
    pub(crate) fn of_uri(uri: &Uri) -> Self {
        match (Target::of_uri(uri), uri.authority()) {
            (Target::Unparsed { https, .. }, Some(authority)) => Self::Authority {
                https,
                authority: authority.clone(),
            },
            _ => Self::Other,
        }
    }

    /// Copies the origin of a URL.
    #[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
    pub(crate) fn of_url(target: Target<'_>) -> Self {
        match target {
            Target::Origin { https, host, port } => Self::Parts {
                https,
                host: KeptHost::new(host),
                port,
            },
            Target::Unparsed { .. } | Target::PathOnly | Target::Other => Self::Other,
        }
    }

    pub(crate) fn is_same_origin(&self, target: Target<'_>) -> bool {
        self.as_target().is_same_origin(target)
    }

    pub(crate) fn as_target(&self) -> Target<'_> {
        match self {
            Self::Authority { https, authority } => Target::Unparsed {
                https: *https,
                authority,
            },
            #[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
            Self::Parts { https, host, port } => Target::Origin {
                https: *https,
                host: host.as_str(),
                port: *port,
            },
            Self::Other => Target::Other,
        }
    }
}

#[cfg(any(feature = "reqwest", feature = "reqwest-0-12"))]
impl KeptHost {
    fn new(host: &str) -> Self {
        let host = host.as_bytes();
        let mut bytes = [0; MAX_INLINE];
        match (bytes.get_mut(..host.len()), u8::try_from(host.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(host);
                Self::Inline { len, bytes }
            }
            _ => Self::Boxed(host.into()),
        }
    }

    fn as_str(&self) -> &str {
        let bytes = match self {
            Self::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Boxed(bytes) => bytes,
        };
        // Copied from a `str`, so this never fails.
        str::from_utf8(bytes).unwrap_or_default()
    }
}

impl Origin {
    /// Returns true if the text of `target` is this origin's. If false, [`matches`](Self::matches)
    /// decides.
    #[inline]
    pub(crate) fn matches_text(&self, target: Target<'_>) -> bool {
        match target {
            Target::Unparsed { https, authority } => {
                https == self.https && authority.as_str() == &*self.authority
            }
            Target::Origin { https, host, port } => {
                https == self.https && port == self.port && host == &*self.host
            }
            Target::PathOnly | Target::Other => false,
        }
    }

    pub(crate) fn matches(&self, target: Target<'_>) -> bool {
        self.as_target().is_same_origin(target)
    }

    pub(crate) fn as_target(&self) -> Target<'_> {
        Target::Origin {
            https: self.https,
            host: &self.host,
            port: self.port,
        }
    }
}

/// Returns the port of a URL without one.
#[inline]
pub(crate) fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// Returns true for 127.0.0.0/8, `[::1]` and `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
