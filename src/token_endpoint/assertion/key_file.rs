//! A private key in a file that something else rotates.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::error::{InvalidSetting, TokenError};
use crate::token_endpoint::assertion::private_key::{PrivateKeyJwt, SigningAlgorithm};
use crate::token_endpoint::credential_file::{CredentialFile, Problem};

/// The file of the client's private key, which signs its assertions (`private_key_jwt`, RFC 7523
/// §2.2) and which something else rotates.
///
/// The file is read for each try of a token request, and never before the first. It holds a key as
/// [`PrivateKeyJwt::from_pem`] or [`PrivateKeyJwt::from_jwk`] reads it. The assertions are those of
/// [`PrivateKeyJwt`].
///
/// A key that is rotated often has another `kid` each time. Store it as a JWK then, which has the
/// `kid` in it, or leave the id out, and the server tries all keys of the client.
///
/// ```
/// use bearer_auth::{ClientCredentials, PrivateKeyFile};
///
/// let source = ClientCredentials::builder("https://identity.example.com/connect/token")
///     .client_id("my-client")
///     .private_key_file(PrivateKeyFile::new("/run/secrets/my-client/key.pem"))
///     .audience("https://identity.example.com")
///     .build()?;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
#[derive(Clone, Debug)]
pub struct PrivateKeyFile {
    path: PathBuf,
    key_id: Option<String>,
    algorithm: Option<SigningAlgorithm>,
}

impl PrivateKeyFile {
    /// Names the file of a private key, in PEM or as a JSON Web Key (RFC 7517). This reads nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            key_id: None,
            algorithm: None,
        }
    }

    /// Sets the id of the key (`kid`, RFC 7515 §4.1.4) by which the server finds its public key.
    ///
    /// Default: that of the JWK, or none.
    #[must_use]
    pub fn key_id(mut self, id: impl Into<String>) -> Self {
        self.key_id = Some(id.into());
        self
    }

    /// Sets the algorithm.
    ///
    /// One that does not fit the key is an error of the token request.
    ///
    /// Default: see [`PrivateKeyJwt::algorithm`].
    #[must_use]
    pub fn algorithm(mut self, algorithm: SigningAlgorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// Reads the key from the content of the file.
    fn parse(self, content: &str) -> Result<PrivateKeyJwt, InvalidSetting> {
        let mut key = if content.starts_with('{') {
            PrivateKeyJwt::from_jwk(content)?
        } else {
            PrivateKeyJwt::from_pem(content)?
        };
        if let Some(id) = self.key_id {
            key = key.key_id(id);
        }
        if let Some(algorithm) = self.algorithm {
            key = key.algorithm(algorithm);
        }
        key.check().map(|()| key)
    }
}

/// Reads a private key from a file for each token request.
pub(crate) struct KeyFile {
    file: CredentialFile,
    settings: PrivateKeyFile,
}

impl KeyFile {
    pub(crate) fn new(settings: PrivateKeyFile) -> Result<Self, InvalidSetting> {
        let path = settings.path.clone();
        let file = CredentialFile::new("private_key_file", "private key file", path)?;
        Ok(Self { file, settings })
    }

    /// Returns the key and the text from which it was read.
    pub(crate) async fn read(&self) -> Result<(PrivateKeyJwt, Zeroizing<String>), TokenError> {
        let settings = self.settings.clone();
        let parse = move |content: &[u8]| parse(content, settings);
        self.file.read(parse).await
    }
}

fn parse(
    content: &[u8],
    settings: PrivateKeyFile,
) -> Result<(PrivateKeyJwt, Zeroizing<String>), Problem> {
    let content = content.trim_ascii();
    if content.is_empty() {
        return Err(Problem::Empty);
    }
    let content = str::from_utf8(content)
        .map_err(|_| Problem::Invalid("must be text: a private key in PEM or a JWK".into()))?;
    let key = settings.parse(content);
    let key = key.map_err(|error| Problem::Invalid(error.into_requirement()))?;
    Ok((key, Zeroizing::new(content.to_owned())))
}
