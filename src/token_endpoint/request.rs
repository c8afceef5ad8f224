//! The token request of the client credentials grant (RFC 6749 §4.4.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use zeroize::Zeroizing;

use crate::error::InvalidSetting;
use crate::policy::origin::{Target, is_loopback};

/// The way in which the client authenticates to the token endpoint (RFC 6749 §2.3.1).
///
/// A token request uses exactly one, and the cache never tries another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// Sends `client_id` and `client_secret` as fields of the form (`client_secret_post`).
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "client_secret_post"))]
    SecretPost,
    /// Sends HTTP Basic with id and secret form-encoded first, as RFC 6749 §2.3.1 requires
    /// (`client_secret_basic`). A space is sent as `%20`, which every server decodes.
    #[cfg_attr(feature = "serde", serde(rename = "client_secret_basic"))]
    SecretBasic,
    /// Sends HTTP Basic with id and secret as they are, for servers that do not decode them. The
    /// id must not contain a colon.
    #[cfg_attr(feature = "serde", serde(rename = "client_secret_basic_raw"))]
    SecretBasicRaw,
}

/// The form fields that an additional parameter must not overwrite.
const STANDARD_FIELDS: [&str; 4] = ["grant_type", "client_id", "client_secret", "scope"];

/// The parts of a token request that are the same for every call.
pub(crate) struct TokenRequestTemplate {
    pub(crate) token_url: Uri,
    pub(crate) client_id: String,
    pub(crate) client_secret: Zeroizing<String>,
    pub(crate) authentication: ClientAuthentication,
    pub(crate) params: Vec<(String, String)>,
}

impl TokenRequestTemplate {
    /// Returns the token request for `scope`. An empty scope is not sent. `params` replace the
    /// template's parameters of the same name.
    pub(crate) fn request(&self, scope: &str, params: &[(&str, &str)]) -> Request<Bytes> {
        let mut request = Request::new(self.body(scope, params));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.token_url.clone();
        let headers = request.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Few transports decode, and a token is too short to gain from compression.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = self.authorization() {
            headers.insert(AUTHORIZATION, authorization);
        }
        request
    }

    fn body(&self, scope: &str, params: &[(&str, &str)]) -> Bytes {
        let mut fields = vec![("grant_type", "client_credentials")];
        if self.authentication == ClientAuthentication::SecretPost {
            fields.push(("client_id", &self.client_id));
            fields.push(("client_secret", &self.client_secret));
        }
        if !scope.is_empty() {
            fields.push(("scope", scope));
        }
        let own = self
            .params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        fields.extend(own.filter(|(name, _)| params.iter().all(|(other, _)| other != name)));
        fields.extend(params);
        // Room for all fields encoded, so that no reallocation leaves a copy of the secret behind.
        let capacity = fields
            .iter()
            .map(|(name, value)| 3 * (name.len() + value.len()) + 2)
            .sum();
        let form = Serializer::new(String::with_capacity(capacity))
            .extend_pairs(fields)
            .finish();
        Bytes::from_owner(Zeroizing::new(form.into_bytes()))
    }

    fn authorization(&self) -> Option<HeaderValue> {
        let (id, secret) = (&*self.client_id, &**self.client_secret);
        // Room for both encoded, so that no reallocation leaves a copy of the secret behind.
        let mut credentials =
            Zeroizing::new(String::with_capacity(3 * (id.len() + secret.len()) + 1));
        match self.authentication {
            ClientAuthentication::SecretPost => return None,
            ClientAuthentication::SecretBasic => {
                push_encoded(&mut credentials, id);
                credentials.push(':');
                push_encoded(&mut credentials, secret);
            }
            ClientAuthentication::SecretBasicRaw => {
                credentials.push_str(id);
                credentials.push(':');
                credentials.push_str(secret);
            }
        }
        let mut line = Zeroizing::new(String::with_capacity(6 + 4 * (credentials.len() / 3 + 1)));
        line.push_str("Basic ");
        STANDARD.encode_string(credentials.as_bytes(), &mut line);
        let owned = Zeroizing::new(line.as_bytes().to_vec());
        // Base64 is always a valid header value.
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(owned)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Appends `text` form-encoded, with spaces as `%20`.
fn push_encoded(to: &mut String, text: &str) {
    for piece in byte_serialize(text.as_bytes()) {
        // A plus sign itself is encoded as `%2B`, so this is a space.
        to.push_str(if piece == "+" { "%20" } else { piece });
    }
}

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

/// Checks the name of an additional parameter.
pub(crate) fn check_param(name: &str) -> Result<(), InvalidSetting> {
    if name.is_empty() || STANDARD_FIELDS.contains(&name) {
        return Err(InvalidSetting::new(
            "param",
            "must have a name that is not empty and is none of `grant_type`, `client_id`, \
             `client_secret` and `scope`",
        ));
    }
    Ok(())
}

/// Checks a scope (RFC 6749 §3.3): names of the bytes 0x21, 0x23 to 0x5B and 0x5D to 0x7E,
/// separated by spaces.
pub(crate) fn check_scope(scope: &str) -> Result<(), InvalidSetting> {
    let is_allowed = |byte: u8| matches!(byte, b' ' | 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    if scope.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err(InvalidSetting::new(
            "scope",
            "must be names of visible ASCII without `\"` and `\\`, separated by spaces (RFC 6749 \
             §3.3)",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL_SECRET: &str = "p@ss:w%rd&=+ /";

    fn template(authentication: ClientAuthentication) -> TokenRequestTemplate {
        TokenRequestTemplate {
            token_url: "https://id.example.com/token".parse().unwrap(),
            client_id: "my client".to_owned(),
            client_secret: Zeroizing::new(SPECIAL_SECRET.to_owned()),
            authentication,
            params: vec![
                ("resource".into(), "urn:a".into()),
                ("resource".into(), "urn:b".into()),
            ],
        }
    }

    fn basic(request: &Request<Bytes>) -> String {
        let value = &request.headers()[AUTHORIZATION];
        assert!(value.is_sensitive());
        let encoded = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
        String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn secret_post_sends_the_secret_only_in_the_form() {
        let request = template(ClientAuthentication::SecretPost).request("tenant/42 b", &[]);
        assert_eq!(request.method(), Method::POST);
        assert_eq!(
            request.headers()[CONTENT_TYPE],
            "application/x-www-form-urlencoded"
        );
        assert_eq!(request.headers()[ACCEPT], "application/json");
        assert_eq!(request.headers()[ACCEPT_ENCODING], "identity");
        assert!(!request.headers().contains_key(AUTHORIZATION));
        let fields: Vec<_> = form_urlencoded::parse(request.body()).collect();
        let expected = [
            ("grant_type", "client_credentials"),
            ("client_id", "my client"),
            ("client_secret", SPECIAL_SECRET),
            ("scope", "tenant/42 b"),
            ("resource", "urn:a"),
            ("resource", "urn:b"),
        ];
        assert_eq!(
            fields,
            expected.map(|(name, value)| (name.into(), value.into()))
        );
    }

    #[test]
    fn parameters_of_a_request_replace_those_of_the_source() {
        let template = template(ClientAuthentication::SecretBasic);
        let request = template.request("", &[("audience", "x"), ("resource", "urn:c")]);
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        assert_eq!(
            body,
            "grant_type=client_credentials&audience=x&resource=urn%3Ac"
        );
    }

    #[test]
    fn secret_basic_sends_the_secret_only_in_the_header() {
        let request = template(ClientAuthentication::SecretBasic).request("", &[]);
        assert_eq!(
            basic(&request),
            "my%20client:p%40ss%3Aw%25rd%26%3D%2B%20%2F"
        );
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        assert_eq!(
            body,
            "grant_type=client_credentials&resource=urn%3Aa&resource=urn%3Ab"
        );

        let request = template(ClientAuthentication::SecretBasicRaw).request("", &[]);
        assert_eq!(basic(&request), format!("my client:{SPECIAL_SECRET}"));
    }

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
