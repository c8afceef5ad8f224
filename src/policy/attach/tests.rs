use std::collections::HashSet;

use super::*;

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
fn without_origins_https_and_loopback() {
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
fn with_origins_only_those() {
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
fn what_is_no_port_is_no_origin() {
    for (origin, uri) in [
        ("http://[::1]", "http://[::1].api.example.com:80/"),
        ("https://[::1]:8443", "https://[::1]x:8443/"),
        ("https://[v1]", "https://[v1]x/"),
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
fn plain_http_needs_words() {
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
fn a_path_alone_is_judged_as_the_assumed_origin() {
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
    for (origin, told) in [
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
        ("https://a b.example", "host or port can't be read"),
        ("https://[::1]x:8443", "host or port can't be read"),
        ("HTTP://[::1]x:8443", "host or port can't be read"),
        ("ftp://a.example", "neither https nor http"),
        ("wss://a.example", "neither https nor http"),
        ("https://bücher.example", "punycode"),
    ] {
        let error = Origin::parse("allow_origin", origin)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(told) && error.contains("allow_origin"),
            "{origin}: {error}"
        );
    }
}

#[cfg(feature = "reqwest")]
#[test]
fn the_punycode_form_is_named() {
    let error = Origin::parse("allow_origin", "https://bücher.example")
        .unwrap_err()
        .to_string();
    assert!(error.contains("`xn--bcher-kva.example`"), "{error}");
}

#[test]
fn an_answer_is_from_where_the_token_went_if_its_origin_is_the_same() {
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
            let uris = [sent, answered].map(|it| it.parse().unwrap());
            let [sent, answered] = [Target::of_uri(&uris[0]), Target::of_uri(&uris[1])];
            if let Some(destination) = policy.admit(sent) {
                let is_at = answered.fingerprint() == destination;
                assert_eq!(is_at, same, "{policy:?}: {sent:?}, {answered:?}");
            }
        }
    }
}

#[test]
fn a_fingerprint_tells_origins_apart() {
    let of = |uri: &str| Target::of_uri(&uri.parse().unwrap()).fingerprint();
    assert_eq!(of("https://a.example/x"), of("HTTPS://A.example:443/y?z"));
    for other in [
        "http://a.example",
        "https://a.example:444",
        "https://b.example",
        "/x",
    ] {
        assert_ne!(of("https://a.example"), of(other), "{other}");
    }
    // Names as operators give them, and letters that differ side by side.
    let letters = || (b'a'..=b'z').chain(b'0'..=b'9').map(char::from);
    let mut seen = HashSet::new();
    for (one, two) in letters().flat_map(|one| letters().map(move |two| (one, two))) {
        for host in [
            format!("worker-{one}{two}.example.com"),
            format!("{one}{two}.api.example.com"),
            format!("tenant-api-{one}{two}"),
        ] {
            let fingerprint = of(&format!("https://{host}/"));
            assert!(seen.insert(fingerprint), "{host}");
        }
    }
}
