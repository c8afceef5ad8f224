//! The members of an issuer's metadata that are used (RFC 8414 §2, RFC 8705 §5).

use http::Uri;
use serde::Deserialize;

use super::unusable;
use crate::error::TokenError;
use crate::token_endpoint::url::token_url;

/// The metadata of an issuer. A member that is there twice is an error.
#[derive(Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    token_endpoint: Option<String>,
    mtls_endpoint_aliases: Option<Aliases>,
}

/// The endpoints for clients that authenticate by a certificate.
#[derive(Deserialize)]
struct Aliases {
    token_endpoint: Option<String>,
}

impl Metadata {
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// Returns the metadata if it is that of the issuer (RFC 8414 §3.3).
    pub(super) fn checked(self, issuer: &str) -> Result<Self, TokenError> {
        if self.issuer == issuer {
            Ok(self)
        } else {
            Err(unusable(
                "its `issuer` differs from the configured one: they must be equal to the last \
                 slash",
            ))
        }
    }

    /// Returns the token endpoint, which is the alias for a client that uses a certificate.
    pub(super) fn token_endpoint(&self, uses_certificate: bool) -> Result<Uri, TokenError> {
        let aliases = self.mtls_endpoint_aliases.as_ref();
        let alias = aliases
            .filter(|_| uses_certificate)
            .and_then(|aliases| aliases.token_endpoint.as_ref());
        let url = alias
            .or(self.token_endpoint.as_ref())
            .ok_or_else(|| unusable("it has no `token_endpoint`"))?;
        token_url(url, false).map_err(|_| {
            unusable(
                "its token endpoint must be an https URL, or plain http to loopback, without user, \
                 password and fragment",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(value: &serde_json::Value) -> Metadata {
        Metadata::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn aliases_are_for_clients_with_a_certificate() {
        let both = metadata(&json!({
            "issuer": "https://a",
            "token_endpoint": "https://a/token",
            "mtls_endpoint_aliases": { "token_endpoint": "https://mtls.a/token" },
        }));
        let url = |uses_certificate| both.token_endpoint(uses_certificate).unwrap();
        assert_eq!(url(false), "https://a/token");
        assert_eq!(url(true), "https://mtls.a/token");
        let without = metadata(&json!({
            "issuer": "https://a",
            "token_endpoint": "https://a/token",
            "mtls_endpoint_aliases": {},
        }));
        assert_eq!(without.token_endpoint(true).unwrap(), "https://a/token");
    }

    #[test]
    fn the_issuer_is_compared_byte_by_byte() {
        for (named, is_equal) in [
            ("https://a", true),
            ("https://a/", false),
            ("https://A", false),
            ("https://a:443", false),
            ("", false),
        ] {
            let metadata = metadata(&json!({ "issuer": named }));
            assert_eq!(metadata.checked("https://a").is_ok(), is_equal, "{named}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_endless_is_no_metadata() {
        let deep = format!(r#"{{"issuer":"a","x":{}}}"#, "[".repeat(200_000));
        for body in [
            "",
            "null",
            "[]",
            r#"{"token_endpoint":"https://a"}"#,
            r#"{"issuer":"a","issuer":"b"}"#,
            r#"{"issuer":"a","token_endpoint":"b","token_endpoint":"c"}"#,
            r#"{"issuer":["a"]}"#,
            &deep,
        ] {
            let parsed = Metadata::parse(body.as_bytes());
            assert!(parsed.is_err(), "{}", &body[..body.len().min(60)]);
        }
    }
}
