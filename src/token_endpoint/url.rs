//! The URL of a token endpoint.

use http::Uri;

use crate::error::InvalidSetting;
use crate::policy::origin::{Target, is_loopback};

/// Parses and checks a token URL (RFC 6749 §3.2).
pub(crate) fn token_url(url: &str, allow_http: bool) -> Result<Uri, InvalidSetting> {
    let invalid = |requirement: &'static str| InvalidSetting::new("token_url", requirement);
    if url.contains('#') {
        return Err(invalid("must not have a fragment (RFC 6749 §3.2)"));
    }
    let uri: Uri = url.parse().map_err(|_| {
        invalid(
            "must be an absolute https URL in ASCII, such as \
             `https://identity.example.com/connect/token`",
        )
    })?;
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(invalid(
            "must not contain user and password: use `client_id`, `client_secret` and \
             `client_authentication`",
        ));
    }
    match Target::of_uri(&uri).parsed() {
        Target::Origin { https: true, .. } => Ok(uri),
        Target::Origin { host, .. } if allow_http || is_loopback(host) => Ok(uri),
        Target::Origin { .. } => Err(invalid(
            "must be an https URL, since plain http would expose the secret (`allow_http` permits \
             it)",
        )),
        _ => Err(invalid(
            "must be an absolute https URL, such as `https://identity.example.com/connect/token`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_url_is_https_or_loopback_without_userinfo_and_fragment() {
        for url in [
            "https://id.example.com/token",
            "https://id.example.com:8443/token?x=y",
            "http://127.0.0.1:8080/token",
            "http://localhost/token",
            "http://[::1]:1/token",
        ] {
            assert!(token_url(url, false).is_ok(), "{url}");
        }
        for (url, expected) in [
            ("", "must be an absolute https URL"),
            ("/token", "absolute https URL"),
            ("id.example.com/token", "absolute https URL"),
            ("ftp://id.example.com/token", "absolute https URL"),
            ("https://id.example.com:0x1/token", "absolute https URL"),
            ("https://idé.example.com/token", "absolute https URL"),
            ("http://id.example.com/token", "allow_http"),
            (
                "https://u:p@id.example.com/token",
                "must not contain user and password",
            ),
            ("https://id.example.com/token#x", "must not have a fragment"),
        ] {
            let error = token_url(url, false).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("token_url"),
                "{url}: {error}"
            );
        }
        assert!(token_url("http://id.example.com/token", true).is_ok());
    }
}
