//! The client credentials grant as configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::InvalidSetting;
use crate::secret::Secret;
use crate::source::client_credentials::{ClientCredentials, ClientCredentialsBuilder};
use crate::token_endpoint::authentication::ClientAuthentication;

/// The settings of [`ClientCredentials`] in a configuration file or in environment variables, read
/// with serde.
///
/// | field | meaning |
/// |---|---|
/// | `token_url` | required, see [`ClientCredentials::builder`] |
/// | `client_id` | required |
/// | `client_secret` or `client_secret_file` | one is required: the secret, or the path of a file with it, which may be rotated |
/// | `scope` | names separated by spaces; default: none |
/// | `client_authentication` | `client_secret_post` (default), `client_secret_basic` or `client_secret_basic_raw` |
/// | `params` | a table of further fields of the form; default: none |
/// | `allow_http` | default: `false` |
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
///     token_url = "https://identity.example.com/connect/token"
///     client_id = "my-client"
///     client_secret = "s3cret"
///     scope = "orders.read"
///     "#,
/// )?;
/// let source = settings.builder()?.build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "Fields")]
pub struct ClientCredentialsSettings {
    token_url: String,
    client_id: String,
    #[serde(skip_serializing_if = "SecretSetting::is_value", flatten)]
    secret: SecretSetting,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    client_authentication: ClientAuthentication,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    params: BTreeMap<String, String>,
    allow_http: bool,
}

/// The secret, or where it is.
#[derive(Clone, Serialize)]
enum SecretSetting {
    #[serde(skip)]
    Value(Secret),
    #[serde(rename = "client_secret_file")]
    File(PathBuf),
}

/// The fields as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    token_url: String,
    client_id: String,
    #[serde(default, deserialize_with = "some")]
    client_secret: Option<Secret>,
    #[serde(default, deserialize_with = "some")]
    client_secret_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "some")]
    scope: Option<String>,
    #[serde(default)]
    client_authentication: ClientAuthentication,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    allow_http: bool,
}

impl ClientCredentialsSettings {
    /// Returns a builder with these settings, for those that are set in code, such as the
    /// transport.
    ///
    /// This reads no file: a `client_secret_file` is read for each token request.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if the settings exclude each other.
    /// [`build`](ClientCredentialsBuilder::build) checks all others.
    pub fn builder(&self) -> Result<ClientCredentialsBuilder, InvalidSetting> {
        let mut builder = ClientCredentials::builder(&self.token_url)
            .client_id(&self.client_id)
            .client_authentication(self.client_authentication);
        builder = match &self.secret {
            SecretSetting::Value(secret) => builder.client_secret(secret.clone()),
            SecretSetting::File(path) => builder.client_secret_file(path),
        };
        if let Some(scope) = &self.scope {
            builder = builder.scope(scope);
        }
        if self.allow_http {
            builder = builder.allow_http();
        }
        for (name, value) in &self.params {
            builder = builder.param(name, value);
        }
        Ok(builder)
    }
}

impl TryFrom<Fields> for ClientCredentialsSettings {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let secret = match (fields.client_secret, fields.client_secret_file) {
            (Some(secret), None) => SecretSetting::Value(secret),
            (None, Some(path)) => SecretSetting::File(path),
            (None, None) => return Err("missing field `client_secret` or `client_secret_file`"),
            (Some(_), Some(_)) => {
                return Err("`client_secret` and `client_secret_file` exclude each other: set one");
            }
        };
        Ok(Self {
            token_url: fields.token_url,
            client_id: fields.client_id,
            secret,
            scope: fields.scope,
            client_authentication: fields.client_authentication,
            params: fields.params,
            allow_http: fields.allow_http,
        })
    }
}

impl SecretSetting {
    fn is_value(&self) -> bool {
        matches!(self, Self::Value(_))
    }
}

impl fmt::Debug for ClientCredentialsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = match &self.secret {
            SecretSetting::Value(_) => None,
            SecretSetting::File(path) => Some(path),
        };
        f.debug_struct("ClientCredentialsSettings")
            .field("client_id", &self.client_id)
            .field("client_secret_file", &file)
            .field("client_authentication", &self.client_authentication)
            .field("scope", &self.scope)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Reads the value of an optional field that is there. An `Option` itself cannot be read from a
/// plain string, such as an environment variable.
fn some<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}
