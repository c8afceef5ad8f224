//! Origins: scheme, host and port of where a request goes, or may go.

use std::net::Ipv4Addr;

use http::Uri;
use http::uri::Authority;

use crate::error::InvalidSetting;

/// Scheme, host and port, borrowed from where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// Scheme and authority are both there.
    Origin {
        https: bool,
        /// Without userinfo; an IPv6 address in its brackets.
        host: &'a str,
        port: u16,
    },
    /// The same, as a URI has it: taken apart only where its letters don't say enough.
    Whole {
        https: bool,
        authority: &'a Authority,
    },
    /// A path alone: wherever the inner service sends it.
    PathOnly,
    /// An authority without scheme, another scheme than http and https, or no port where one belongs.
    Other,
}

/// An origin (RFC 6454): scheme, host, port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    https: bool,
    /// In lower case.
    host: Box<str>,
    port: u16,
    /// Host and port as most URIs write them: in lower case, without the scheme's own port.
    authority: Box<str>,
    fingerprint: Fingerprint,
}

/// Stands for an origin: the same for the same one, and hardly ever for another. Tells later whether an
/// answer came from where the token went, without keeping the URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(u64);

impl<'a> Target<'a> {
    #[inline]
    pub(crate) fn of_uri(uri: &'a Uri) -> Self {
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => Self::PathOnly,
            (Some("https"), Some(authority)) => Self::Whole {
                https: true,
                authority,
            },
            (Some("http"), Some(authority)) => Self::Whole {
                https: false,
                authority,
            },
            _ => Self::Other,
        }
    }

    /// `scheme` in lower case.
    #[cfg(feature = "reqwest")]
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
            port: port.unwrap_or(if https { 443 } else { 80 }),
        }
    }

    /// This, with the authority read: never `Whole`.
    pub(crate) fn taken_apart(self) -> Self {
        let Self::Whole { https, authority } = self else {
            return self;
        };
        // Most have a host and nothing else: found out in a fraction of the instructions. `]` is not without `[`.
        let is_mark = |byte| matches!(byte, b'@' | b':' | b'[');
        if !authority.as_str().bytes().any(is_mark) {
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
            // `Authority` takes more for one: a sign, and anything between `]` and `:`.
            Some(port) if port.strip_prefix(':').is_some_and(is_number) => {}
            _ => return Self::Other,
        }
        Self::origin(https, host, number)
    }

    /// Eight letters at a time. Good against chance, not against malice, which could do no more than space out
    /// the renewals of a token that is refused elsewhere.
    pub(crate) fn fingerprint(self) -> Fingerprint {
        /// Odd, and its bits without a pattern: the first digits of pi after the point.
        const MULTIPLIER: u64 = 0x243f_6a88_85a3_08d3;
        /// Makes letters small. What else it changes, `_` and brackets, stays apart from all that hosts have.
        const SMALL: u64 = 0x2020_2020_2020_2020;
        let Self::Origin { https, host, port } = self.taken_apart() else {
            return Fingerprint(0);
        };
        // Both halves of the product: each bit tells on all, those of the last letter too.
        let mix = |hash: u64, word: u64| {
            let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
            (product as u64) ^ (product >> 64) as u64
        };
        let (words, rest) = host.as_bytes().as_chunks();
        let seed = mix(MULTIPLIER, u64::from(port) << 1 | u64::from(https));
        let hash = words.iter().fold(seed, |hash, word| {
            mix(hash, u64::from_le_bytes(*word) | SMALL)
        });
        let rest = rest
            .iter()
            .fold(0, |rest, byte| rest << 8 | u64::from(*byte));
        Fingerprint(mix(hash, rest | SMALL))
    }
}

impl Origin {
    pub(crate) fn parse(setting: &'static str, text: &str) -> Result<Self, InvalidSetting> {
        let wrong = |what: &str| {
            let expected =
                format!("scheme, host and port alone, as `https://api.example.com`: {what}");
            InvalidSetting::new(setting, expected)
        };
        if !text.is_ascii() {
            return Err(wrong(&punycode_hint(text)));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong("`https://` is missing"));
        };
        if rest.contains('@') {
            return Err(wrong("leave out user and password"));
        }
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(wrong("leave out path, query and fragment, a last `/` too"));
        }
        if rest.contains('*') {
            return Err(wrong("a wildcard is not understood, name each host"));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| wrong("host or port can't be read"))?;
        let target = Target::of_uri(&uri).taken_apart();
        match target {
            Target::Origin { https, host, port } if port != 0 && !rest.ends_with(':') => {
                let host = host.to_ascii_lowercase();
                let authority = match (https, port) {
                    (true, 443) | (false, 80) => host.clone(),
                    _ => format!("{host}:{port}"),
                };
                Ok(Self {
                    https,
                    host: host.into(),
                    port,
                    authority: authority.into(),
                    fingerprint: target.fingerprint(),
                })
            }
            Target::Origin { .. } => Err(wrong("the port can't be read")),
            _ if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                Err(wrong("host or port can't be read"))
            }
            _ => Err(wrong("the scheme is neither https nor http")),
        }
    }

    #[inline]
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Whether `target` is this origin, without reading it; `false` may mean that it has to be read.
    #[inline]
    pub(crate) fn is_literally(&self, target: Target<'_>) -> bool {
        match target {
            Target::Whole { https, authority } => {
                https == self.https && authority.as_str() == &*self.authority
            }
            Target::Origin { https, host, port } => {
                https == self.https && port == self.port && host == &*self.host
            }
            Target::PathOnly | Target::Other => false,
        }
    }

    pub(crate) fn is(&self, target: Target<'_>) -> bool {
        match target.taken_apart() {
            Target::Origin { https, host, port } => {
                https == self.https && port == self.port && host.eq_ignore_ascii_case(&self.host)
            }
            _ => false,
        }
    }

    pub(crate) fn as_target(&self) -> Target<'_> {
        Target::Origin {
            https: self.https,
            host: &self.host,
            port: self.port,
        }
    }
}

/// 127.0.0.0/8, `[::1]` and `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Names the form that a non-ASCII host is to be written in.
fn punycode_hint(text: &str) -> String {
    #[cfg(feature = "reqwest")]
    if let Some(host) = reqwest::Url::parse(text)
        .ok()
        .as_ref()
        .and_then(|url| url.host_str())
        && host.is_ascii()
    {
        return format!("write the host in its punycode form, `{host}`");
    }
    let _ = text;
    "write the host in its punycode form (`xn--…`)".to_owned()
}
