//! The origins that can be allowed, and the form of their hosts.

use std::convert::Infallible;

use bearer_auth::{BearerAuthLayer, InvalidSetting, MockTokenSource};
use http::header::AUTHORIZATION;
use http::{Request, Response};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::api::{Api, ok};
use crate::support::stack::{Kind, Stack};

fn layer() -> BearerAuthLayer {
    BearerAuthLayer::new(MockTokenSource::new())
}

/// Returns true if a request to `uri` has a token.
async fn has_token(layer: &BearerAuthLayer, uri: &str) -> bool {
    let inner = service_fn(|request: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(request.headers().contains_key(AUTHORIZATION)))
    });
    let request = Request::get(uri).body(()).unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    response.into_body()
}

/// Returns the text of the error, which must name the setting.
fn error(setting: &str, result: Result<BearerAuthLayer, InvalidSetting>) -> String {
    match result {
        Ok(layer) => panic!("{layer:?}"),
        Err(error) => {
            assert_eq!(error.setting(), setting);
            error.to_string()
        }
    }
}

#[tokio::test]
async fn a_host_that_clients_write_differently_is_an_error_that_names_the_form_to_write() {
    for (host, hint) in [
        ("127.1", "`127.0.0.1`"),
        ("127.0.1", "`127.0.0.1`"),
        ("127.0.0.1.", "`127.0.0.1`"),
        ("1.2.3.4.", "`1.2.3.4`"),
        ("0x7f.0.0.1", "`127.0.0.1`"),
        ("0X7F.0.0.1", "`127.0.0.1`"),
        ("127.0.0.0x1", "`127.0.0.1`"),
        ("0x7f000001", "`127.0.0.1`"),
        ("2130706433", "`127.0.0.1`"),
        ("017700000001", "`127.0.0.1`"),
        ("127.0.0.01", "`127.0.0.1`"),
        ("127.0.0.010", "`127.0.0.8`"),
        ("0", "`0.0.0.0`"),
        ("1.2.3.0x", "`1.2.3.0`"),
        ("256.1.1.1", "0 to 255"),
        ("127.0.0.256", "0 to 255"),
        ("1.2.3.4.5", "0 to 255"),
        ("127.0.0.08", "0 to 255"),
        ("4294967296", "0 to 255"),
        ("api.example.1", "0 to 255"),
        ("api.example.0x1f", "0 to 255"),
        ("[0:0:0:0:0:0:0:1]", "`[::1]`"),
        ("[::0001]", "`[::1]`"),
        ("[0::1]", "`[::1]`"),
        ("[::0.0.0.1]", "`[::1]`"),
        ("::1", "`[::1]`"),
        ("2001:db8::1", "`[2001:db8::1]`"),
        ("[2001:DB8::1]", "`[2001:db8::1]`"),
        ("[2001:db8:0:0:1::1]", "`[2001:db8::1:0:0:1]`"),
        ("[::ffff:192.0.2.1]", "`192.0.2.1`"),
        ("[::ffff:c000:201]", "`192.0.2.1`"),
        ("::ffff:192.0.2.1", "`192.0.2.1`"),
        ("[fe80::1%25eth0]", "must enclose an IPv6 address"),
        ("[127.0.0.1]", "must enclose an IPv6 address"),
        ("[v1.x]", "must enclose an IPv6 address"),
        ("api%2eexample.com", "percent-encoding"),
        ("%31%32%37.0.0.1", "percent-encoding"),
        ("api..example.com", "empty name"),
        (".example.com", "empty name"),
        ("127..1", "empty name"),
        ("*.example.com", "wildcards"),
        ("a.example,b.example", "one origin at a time"),
        ("api.exa\tmple.com", "letters, digits"),
        ("bücher.example", "`xn--bcher-kva.example`"),
        ("127。0。0。1", "`127.0.0.1`"),
        ("１２７.1", "`127.0.0.1`"),
    ] {
        for origin in [format!("https://{host}"), format!("http://{host}:8443")] {
            // A port would make an IPv6 address without brackets another one.
            if host.starts_with(|it: char| it.is_ascii_hexdigit() || it == ':')
                && host.contains(':')
                && origin.ends_with(":8443")
            {
                continue;
            }
            for (setting, result) in [
                ("allow_origin", layer().allow_origin(&origin)),
                ("assume_origin", layer().assume_origin(&origin)),
                (
                    "allow_origin_of",
                    layer().allow_origin_of(format!("{origin}/v2/?x#y")),
                ),
            ] {
                let text = error(setting, result);
                assert!(text.contains(hint), "{origin}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_host_in_its_usual_form_matches_requests_that_write_it_the_same() {
    for origin in [
        "https://127.0.0.1",
        "https://10.0.0.255:8443",
        "https://[::1]",
        "https://[2001:db8::1:0:0:1]:8443",
        "https://[fe80::1]",
        "http://localhost:8080",
        "https://API.Example.COM",
        "https://xn--bcher-kva.example",
        "https://my_service",
        "https://1.example",
        "https://0x1f.example",
        "https://127.0.0.1.example",
        "https://api.1e1",
        "https://api.example.com.",
    ] {
        let allowed = layer().allow_origin(origin).unwrap();
        assert!(has_token(&allowed, origin).await, "{origin}");
        assert!(has_token(&allowed, &format!("{origin}/x?y")).await);
        assert!(!has_token(&allowed, "https://other.example/").await);
        let of_url = layer().allow_origin_of(format!("{origin}/v2/")).unwrap();
        assert!(has_token(&of_url, origin).await, "{origin}");
    }
}

#[tokio::test]
async fn the_host_of_a_request_is_never_normalized() {
    for (origin, uri) in [
        ("https://127.0.0.1", "https://127.1/"),
        ("https://127.0.0.1", "https://0x7f.0.0.1/"),
        ("https://127.0.0.1", "https://2130706433/"),
        ("https://127.0.0.1", "https://127.0.0.01/"),
        ("https://127.0.0.1", "https://127.0.0.1./"),
        ("https://127.0.0.1", "https://[::ffff:127.0.0.1]/"),
        ("https://[::1]", "https://[0:0:0:0:0:0:0:1]/"),
        ("https://192.0.2.1", "https://[::ffff:192.0.2.1]/"),
        ("https://api.example.com", "https://api.example.com./"),
        ("https://api.example.com.", "https://api.example.com/"),
    ] {
        let allowed = layer().allow_origin(origin).unwrap();
        assert!(!has_token(&allowed, uri).await, "{origin} {uri}");
    }
    // Plain http needs a loopback address in its usual form.
    assert!(has_token(&layer(), "http://127.0.0.1/").await);
    for uri in ["http://127.1/", "http://0x7f.0.0.1/", "http://[0::1]/"] {
        assert!(!has_token(&layer(), uri).await, "{uri}");
    }
}

#[tokio::test]
async fn reqwest_writes_the_form_that_the_error_names() {
    for kind in Kind::ALL {
        if kind == Kind::TowerHttp {
            continue;
        }
        let api = Api::start(|_| ok()).await;
        let origin = api.origin();
        let short = origin.replace("127.0.0.1", "127.1");
        let text = error("allow_origin", layer().allow_origin(&short));
        assert!(text.contains("`127.0.0.1`"), "{text}");
        let allowed = layer().allow_origin(&origin).unwrap();
        let stack = Stack::new(kind, &allowed);
        stack.get(format!("{short}/")).await.unwrap();
        assert_eq!(api.tokens(), [Some("mock-token-1".to_owned())], "{kind:?}");
    }
}

#[tokio::test]
async fn the_origin_of_a_url_can_be_allowed() {
    for url in [
        "https://api.example.com",
        "https://api.example.com/",
        "https://api.example.com/v2/",
        "HTTPS://API.example.com:443/v2",
        "https://api.example.com?x=https://b.example",
        "https://api.example.com#@b.example",
        "https://api.example.com/@b.example:80/ü",
    ] {
        let allowed = layer().allow_origin_of(url).unwrap();
        assert!(
            has_token(&allowed, "https://api.example.com/v1").await,
            "{url}"
        );
        for other in [
            "https://b.example/",
            "http://api.example.com/",
            "https://api.example.com:8443/",
            "/path",
        ] {
            assert!(!has_token(&allowed, other).await, "{url} {other}");
        }
    }
    let two = layer()
        .allow_origin_of("http://a.example:8080/v1/")
        .unwrap()
        .allow_origin_of("https://b.example/v1/")
        .unwrap();
    assert!(has_token(&two, "http://a.example:8080/").await);
    assert!(has_token(&two, "https://b.example/").await);
}

#[tokio::test]
async fn a_url_whose_origin_could_be_misread_is_an_error() {
    for (url, hint) in [
        ("https://user@api.example.com/", "user and password"),
        ("https://user:secret@api.example.com/", "user and password"),
        ("https://api.example.com@b.example/", "user and password"),
        ("https://@api.example.com/", "user and password"),
        (r"https://api.example.com\@b.example/", "backslashes"),
        (r"https:\\api.example.com\", "backslashes"),
        (r"https://api.example.com\v2", "backslashes"),
        (r"https://api.example.com/v2\", "backslashes"),
        ("https:///api.example.com/", "can't be read"),
        ("https://", "can't be read"),
        ("https:api.example.com", "`https://` is missing"),
        ("https:/api.example.com", "`https://` is missing"),
        ("api.example.com/v2/", "`https://` is missing"),
        ("/v2/", "`https://` is missing"),
        ("", "`https://` is missing"),
        (" https://api.example.com/", "neither https nor http"),
        ("wss://api.example.com/", "neither https nor http"),
        ("https://api.example.com:/", "the port"),
        ("https://api.example.com:0/", "the port"),
        ("https://api.example.com:+443/", "the port"),
        ("https://api.example.com:65536/", "the port"),
        ("https://api.example.com\n.b.example/", "letters, digits"),
    ] {
        let text = error("allow_origin_of", layer().allow_origin_of(url));
        assert!(text.contains(hint), "{url}: {text}");
        assert!(!text.contains("secret"), "{url}: {text}");
    }
}
