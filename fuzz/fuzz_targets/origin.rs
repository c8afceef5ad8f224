//! The origins to which a token may be sent, for requests of `http` and of reqwest.
//!
//! Input: an origin to allow, a line feed, the URI of a request.
#![no_main]

use bearer_auth::fuzzing::Attach;
use http::Uri;
use libfuzzer_sys::{Corpus, fuzz_target};
use url::{Host, Url};

fuzz_target!(|data: &[u8]| -> Corpus { run(data).map_or(Corpus::Reject, |()| Corpus::Keep) });

fn run(data: &[u8]) -> Option<()> {
    let (origin, target) = str::from_utf8(data).ok()?.split_once('\n')?;
    let mut policies = vec![Policy::default()];
    policies.push(Policy::default().with_http());
    if let Some(named) = Policy::allowing(origin) {
        check_origin_allows_only_itself(origin, &named);
        policies.push(named.clone().with_http());
        policies.push(named);
    }
    if let Ok(uri) = target.parse() {
        for policy in &policies {
            check_allowed(policy, target, &uri);
            check_userinfo_is_ignored(policy, target, &uri);
        }
        check_allow_http_adds_no_origin(&policies, &uri);
        check_assumed_origin(origin, &uri);
    }
    if let Ok(url) = Url::parse(target) {
        for policy in &policies {
            check_url_like_uri(policy, &url);
        }
    }
    Some(())
}

#[derive(Clone, Debug, Default)]
struct Policy {
    attach: Attach,
    origin: Option<String>,
    http: bool,
}

impl Policy {
    /// Returns `None` if this is not an origin.
    fn allowing(origin: &str) -> Option<Self> {
        let mut attach = Attach::default();
        attach.allow_origin(origin).ok()?;
        Some(Self {
            attach,
            origin: Some(origin.to_owned()),
            http: false,
        })
    }

    fn with_http(mut self) -> Self {
        self.attach.allow_http();
        self.http = true;
        self
    }

    fn allows(&self, uri: &Uri) -> bool {
        self.attach.allows_uri(uri)
    }

    fn allows_str(&self, uri: &str) -> Option<bool> {
        uri.parse().ok().map(|uri| self.allows(&uri))
    }
}

/// Scheme, host and port by RFC 3986, for `http` and `https` only.
#[derive(Debug, PartialEq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let address = authority.rsplit('@').next()?;
        let colon = address
            .rfind(':')
            .filter(|colon| address.rfind(']') < Some(*colon));
        let (host, port) = address.split_at(colon.unwrap_or(address.len()));
        let port = port.strip_prefix(':').unwrap_or_default();
        // `http` accepts brackets within a name, but no host has such a name.
        let is_valid = match host.strip_prefix('[') {
            Some(literal) => literal.ends_with(']'),
            None => !host.is_empty() && !host.contains(':'),
        };
        if !is_valid {
            return None;
        }
        Some(Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port: match port {
                "" => default,
                port if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
                _ => return None,
            },
        })
    }
}

/// An allowed origin allows URIs of this origin and no others.
fn check_origin_allows_only_itself(origin: &str, named: &Policy) {
    let parsed = Origin::of(origin).expect("an allowed origin parses");
    if let Ok(url) = Url::parse(origin) {
        let bare = url.origin().ascii_serialization() + "/";
        assert_eq!(url.as_str(), bare, "the text is more than an origin");
    }
    let Origin { scheme, host, port } = &parsed;
    for uri in [
        origin.to_owned(),
        origin.to_ascii_uppercase(),
        format!("{origin}/a@b:1/https://c.example"),
        format!("{origin}?@c.example"),
        format!("{scheme}://{host}:{port}/"),
        format!("{scheme}://c.example:8443@{host}:{port}/"),
    ] {
        assert_eq!(named.allows_str(&uri), Some(true), "{origin} {uri}");
    }
    let other_scheme = if scheme == "http" { "https" } else { "http" };
    let other_host = if host == "c.example" {
        "d.example"
    } else {
        "c.example"
    };
    for uri in [
        format!("{other_scheme}://{host}:{port}/"),
        format!("ws://{host}:{port}/"),
        format!("{scheme}://{host}:{}/", port ^ 1),
        format!("{scheme}://{host}.{other_host}:{port}/"),
        format!("{scheme}://c.{host}:{port}/"),
        format!("{scheme}://{host}:{port}@{other_host}/"),
        format!("{scheme}://{other_host}/{host}"),
        format!("{host}:{port}"),
        "/".to_owned(),
    ] {
        assert_ne!(named.allows_str(&uri), Some(true), "{origin} {uri}");
    }
}

/// The decision agrees with two other parsers.
fn check_allowed(policy: &Policy, text: &str, uri: &Uri) {
    let allowed = policy.allows(uri);
    if uri.scheme().is_none() && uri.authority().is_none() {
        return assert_eq!(allowed, policy.origin.is_none(), "{text}");
    }
    let target = Origin::of(text);
    if let Some(origin) = &policy.origin {
        assert_eq!(
            allowed,
            target.is_some() && target == Origin::of(origin),
            "{origin} {text}"
        );
    } else if let Some(target) = &target {
        assert_eq!(
            allowed,
            target.scheme == "https" || policy.http || is_loopback(&target.host),
            "{text}"
        );
    } else {
        assert!(!allowed, "{text}");
    }

    // An independent parser normalizes hosts: it may map two hosts to one, but never one to two.
    let Ok(url) = Url::parse(text) else { return };
    if !allowed {
        return;
    }
    assert!(matches!(url.scheme(), "http" | "https"), "{text}");
    match &policy.origin {
        Some(origin) => {
            let origin = Url::parse(origin).expect("an allowed origin parses as a URL");
            assert_eq!(url.origin(), origin.origin(), "{text}");
        }
        None if url.scheme() == "http" && !policy.http => {
            let loopback = match url.host() {
                Some(Host::Domain(name)) => name == "localhost",
                Some(Host::Ipv4(address)) => address.is_loopback(),
                Some(Host::Ipv6(address)) => address.is_loopback(),
                None => false,
            };
            assert!(loopback, "{text}");
        }
        None => {}
    }
}

fn is_loopback(host: &str) -> bool {
    let ipv4 = || {
        let parts: Vec<&str> = host.split('.').collect();
        let number = |part: &&str| part.parse::<u8>().is_ok_and(|it| it.to_string() == *part);
        parts.len() == 4 && parts[0] == "127" && parts.iter().all(number)
    };
    ["localhost", "[::1]"].contains(&host) || ipv4()
}

/// The user information of a URI never changes the decision.
fn check_userinfo_is_ignored(policy: &Policy, text: &str, uri: &Uri) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return;
    };
    if uri.scheme().is_none() {
        return;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let address = authority.rsplit('@').next().unwrap_or_default();
    for userinfo in [
        "",
        "localhost@",
        "localhost:443@",
        "u:p@127.0.0.1@",
        "[::1]@",
        "%40@",
    ] {
        let other = format!("{scheme}://{userinfo}{address}{path}");
        if let Some(allowed) = policy.allows_str(&other) {
            assert_eq!(allowed, policy.allows(uri), "{text} {other}");
        }
    }
}

/// `allow_http` has no effect if origins are allowed by name.
fn check_allow_http_adds_no_origin(policies: &[Policy], uri: &Uri) {
    for [one, other] in policies
        .iter()
        .flat_map(|one| policies.iter().map(move |other| [one, other]))
    {
        if one.origin.is_some() && one.origin == other.origin {
            assert_eq!(one.allows(uri), other.allows(uri), "{uri}");
        }
    }
}

/// A URI without an authority is treated like the assumed origin.
fn check_assumed_origin(origin: &str, uri: &Uri) {
    let mut attach = Attach::default();
    if attach.assume_origin(origin).is_err() {
        return assert!(attach.allow_origin(origin).is_err(), "{origin}");
    }
    let without = Attach::default();
    if uri.scheme().is_some() || uri.authority().is_some() {
        return assert_eq!(
            attach.allows_uri(uri),
            without.allows_uri(uri),
            "{origin} {uri}"
        );
    }
    let assumed: Uri = origin.parse().expect("an assumed origin parses");
    assert_eq!(
        attach.allows_uri(uri),
        without.allows_uri(&assumed),
        "{origin} {uri}"
    );
    assert!(
        attach.allow_origin(origin).is_ok() && attach.allows_uri(uri),
        "{origin} {uri}"
    );
}

/// A `reqwest::Request` is treated like an `http::Request` with the same URI.
fn check_url_like_uri(policy: &Policy, url: &Url) {
    let Ok(uri) = url.as_str().parse::<Uri>() else {
        return;
    };
    let allowed = policy.attach.allows_url(url.clone());
    // A URL always has a scheme, also one without an authority such as `data:`, so it never counts
    // as a path.
    if uri.scheme().is_some() {
        assert_eq!(allowed, policy.allows(&uri), "{url}");
    } else {
        assert!(!allowed, "{url}");
    }
}
