//! Where a token may go.

use std::net::Ipv4Addr;

use http::Uri;

use crate::error::InvalidSetting;

/// The rules for where a token may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttachPolicy {
    /// Empty means: every https origin, and loopback.
    allowed: Vec<Origin>,
    /// What a URI without authority is judged as.
    assumed: Option<Origin>,
    allow_http: bool,
}

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
    /// A path alone: wherever the inner service sends it.
    PathOnly,
    /// An authority without scheme, another scheme than http and https, or a port that is none.
    Other,
}

/// An origin (RFC 6454): scheme, host, port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    https: bool,
    /// In lower case.
    host: Box<str>,
    port: u16,
}

impl AttachPolicy {
    pub(crate) fn allow_origin(&mut self, origin: &str) -> Result<(), InvalidSetting> {
        let origin = Origin::parse("allow_origin", origin)?;
        self.allowed.push(origin);
        Ok(())
    }

    pub(crate) fn assume_origin(&mut self, origin: &str) -> Result<(), InvalidSetting> {
        self.assumed = Some(Origin::parse("assume_origin", origin)?);
        Ok(())
    }

    pub(crate) fn allow_http(&mut self) {
        self.allow_http = true;
    }

    /// Whether a request to this target gets a token.
    pub(crate) fn allows(&self, target: Target<'_>) -> bool {
        let target = match (target, &self.assumed) {
            (Target::PathOnly, Some(assumed)) => assumed.as_target(),
            (Target::PathOnly, None) => return self.allowed.is_empty(),
            (target, _) => target,
        };
        let Target::Origin { https, host, .. } = target else {
            return false;
        };
        if self.allowed.is_empty() {
            https || self.allow_http || is_loopback(host)
        } else {
            self.allowed
                .iter()
                .any(|allowed| allowed.as_target().is_same_origin(target))
        }
    }
}

impl<'a> Target<'a> {
    pub(crate) fn of_uri(uri: &'a Uri) -> Self {
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => Self::PathOnly,
            (Some(scheme), Some(authority)) => {
                let host = authority.host();
                let port = authority
                    .as_str()
                    .rsplit('@')
                    .next()
                    .and_then(|it| it.get(host.len()..));
                let number = authority.port_u16();
                if number.is_none() && !matches!(port, Some("" | ":")) {
                    return Self::Other;
                }
                Self::new(scheme, host, number)
            }
            _ => Self::Other,
        }
    }

    pub(crate) fn new(scheme: &str, host: &'a str, port: Option<u16>) -> Self {
        let https = scheme.eq_ignore_ascii_case("https");
        if host.is_empty() || !(https || scheme.eq_ignore_ascii_case("http")) {
            return Self::Other;
        }
        Self::Origin {
            https,
            host,
            port: port.unwrap_or(if https { 443 } else { 80 }),
        }
    }

    /// The same for the same origin, and hardly ever for another: to recognise where an answer came
    /// from without keeping the request's URI.
    pub(crate) fn fingerprint(self) -> u64 {
        // FNV-1a: short, and nothing worse than a spaced-out renewal hangs on it.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let Self::Origin { https, host, port } = self else {
            return 0;
        };
        let seed = (OFFSET ^ (u64::from(port) << 1 | u64::from(https))).wrapping_mul(PRIME);
        host.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(PRIME)
        })
    }

    fn is_same_origin(self, other: Target<'_>) -> bool {
        match (self, other) {
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
            _ => false,
        }
    }
}

impl Origin {
    fn parse(setting: &'static str, text: &str) -> Result<Self, InvalidSetting> {
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
        match Target::of_uri(&uri) {
            Target::Origin { https, host, port } if port != 0 && !rest.ends_with(':') => Ok(Self {
                https,
                host: host.to_ascii_lowercase().into(),
                port,
            }),
            Target::Origin { .. } => Err(wrong("the port can't be read")),
            _ if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                Err(wrong("host or port can't be read"))
            }
            _ => Err(wrong("the scheme is neither https nor http")),
        }
    }

    fn as_target(&self) -> Target<'_> {
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

#[cfg(test)]
mod tests;
