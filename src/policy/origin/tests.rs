//! Properties of every origin that is accepted.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn parse(origin: &str) -> Option<Origin> {
    Origin::parse("allow_origin", origin).ok()
}

/// Returns the error for this host, which is in every setter's way.
fn error(host: &str) -> String {
    let of_url = Origin::of_url("allow_origin_of", &format!("https://{host}/v2"));
    assert!(of_url.is_err(), "{host}");
    Origin::parse("allow_origin", &format!("https://{host}"))
        .expect_err(host)
        .to_string()
}

fn matches(origin: &Origin, uri: &str) -> bool {
    uri.parse().is_ok_and(|uri| {
        let target = Target::of_uri(&uri);
        let by_text = origin.matches_text(target);
        assert!(!by_text || origin.matches(target), "{origin:?} {uri}");
        origin.matches(target)
    })
}

/// Numbers of an IPv4 address, and what comes close to them.
fn ipv4_part() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0..300_u32).prop_map(|it| it.to_string()),
        1 => any::<u32>().prop_map(|it| it.to_string()),
        2 => (0..300_u32).prop_map(|it| format!("{it:#x}")),
        1 => (0..300_u32).prop_map(|it| format!("0X{it:X}")),
        2 => (0..300_u32).prop_map(|it| format!("0{it:o}")),
        1 => select(vec!["", "0x", "08", "00", "256", "1e1", "a", "0xg", "99999999999"])
            .prop_map(str::to_owned),
    ]
}

fn host() -> impl Strategy<Value = String> {
    let ipv4 = prop::collection::vec(ipv4_part(), 1..6).prop_map(|parts| parts.join("."));
    let ipv6 = prop_oneof![
        any::<Ipv6Addr>(),
        any::<Ipv4Addr>().prop_map(|it| it.to_ipv6_mapped()),
        any::<Ipv4Addr>().prop_map(|it| it.to_ipv6_compatible()),
        sparse_ipv6(),
    ];
    prop_oneof![
        3 => "[a-zA-Z0-9_-]{1,8}(\\.[a-zA-Z0-9_-]{1,8}){0,3}\\.?",
        2 => ipv4,
        2 => ipv6.prop_map(|it| format!("[{it}]")),
        1 => ipv6_spelling(),
        2 => "[ -~]{0,12}",
        1 => "\\PC{0,6}",
    ]
}

/// Addresses in which groups of zeros can be written in several ways.
fn sparse_ipv6() -> impl Strategy<Value = Ipv6Addr> {
    prop::array::uniform8(select(vec![0, 0, 1, 0xdb8, 0xffff])).prop_map(Ipv6Addr::from)
}

/// An IPv6 address in a form that is not always the canonical one.
fn ipv6_spelling() -> impl Strategy<Value = String> {
    (sparse_ipv6(), 0..4).prop_map(|(address, form)| {
        let groups = address.segments();
        let full = |group: &u16| format!("{group:04x}");
        let plain = |group: &u16| format!("{group:x}");
        let text = match form {
            0 => groups.map(|group| full(&group)).join(":"),
            1 => groups.map(|group| plain(&group)).join(":"),
            2 => address.to_string().to_uppercase(),
            _ => {
                let [.., high, low] = groups;
                let last = Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
                let first: Vec<_> = groups[..6].iter().map(plain).collect();
                format!("{}:{last}", first.join(":"))
            }
        };
        format!("[{text}]")
    })
}

fn origin() -> impl Strategy<Value = (String, String, String)> {
    let port = prop_oneof![
        2 => Just(String::new()),
        2 => any::<u16>().prop_map(|port| format!(":{port}")),
        1 => select(vec![":443", ":80", ":0443", ":"]).prop_map(str::to_owned),
    ];
    let scheme = select(vec!["https", "http", "HTTPS", "ws"]).prop_map(str::to_owned);
    (scheme, host(), port)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_accepted_origin_matches_itself_and_no_other((scheme, host, port) in origin()) {
        let text = format!("{scheme}://{host}{port}");
        let Some(origin) = parse(&text) else {
            return Ok(());
        };
        for uri in [
            text.clone(),
            format!("{text}/path?query"),
            format!("{}/", text.to_ascii_uppercase()),
            format!("{scheme}://{host}:{}/", origin.port),
        ] {
            prop_assert!(matches(&origin, &uri), "{text} {uri}");
        }
        let other_scheme = if origin.https { "http" } else { "https" };
        for uri in [
            format!("{other_scheme}://{host}:{}/", origin.port),
            format!("{scheme}://{host}:{}/", origin.port ^ 1),
            format!("{scheme}://{host}0{port}/"),
            format!("{scheme}://a{host}{port}/"),
            format!("{scheme}://{host}.{port}/"),
            format!("{scheme}://{}{port}/", host.trim_end_matches('.').to_owned() + ".a"),
            format!("{scheme}://{text}@a.example/"),
            format!("{scheme}://a.example/{text}"),
            format!("{host}{port}"),
            "/path".to_owned(),
        ] {
            prop_assert!(!matches(&origin, &uri), "{text} {uri}");
        }
    }

    #[test]
    fn two_origins_match_each_other_only_if_they_are_equal(
        (first, second) in (origin(), origin()),
    ) {
        let [first, second] = [first, second].map(|(scheme, host, port)| {
            format!("{scheme}://{host}{port}")
        });
        if let (Some(one), Some(other)) = (parse(&first), parse(&second)) {
            prop_assert_eq!(matches(&one, &second), one == other, "{} {}", first, second);
        }
    }

    #[test]
    fn the_standard_library_agrees_about_addresses(host in host()) {
        let is_accepted = parse(&format!("https://{host}")).is_some();
        let is_ipv4 = host.parse::<Ipv4Addr>().is_ok();
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let is_number = match last.get(..2) {
            Some("0x" | "0X") => last[2..].bytes().all(|byte| byte.is_ascii_hexdigit()),
            _ => last.parse::<u64>().is_ok(),
        };
        if is_ipv4 || is_number {
            prop_assert_eq!(is_accepted, is_ipv4, "{}", host);
        }
        if let Some(inner) = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            let is_canonical = inner.parse::<Ipv6Addr>().is_ok_and(|address| {
                address.to_string() == inner && address.to_ipv4_mapped().is_none()
            });
            prop_assert_eq!(is_accepted, is_canonical, "{}", host);
        }
    }

    #[test]
    fn every_other_form_of_an_address_is_an_error_that_names_the_usual_one(
        address in any::<Ipv4Addr>(),
        parts in 0..4_usize,
        radix in prop::array::uniform4(0..3),
        sparse in sparse_ipv6(),
    ) {
        let octets = address.octets();
        let (head, tail) = octets.split_at(parts);
        let last = tail.iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet));
        let numbers = head.iter().map(|octet| u32::from(*octet)).chain([last]);
        let numbers = numbers.zip(radix).map(|(number, radix)| match radix {
            0 => number.to_string(),
            1 => format!("{number:#x}"),
            _ => format!("0{number:o}"),
        });
        let host = numbers.collect::<Vec<_>>().join(".");
        let usual = address.to_string();
        prop_assert!(parse(&format!("https://{usual}")).is_some(), "{usual}");
        for host in [host, format!("{usual}.")] {
            if host != usual {
                let error = error(&host);
                prop_assert!(error.contains(&format!("`{usual}`")), "{host}: {error}");
            }
        }

        prop_assume!(sparse.to_ipv4_mapped().is_none());
        let usual = format!("[{sparse}]");
        prop_assert!(parse(&format!("https://{usual}")).is_some(), "{usual}");
        let full = sparse.segments().map(|group| format!("{group:04x}")).join(":");
        for host in [format!("[{full}]"), sparse.to_string()] {
            if host != usual {
                let error = error(&host);
                prop_assert!(error.contains(&format!("`{usual}`")), "{host}: {error}");
            }
        }
    }

    #[test]
    fn the_origin_of_a_url_is_that_of_its_first_part(
        (scheme, host, port) in origin(),
        rest in "([/?#][ -~]{0,12})?",
    ) {
        let text = format!("{scheme}://{host}{port}");
        let url = format!("{text}{rest}");
        let of_url = Origin::of_url("allow_origin_of", &url).ok();
        let has_no_path = !host.contains(['/', '?', '#', '\\']);
        if has_no_path && !rest.contains('\\') {
            prop_assert_eq!(&of_url, &parse(&text), "{}", url);
        }
        if of_url.is_some() {
            prop_assert!(!url.contains('\\'), "{url}");
        }
    }

    /// An independent parser, which is the one of reqwest, reads the same host.
    #[cfg(feature = "reqwest")]
    #[test]
    fn reqwest_sends_requests_to_an_accepted_origin_as_it_is_written(
        (scheme, host, port) in origin(),
        rest in "([/?#\\\\][ -~]{0,12})?",
    ) {
        let url = format!("{scheme}://{host}{port}{rest}");
        let Ok(origin) = Origin::of_url("allow_origin_of", &url) else {
            return Ok(());
        };
        // It does not accept a host whose punycode is invalid.
        if let Ok(url) = reqwest::Url::parse(&url) {
            let host = url.host_str().unwrap_or_default();
            let target = Target::new(url.scheme(), host, url.port());
            prop_assert!(origin.matches_text(target), "{url} {origin:?}");
            let is_name = origin.host.parse::<Ipv4Addr>().is_err() && !host.starts_with('[');
            prop_assert_eq!(url.domain().is_some(), is_name, "{}", url);
        } else {
            prop_assert!(host.to_ascii_lowercase().contains("xn--"), "{url}");
        }
    }
}
