//! The client credentials grant as configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{Error, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::InvalidSetting;
use crate::secret::Secret;
use crate::source::client_credentials::{ClientCredentials, ClientCredentialsBuilder};
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::key_file::PrivateKeyFile;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::private_key::SigningAlgorithm as Algorithm;
use crate::token_endpoint::authentication::ClientAuthentication;

/// The name of the algorithm, which nothing reads.
#[cfg(not(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto")))]
type Algorithm = String;

/// True if this crate signs assertions.
const SIGNS: bool = cfg!(any(
    feature = "private-key-jwt",
    feature = "private-key-jwt-rust-crypto"
));

/// The settings of [`ClientCredentials`] in a configuration file or in environment variables, read
/// with serde.
///
/// | field | meaning |
/// |---|---|
/// | `token_url` or `issuer` | one is required: see [`ClientCredentials::builder`] and [`ClientCredentials::discover`] |
/// | `client_id` | required |
/// | `client_secret` | the secret |
/// | `client_secret_file` | the path of a file with the secret, which may be rotated |
/// | `private_key_file` | the path of a file with a private key in PEM or as a JWK, which may be rotated (feature `private-key-jwt`) |
/// | `key_id` | the `kid` of that key; default: that of the JWK, or none |
/// | `algorithm` | `RS256`, `PS256`, `ES256` or `EdDSA`; default: the one that fits the key, and `RS256` for RSA |
/// | `client_assertion_file` | the path of a file with an assertion, such as a projected token of Kubernetes |
/// | `client_authentication` | `client_secret_post` (default for a secret), `client_secret_basic`, `client_secret_basic_raw`, `client_secret_jwt` (feature `private-key-jwt`) or `tls_client_auth`. Not needed for a `private_key_file` or a `client_assertion_file`. `none` is an error of `build`: this grant requires a client that authenticates |
/// | `audience` | the issuer's identifier; required for a `private_key_file` and for `client_secret_jwt`, unless `issuer` is set |
/// | `scope` | names separated by spaces; default: none |
/// | `params` | a table of further fields of the form; default: none |
/// | `allow_http` | for a `token_url`; default: `false` |
///
/// Exactly one of `client_secret`, `client_secret_file`, `private_key_file` and
/// `client_assertion_file` is required. With `tls_client_auth` there is none, and the certificate
/// is set in code, with `reqwest_factory` of the [`builder`](Self::builder).
///
/// Every field but `params` and `allow_http` is a string, so that environment variables suffice.
/// An unknown field, a missing one, and two that exclude each other are errors that name them.
/// Serialized settings do not contain `client_secret`.
///
/// ```
/// use bearer_auth::ClientCredentialsSettings;
///
/// let settings: ClientCredentialsSettings = toml::from_str(
///     r#"
///     issuer = "https://identity.example.com"
///     client_id = "my-client"
///     client_secret_file = "/run/secrets/my-client"
///     scope = "orders.read"
///     "#,
/// )?;
/// let source = settings.builder()?.build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "Fields")]
pub struct ClientCredentialsSettings(Fields);

/// The fields as they are written.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    token_url: Option<String>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    client_id: String,
    #[serde(deserialize_with = "some", skip_serializing)]
    client_secret: Option<Secret>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    client_secret_file: Option<PathBuf>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    private_key_file: Option<PathBuf>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    algorithm: Option<Algorithm>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    client_assertion_file: Option<PathBuf>,
    #[serde(deserialize_with = "style", skip_serializing_if = "Option::is_none")]
    client_authentication: Option<ClientAuthentication>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    #[serde(deserialize_with = "some", skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    params: BTreeMap<String, String>,
    allow_http: bool,
}

impl ClientCredentialsSettings {
    /// Returns a builder with these settings, for those that are set in code, such as the
    /// transport.
    ///
    /// The type of the builder is the same for a `token_url` and for an `issuer`. This reads no
    /// file: each is read for each token request.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if the settings exclude each other.
    /// [`build`](ClientCredentialsBuilder::build) checks all others.
    pub fn builder(&self) -> Result<ClientCredentialsBuilder, InvalidSetting> {
        let fields = &self.0;
        let mut builder = match (&fields.token_url, &fields.issuer) {
            (Some(url), _) => ClientCredentials::builder(url),
            (None, issuer) => ClientCredentials::discover(issuer.as_deref().unwrap_or_default()),
        };
        builder = builder.client_id(&fields.client_id);
        if let Some(secret) = &fields.client_secret {
            builder = builder.client_secret(secret.clone());
        }
        if let Some(path) = &fields.client_secret_file {
            builder = builder.client_secret_file(path);
        }
        #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
        if let Some(path) = &fields.private_key_file {
            let mut file = PrivateKeyFile::new(path);
            if let Some(id) = &fields.key_id {
                file = file.key_id(id);
            }
            if let Some(algorithm) = fields.algorithm {
                file = file.algorithm(algorithm);
            }
            builder = builder.private_key_file(file);
        }
        if let Some(path) = &fields.client_assertion_file {
            builder = builder.client_assertion_file(path);
        }
        if let Some(style) = fields.client_authentication {
            builder = builder.client_authentication(style);
        }
        if let Some(audience) = &fields.audience {
            builder = builder.audience(audience);
        }
        if let Some(scope) = &fields.scope {
            builder = builder.scope(scope);
        }
        if fields.allow_http {
            builder = builder.allow_http();
        }
        for (name, value) in &fields.params {
            builder = builder.param(name, value);
        }
        Ok(builder)
    }
}

impl TryFrom<Fields> for ClientCredentialsSettings {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        fields.check(SIGNS).map(|()| Self(fields))
    }
}

impl Fields {
    /// Checks which fields there are. `signs` is true if this crate signs assertions.
    fn check(&self, signs: bool) -> Result<(), String> {
        if self.client_id.is_empty() {
            return Err("missing field `client_id`".to_owned());
        }
        let has_key = self.private_key_file.is_some();
        for (name, is_set) in [
            ("private_key_file", has_key),
            ("key_id", self.key_id.is_some()),
            ("algorithm", self.algorithm.is_some()),
        ] {
            if is_set && !signs {
                return Err(needs_feature(name));
            }
            if is_set && !has_key {
                return Err(format!(
                    "`{name}` is for a `private_key_file`, and none is set"
                ));
            }
        }
        let endpoint = at_most_one(&[
            ("token_url", self.token_url.is_some()),
            ("issuer", self.issuer.is_some()),
        ])?;
        if endpoint.is_none() {
            return Err("missing field `token_url` or `issuer`".to_owned());
        }
        let proof = at_most_one(&[
            ("client_secret", self.client_secret.is_some()),
            ("client_secret_file", self.client_secret_file.is_some()),
            ("private_key_file", has_key),
            (
                "client_assertion_file",
                self.client_assertion_file.is_some(),
            ),
        ])?;
        // `build` says of `none` that the grant does not allow it.
        let is_without = matches!(
            self.client_authentication,
            Some(ClientAuthentication::TlsClientAuth | ClientAuthentication::None)
        );
        if proof.is_none() && !is_without {
            return Err(
                "missing field `client_secret`, `client_secret_file`, `private_key_file` or \
                 `client_assertion_file`: set one, or `client_authentication` to `tls_client_auth`"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for ClientCredentialsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = &self.0;
        f.debug_struct("ClientCredentialsSettings")
            .field("client_id", &fields.client_id)
            .field("client_secret_file", &fields.client_secret_file)
            .field("private_key_file", &fields.private_key_file)
            .field("key_id", &fields.key_id)
            .field("algorithm", &fields.algorithm)
            .field("client_assertion_file", &fields.client_assertion_file)
            .field("client_authentication", &fields.client_authentication)
            .field("audience", &fields.audience)
            .field("scope", &fields.scope)
            .field("allow_http", &fields.allow_http)
            .finish_non_exhaustive()
    }
}

/// Returns the name of the field that is set, if there is one.
fn at_most_one(fields: &[(&'static str, bool)]) -> Result<Option<&'static str>, String> {
    let mut set = fields.iter().filter(|(_, is_set)| *is_set);
    match (set.next(), set.next()) {
        (Some((one, _)), Some((other, _))) => {
            Err(format!("`{one}` and `{other}` exclude each other: set one"))
        }
        (one, _) => Ok(one.map(|(name, _)| *name)),
    }
}

/// Returns the error of a setting that needs a feature of this crate.
fn needs_feature(setting: &str) -> String {
    format!("`{setting}` needs the feature `private-key-jwt` of the crate `bearer-auth`: enable it")
}

/// Reads the value of an optional field that is there. An `Option` itself cannot be read from a
/// plain string, such as an environment variable.
fn some<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Reads the way in which the client authenticates. Without the feature for signatures, one of them
/// is no variant, and would be said to be unknown.
fn style<'de, D>(deserializer: D) -> Result<Option<ClientAuthentication>, D::Error>
where
    D: Deserializer<'de>,
{
    let name = String::deserialize(deserializer)?;
    if name == "client_secret_jwt" && !SIGNS {
        return Err(D::Error::custom(needs_feature(&name)));
    }
    ClientAuthentication::deserialize(name.into_deserializer()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_feature_that_is_off_names_the_feature() {
        let base = Fields {
            client_id: "id".to_owned(),
            issuer: Some("https://id.example.com".to_owned()),
            ..Fields::default()
        };
        let file = Some(PathBuf::from("f"));
        let key = Fields {
            private_key_file: file.clone(),
            ..base.clone()
        };
        let id = Fields {
            key_id: Some("k".to_owned()),
            ..base.clone()
        };
        for (fields, name) in [(&key, "`private_key_file`"), (&id, "`key_id`")] {
            let error = fields.check(false).unwrap_err();
            assert!(error.contains(name), "{error}");
            assert!(error.contains("`private-key-jwt`"), "{error}");
        }
        key.check(true).unwrap();
        let assertion = Fields {
            client_assertion_file: file,
            ..base
        };
        assertion.check(false).unwrap();
    }
}
