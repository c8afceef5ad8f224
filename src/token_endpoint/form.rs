//! The form of a token request (RFC 6749 §4.4.2 and its like), and the checks of what may be in it.

use bytes::Bytes;
use form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::error::InvalidSetting;

/// The fields that grants and client authentication write. A parameter must not overwrite them.
const RESERVED_FIELDS: [&str; 12] = [
    "actor_token",
    "actor_token_type",
    "assertion",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "refresh_token",
    "scope",
    "subject_token",
    "subject_token_type",
];

/// A field that a grant or an authentication writes. Its value may be a secret.
pub(crate) type Field = (&'static str, Zeroizing<String>);

/// The parts of a form, in the order in which they are sent.
pub(crate) struct Form<'a> {
    pub(crate) grant_type: &'a str,
    pub(crate) credentials: &'a [Field],
    pub(crate) grant: &'a [Field],
    /// Not sent if it is empty.
    pub(crate) scope: &'a str,
    pub(crate) params: &'a [(String, String)],
    /// The parameters of the request, which replace others of the same name.
    pub(crate) request_params: &'a [(&'a str, &'a str)],
}

impl Form<'_> {
    /// Returns the form encoded (`application/x-www-form-urlencoded`). The memory is wiped when it
    /// is dropped.
    pub(crate) fn encode(&self) -> Bytes {
        let mut fields = vec![("grant_type", self.grant_type)];
        for (name, value) in self.credentials.iter().chain(self.grant) {
            fields.push((name, value));
        }
        if !self.scope.is_empty() {
            fields.push(("scope", self.scope));
        }
        for (name, value) in self.params {
            if self.request_params.iter().all(|(other, _)| other != name) {
                fields.push((name, value));
            }
        }
        fields.extend(self.request_params);
        // Room for all fields encoded, so that no reallocation leaves a copy of a secret behind.
        let capacity = fields
            .iter()
            .map(|(name, value)| 3 * (name.len() + value.len()) + 2)
            .sum();
        let form = Serializer::new(String::with_capacity(capacity))
            .extend_pairs(fields)
            .finish();
        Bytes::from_owner(Zeroizing::new(form.into_bytes()))
    }
}

/// Checks the name of an additional parameter.
pub(crate) fn check_param(name: &str) -> Result<(), InvalidSetting> {
    if name.is_empty() || RESERVED_FIELDS.contains(&name) {
        return Err(InvalidSetting::new(
            "param",
            "must have a name that is not empty and is no field that this crate writes, such as \
             `grant_type`, `client_id`, `client_secret`, `scope` or `assertion`",
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

    fn params() -> [(String, String); 2] {
        [
            ("resource".into(), "urn:a".into()),
            ("resource".into(), "urn:b".into()),
        ]
    }

    #[test]
    fn fields_are_sent_in_their_order() {
        let form = Form {
            grant_type: "urn:x",
            credentials: &[("client_id", Zeroizing::new("my client".to_owned()))],
            grant: &[("assertion", Zeroizing::new("a.b.c".to_owned()))],
            scope: "tenant/42 b",
            params: &params(),
            request_params: &[],
        };
        let encoded = form.encode();
        let fields: Vec<_> = form_urlencoded::parse(&encoded).collect();
        let expected = [
            ("grant_type", "urn:x"),
            ("client_id", "my client"),
            ("assertion", "a.b.c"),
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
        let form = Form {
            grant_type: "client_credentials",
            credentials: &[],
            grant: &[],
            scope: "",
            params: &params(),
            request_params: &[("audience", "x"), ("resource", "urn:c")],
        };
        assert_eq!(
            form.encode(),
            "grant_type=client_credentials&audience=x&resource=urn%3Ac"
        );
    }

    #[test]
    fn no_parameter_overwrites_a_field_of_the_crate() {
        for name in RESERVED_FIELDS.iter().chain(&[""]) {
            assert_eq!(check_param(name).unwrap_err().setting(), "param", "{name}");
        }
        for name in ["resource", "audience", "requested_token_type", "Scope"] {
            check_param(name).unwrap();
        }
    }
}
