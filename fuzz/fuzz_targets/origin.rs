//! Where a token may go, for requests of `http` and of reqwest.
//!
//! Input: an origin to allow, a line end, where a request goes.
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
        an_origin_allows_itself_only(origin, &named);
        policies.push(named.clone().with_http());
        policies.push(named);
    }
    if let Ok(uri) = target.parse() {
        for policy in &policies {
            goes_where_it_may(policy, target, &uri);
            userinfo_says_nothing(policy, target, &uri);
        }
        http_is_no_other_origin(&policies, &uri);
        a_path_is_judged_as_assumed(origin, &uri);
    }
    if let Ok(url) = Url::parse(target) {
        for policy in &policies {
            both_kinds_of_requests_are_judged_alike(policy, &url);
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
    /// `None` if that is no origin.
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

/// Scheme, host and port by RFC 3986, as far as a token may go there.
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
        let place = authority.rsplit('@').next()?;
        let colon = place
            .rfind(':')
            .filter(|colon| place.rfind(']') < Some(*colon));
        let (host, port) = place.split_at(colon.unwrap_or(place.len()));
        let port = port.strip_prefix(':').unwrap_or_default();
        // Brackets within a name, which `http` takes, make a name that no host has.
        let sound = match host.strip_prefix('[') {
            Some(literal) => literal.ends_with(']'),
            None => !host.is_empty() && !host.contains(':'),
        };
        if !sound {
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

fn an_origin_allows_itself_only(origin: &str, named: &Policy) {
    let own = Origin::of(origin).expect("what is allowed is an origin");
    if let Ok(url) = Url::parse(origin) {
        let bare = url.origin().ascii_serialization() + "/";
        assert_eq!(url.as_str(), bare, "nothing but an origin");
    }
    let Origin { scheme, host, port } = &own;
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

fn goes_where_it_may(policy: &Policy, text: &str, uri: &Uri) {
    let allowed = policy.allows(uri);
    if uri.scheme().is_none() && uri.authority().is_none() {
        return assert_eq!(allowed, policy.origin.is_none(), "{text}");
    }
    let own = Origin::of(text);
    if let Some(origin) = &policy.origin {
        assert_eq!(
            allowed,
            own.is_some() && own == Origin::of(origin),
            "{origin} {text}"
        );
    } else if let Some(own) = &own {
        assert_eq!(
            allowed,
            own.scheme == "https" || policy.http || is_loopback(&own.host),
            "{text}"
        );
    } else {
        assert!(!allowed, "{text}");
    }

    // By a parser that nothing is shared with, which rewrites hosts: it may see one host in two, but
    // not two in one.
    let Ok(url) = Url::parse(text) else { return };
    if !allowed {
        return;
    }
    assert!(matches!(url.scheme(), "http" | "https"), "{text}");
    match &policy.origin {
        Some(origin) => {
            let origin = Url::parse(origin).expect("its host is the same");
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

/// Neither what a request names nor what is put into it.
fn userinfo_says_nothing(policy: &Policy, text: &str, uri: &Uri) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return;
    };
    if uri.scheme().is_none() {
        return;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    let place = authority.rsplit('@').next().unwrap_or_default();
    for userinfo in [
        "",
        "localhost@",
        "localhost:443@",
        "u:p@127.0.0.1@",
        "[::1]@",
        "%40@",
    ] {
        let other = format!("{scheme}://{userinfo}{place}{behind}");
        if let Some(allowed) = policy.allows_str(&other) {
            assert_eq!(allowed, policy.allows(uri), "{text} {other}");
        }
    }
}

/// `allow_http` opens nothing beside the origins that are named.
fn http_is_no_other_origin(policies: &[Policy], uri: &Uri) {
    for [one, other] in policies
        .iter()
        .flat_map(|one| policies.iter().map(move |other| [one, other]))
    {
        if one.origin.is_some() && one.origin == other.origin {
            assert_eq!(one.allows(uri), other.allows(uri), "{uri}");
        }
    }
}

fn a_path_is_judged_as_assumed(origin: &str, uri: &Uri) {
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
    let assumed: Uri = origin.parse().expect("it was read before");
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

fn both_kinds_of_requests_are_judged_alike(policy: &Policy, url: &Url) {
    let Ok(uri) = url.as_str().parse::<Uri>() else {
        return;
    };
    let allowed = policy.attach.allows_url(url.clone());
    // A URL always has a scheme. Without authority it is no path alone, as `data:` is not.
    if uri.scheme().is_some() {
        assert_eq!(allowed, policy.allows(&uri), "{url}");
    } else {
        assert!(!allowed, "{url}");
    }
}
