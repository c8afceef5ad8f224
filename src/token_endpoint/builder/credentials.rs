//! The settings by which the client proves its identity.

use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::InvalidSetting;
use crate::secret::Secret;
use crate::token_endpoint::assertion::ClientAssertion;
use crate::token_endpoint::assertion::file::AssertionFile;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::key_file::{KeyFile, PrivateKeyFile};
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::private_key::PrivateKeyJwt;
use crate::token_endpoint::authentication::ClientAuthentication;
use crate::token_endpoint::builder::GrantBuilder;
use crate::token_endpoint::secret_file::SecretFile;

mod check;

/// The client's id and the proofs of its identity, of which `build` accepts exactly one.
#[derive(Default)]
pub(super) struct CredentialSettings {
    pub(super) client_id: String,
    /// Each proof with the name of its setter.
    proofs: Vec<(&'static str, ProofSetting)>,
    style: Option<ClientAuthentication>,
    audience: Option<String>,
    token_url_as_audience: bool,
    /// The audience of assertions for which none is set.
    issuer: Option<String>,
}

enum ProofSetting {
    Secret(Zeroizing<String>),
    SecretFile(Result<SecretFile, InvalidSetting>),
    /// An assertion, or the reason why there can be none.
    Assertion(Result<Arc<dyn ClientAssertion>, InvalidSetting>),
    #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
    KeyFile(Result<KeyFile, InvalidSetting>),
}

impl<G> GrantBuilder<G> {
    /// Sets the client's id (RFC 6749 §2.2).
    ///
    /// Default: none. It is required.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.credentials.client_id = id.into();
        self
    }

    /// Sets the client's secret (RFC 6749 §2.3.1).
    ///
    /// Default: none. The secret, or one of [`client_secret_file`](Self::client_secret_file),
    /// [`client_assertion`](Self::client_assertion),
    /// [`client_assertion_file`](Self::client_assertion_file), `private_key_jwt` and
    /// `private_key_file` (feature `private-key-jwt`), is required, unless
    /// [`client_authentication`](Self::client_authentication) is
    /// [`TlsClientAuth`](ClientAuthentication::TlsClientAuth) or, with a grant other than client
    /// credentials, [`None`](ClientAuthentication::None). `JwtBearer` requires none of them.
    pub fn client_secret(self, secret: impl Into<Secret>) -> Self {
        let secret = secret.into().into_inner();
        self.proof("client_secret", ProofSetting::Secret(secret))
    }

    /// Sets the file of the client's secret (RFC 6749 §2.3.1), which something else rotates.
    ///
    /// The file is read for each try of a token request, on a thread that may block. Line breaks at
    /// its end do not belong to the secret. If the server does not accept the client
    /// (`invalid_client`, or 401 without a code), the file is read once more, and the token request
    /// is sent a second time if the secret has changed: a rotation costs no caller an error.
    /// Otherwise the error stands, with the usual pause.
    ///
    /// A file that is missing, empty or cannot be read is a transient error, since that may happen
    /// during a rotation: the cache tries again. A file that is longer than 64 KiB or has control
    /// characters in it, or a path that is no regular file, is a permanent error. Errors name the
    /// path, never the content. A file of which only a part is written cannot be told from a whole
    /// one: replace it by renaming another.
    ///
    /// Default: none.
    pub fn client_secret_file(self, path: impl Into<PathBuf>) -> Self {
        let file = SecretFile::new(path.into());
        self.proof("client_secret_file", ProofSetting::SecretFile(file))
    }

    /// Sets the way in which the client authenticates (RFC 6749 §2.3.1).
    ///
    /// The ways that need a secret are an error of [`build`](Self::build) without one, and
    /// [`TlsClientAuth`](ClientAuthentication::TlsClientAuth) and
    /// [`None`](ClientAuthentication::None) are one with a secret, an assertion or a key. Do not
    /// set a way for a client with an assertion or a key. The client credentials grant does not
    /// allow `None`.
    ///
    /// Default: [`SecretPost`](ClientAuthentication::SecretPost) for a client with a secret.
    pub fn client_authentication(mut self, style: ClientAuthentication) -> Self {
        self.credentials.style = Some(style);
        self
    }

    /// Authenticates the client by assertions that your own code makes (RFC 7523 §2.2), for example
    /// with a key in a KMS or an HSM.
    ///
    /// An assertion is made for each try of a token request, within
    /// [`try_timeout`](Self::try_timeout). It is sent as `client_assertion`, with the
    /// `client_assertion_type` of a JWT.
    ///
    /// Default: none.
    pub fn client_assertion(self, assertion: impl ClientAssertion) -> Self {
        let assertion = ProofSetting::Assertion(Ok(Arc::new(assertion)));
        self.proof("client_assertion", assertion)
    }

    /// Authenticates the client by the assertion in a file that something else rotates (RFC 7523
    /// §2.2): a workload identity of Kubernetes, SPIFFE or Entra.
    ///
    /// The file is read for each try of a token request, on a thread that may block. White space
    /// around the assertion is ignored. A file that is missing, empty or cannot be read is a
    /// transient error, since that may happen during a rotation: the cache tries again. A file that
    /// is longer than 64 KiB, has text in it that is no assertion, or is none at all, such as a
    /// directory, is a permanent error. Errors name the path, never the content.
    ///
    /// Default: none.
    pub fn client_assertion_file(self, path: impl Into<PathBuf>) -> Self {
        let file = AssertionFile::new(path.into()).map(|file| Arc::new(file) as _);
        self.proof("client_assertion_file", ProofSetting::Assertion(file))
    }

    /// Authenticates the client by assertions that its private key signs (`private_key_jwt`,
    /// RFC 7523 §2.2). It needs an [`audience`](Self::audience).
    ///
    /// Default: none.
    #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
    pub fn private_key_jwt(self, key: PrivateKeyJwt) -> Self {
        let key = key.check().map(|()| Arc::new(key) as _);
        self.proof("private_key_jwt", ProofSetting::Assertion(key))
    }

    /// Authenticates the client by assertions that the private key in a file signs
    /// (`private_key_jwt`, RFC 7523 §2.2), which something else rotates. It needs an
    /// [`audience`](Self::audience).
    ///
    /// The file is read for each try of a token request, on a thread that may block. If the server
    /// does not accept the client (`invalid_client`, or 401 without a code), the file is read once
    /// more, and the token request is sent a second time if the key has changed. Otherwise the
    /// error stands, with the usual pause.
    ///
    /// A file that is missing, empty or cannot be read is a transient error, since it may be in mid
    /// rotation: the cache tries again. A file that holds no key, or one that does not fit the
    /// algorithm, is a permanent error. Errors name the path, never the content.
    ///
    /// Default: none.
    #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
    pub fn private_key_file(self, file: PrivateKeyFile) -> Self {
        let file = KeyFile::new(file);
        self.proof("private_key_file", ProofSetting::KeyFile(file))
    }

    /// Sets the audience of assertions (RFC 7523 §3), which is the issuer's identifier, such as
    /// `https://identity.example.com`. It is sent exactly as it is written here.
    ///
    /// This is not the parameter `audience` of a token request, which some servers expect: use
    /// [`param`](Self::param) for it.
    ///
    /// Default: the issuer, if the builder was made by
    /// [`discover`](crate::ClientCredentials::discover); else none. Assertions that are made here
    /// or by a [`ClientAssertion`] that needs one require it.
    pub fn audience(mut self, issuer: impl Into<String>) -> Self {
        self.credentials.audience = Some(issuer.into());
        self
    }

    /// Uses the token URL as the audience of assertions, exactly as it was given to the builder.
    ///
    /// This is for servers that do not accept their issuer identifier as the audience. Prefer
    /// [`audience`](Self::audience): an assertion for a token URL can be misused if that URL was
    /// chosen by somebody else, and servers are moving away from it. With an issuer instead of a
    /// token URL it is an error of [`build`](Self::build): no audience is taken from metadata.
    ///
    /// Default: not used.
    pub fn token_url_as_audience(mut self) -> Self {
        self.credentials.token_url_as_audience = true;
        self
    }

    /// Adds a proof, or replaces the one of the same setter.
    fn proof(mut self, setting: &'static str, proof: ProofSetting) -> Self {
        let proofs = &mut self.credentials.proofs;
        proofs.retain(|(other, _)| *other != setting);
        proofs.push((setting, proof));
        self
    }
}

impl CredentialSettings {
    /// Returns the name of the way in which the client will authenticate, for `Debug`.
    pub(super) fn style(&self) -> &dyn std::fmt::Debug {
        match (&self.style, self.proofs.first()) {
            (Some(style), _) => style,
            (None, None | Some((_, ProofSetting::Secret(_) | ProofSetting::SecretFile(_)))) => {
                &ClientAuthentication::SecretPost
            }
            (None, Some((setting, _))) => setting,
        }
    }
}
