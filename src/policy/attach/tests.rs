use http::Uri;

use super::*;
use crate::policy::origin::KeptOrigin;

fn policy(origins: &[&str]) -> AttachPolicy {
    let mut policy = AttachPolicy::default();
    for origin in origins {
        policy.allow_origin(origin).unwrap();
    }
    policy
}

fn allows(policy: &AttachPolicy, uri: &str) -> bool {
    policy
        .admit(Target::of_uri(&uri.parse().unwrap()))
        .is_some()
}

#[test]
fn without_allowed_origins_https_and_loopback_get_a_token() {
    let policy = policy(&[]);
    for uri in [
        "https://anything.example/",
        "HTTPS://anything.example:8443/",
        "http://127.0.0.1:8080/",
        "http://127.9.9.9/",
        "http://[::1]:80/",
        "http://LocalHost/",
        "/path",
    ] {
        assert!(allows(&policy, uri), "{uri}");
    }
    for uri in [
        "http://api.example.com/",
        "http://128.0.0.1/",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://user@api.example.com/",
        "http://localhost@api.example.com/",
        "ws://127.0.0.1/",
        "api.example.com:443",
        "127.0.0.1:80",
    ] {
        assert!(!allows(&policy, uri), "{uri}");
    }
}

#[test]
fn with_allowed_origins_only_those_get_a_token() {
    let policy = policy(&["https://api.example.com", "http://127.0.0.1:8080"]);
    for uri in [
        "https://api.example.com/",
        "https://API.Example.COM:443/x?y",
        "https://user:pass@api.example.com/",
        "https://user@api.example.com/",
        "http://127.0.0.1:8080/",
    ] {
        assert!(allows(&policy, uri), "{uri}");
    }
    for uri in [
        "https://api.example.com:8443/",
        "http://api.example.com/",
        "http://api.example.com:443/",
        "https://api.example.com.evil.example/",
        "https://evil.example/api.example.com",
        "https://api.example.com@evil.example/",
        "http://127.0.0.1/",
        "http://127.0.0.1:8081/",
        "https://api.example.com:99999/",
        "/path",
        "api.example.com:443",
    ] {
        assert!(!allows(&policy, uri), "{uri}");
    }
}

#[test]
fn an_invalid_port_is_no_origin() {
    for (origin, uri) in [
        ("http://[::1]", "http://[::1].api.example.com:80/"),
        ("https://[::1]:8443", "https://[::1]x:8443/"),
        (
            "https://api.example.com",
            "https://api.example.com[:x]:443/",
        ),
        ("https://api.example.com", "https://api.example.com:+443/"),
        ("https://api.example.com", "https://api.example.com:65979/"),
    ] {
        assert!(!allows(&policy(&[origin]), uri), "{uri}");
        assert!(!allows(&policy(&[]), uri), "{uri}");
        let uri = uri.trim_end_matches('/');
        assert!(Origin::parse("allow_origin", uri).is_err(), "{uri}");
    }
    for uri in [
        "https://api.example.com:0443/",
        "https://u:443@api.example.com:/",
        "https://[::1]@api.example.com/",
    ] {
        assert!(allows(&policy(&["https://api.example.com"]), uri), "{uri}");
    }
}

#[test]
fn plain_http_must_be_allowed() {
    let mut open = policy(&[]);
    assert!(!allows(&open, "http://api.example.com/"));
    open.allow_http();
    assert!(allows(&open, "http://api.example.com/"));
    assert!(allows(
        &policy(&["http://api.example.com"]),
        "http://api.example.com:80/"
    ));
    let mut named = policy(&["https://api.example.com"]);
    named.allow_http();
    assert!(
        !allows(&named, "http://api.example.com/"),
        "another origin than the one named"
    );
}

#[test]
fn a_path_alone_is_treated_as_the_assumed_origin() {
    let mut named = policy(&["https://api.example.com"]);
    named.assume_origin("https://api.example.com:443").unwrap();
    assert!(allows(&named, "/path"));
    named.assume_origin("https://other.example.com").unwrap();
    assert!(!allows(&named, "/path"));
    let mut open = policy(&[]);
    open.assume_origin("http://api.example.com").unwrap();
    assert!(!allows(&open, "/path"), "plain http");
    assert!(
        !allows(&open, "api.example.com:443"),
        "an authority without scheme"
    );
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    for origin in [
        "https://a.example",
        "HTTPS://A.example:8443",
        "http://[::1]:1",
        "http://a",
    ] {
        assert!(Origin::parse("allow_origin", origin).is_ok(), "{origin}");
    }
    for (origin, expected) in [
        ("", "`https://` is missing"),
        ("api.example.com", "`https://` is missing"),
        ("https://", "can't be read"),
        ("https://a.example/", "a last `/` too"),
        ("https://a.example/v1", "path"),
        ("https://a.example?x", "query"),
        ("https://a.example#x", "fragment"),
        ("https://u:p@a.example", "user and password"),
        ("https://*.example.com", "wildcard"),
        ("https://a.example:", "the port can't be read"),
        ("https://a.example:0", "the port can't be read"),
        ("https://a.example:65536", "port"),
        ("https://a.example:x", "port"),
        ("https://a b.example", "one origin at a time"),
        ("https://a.example,b.example", "one origin at a time"),
        ("https://[::1]x:8443", "the host can't be read"),
        ("HTTP://[::1]x:8443", "the host can't be read"),
        ("https://[::1", "the host can't be read"),
        ("https://[v1]", "the host can't be read"),
        ("https://a~b.example", "the host can't be read"),
        ("https://a%2eexample", "percent-encoding"),
        ("https://a..example", "empty name"),
        ("https://.a.example", "empty name"),
        ("https://a.example..", "empty name"),
        ("https://.", "empty name"),
        ("ftp://a.example", "neither https nor http"),
        ("wss://a.example", "neither https nor http"),
        ("https://bücher.example", "punycode"),
    ] {
        let error = Origin::parse("allow_origin", origin)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(expected) && error.contains("allow_origin"),
            "{origin}: {error}"
        );
    }
}

#[cfg(feature = "reqwest")]
#[test]
fn the_error_names_the_punycode_form() {
    let error = Origin::parse("allow_origin", "https://bücher.example")
        .unwrap_err()
        .to_string();
    assert!(error.contains("`xn--bcher-kva.example`"), "{error}");
}

#[test]
fn a_response_is_compared_with_the_origin_that_the_token_went_to() {
    let mut assuming = policy(&[]);
    assuming.assume_origin("https://a.example").unwrap();
    for policy in [
        policy(&[]),
        policy(&["https://b.example", "https://a.example"]),
        assuming,
    ] {
        for (sent, answered, same) in [
            ("https://a.example/x", "https://a.example/y", true),
            ("https://a.example/x", "HTTPS://A.example:443/", true),
            ("https://A.example:443/x", "https://a.example/", true),
            ("https://a.example/x", "https://a.example:444/", false),
            ("https://a.example/x", "http://a.example/", false),
            ("https://a.example/x", "https://b.example/", false),
            ("https://a.example/x", "/x", false),
            ("/x", "/y", true),
            ("/x", "https://a.example/", false),
        ] {
            let [sent, answered]: [Uri; 2] = [sent, answered].map(|it| it.parse().unwrap());
            let answered = Target::of_uri(&answered);
            let is_same = match policy.admit(Target::of_uri(&sent)) {
                None => continue,
                Some(Destination::Allowed(index)) => policy.is_allowed_origin(index, answered),
                Some(Destination::PathOnly) => answered == Target::PathOnly,
                // Both ways to keep an origin: a copy of the request, and the origin alone.
                Some(Destination::Named) => {
                    let by_copy = Target::of_uri(&sent).is_same_origin(answered);
                    let kept = KeptOrigin::of_uri(&sent).is_same_origin(answered);
                    assert_eq!(by_copy, kept, "{sent}, {answered:?}");
                    kept
                }
            };
            assert_eq!(is_same, same, "{policy:?}: {sent}, {answered:?}");
        }
    }
}

#[test]
fn a_target_that_is_no_origin_is_the_same_as_none() {
    for uri in [
        "api.example.com:443",
        "ws://a.example/",
        "https://a.example:x/",
    ] {
        let Ok(uri) = uri.parse::<Uri>() else {
            continue;
        };
        let target = Target::of_uri(&uri);
        assert!(!target.is_same_origin(target), "{uri}");
        assert!(!KeptOrigin::of_uri(&uri).is_same_origin(target), "{uri}");
    }
}

#[cfg(feature = "reqwest")]
#[test]
fn the_origin_of_a_url_is_kept_whatever_its_length() {
    let target = |url: &str| {
        let url: &'static reqwest::Url = Box::leak(Box::new(url.parse().unwrap()));
        Target::new(url.scheme(), url.host_str().unwrap_or_default(), url.port())
    };
    for label in [
        "a",
        &"a".repeat(45),
        &"a".repeat(46),
        &"a".repeat(47),
        &"a".repeat(63),
    ] {
        let kept = KeptOrigin::of_url(target(&format!("https://{label}.example/x")));
        for same in ["https://{}.example/y?z", "HTTPS://{}.EXAMPLE:443/"] {
            assert!(
                kept.is_same_origin(target(&same.replace("{}", label))),
                "{same}"
            );
        }
        for other in [
            "http://{}.example",
            "https://{}.example:444",
            "https://{}.exa",
            "https://{}b.example",
            "https://b.example",
            "data:text/plain,x",
        ] {
            let other = other.replace("{}", label);
            if let Ok(url) = reqwest::Url::parse(&other) {
                assert!(!kept.is_same_origin(target(url.as_str())), "{other}");
            }
        }
    }
    let none = KeptOrigin::of_url(target("data:text/plain,x"));
    assert!(!none.is_same_origin(target("data:text/plain,x")));
}
