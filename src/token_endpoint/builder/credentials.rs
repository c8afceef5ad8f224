//! The settings by which the client proves its identity.

use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::InvalidSetting;
use crate::secret::Secret;
use crate::token_endpoint::assertion::file::AssertionFile;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::jwt::SecretJwt;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::private_key::PrivateKeyJwt;
use crate::token_endpoint::assertion::{AssertionContext, ClientAssertion};
use crate::token_endpoint::authentication::{Authentication, ClientAuthentication, Proof};
use crate::token_endpoint::builder::{Client, EndpointSetting, GrantBuilder};
use crate::token_endpoint::secret_file::SecretFile;

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
    /// [`client_assertion_file`](Self::client_assertion_file) and `private_key_jwt` (feature
    /// `private-key-jwt`), is required.
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
    /// A file that is missing, empty or cannot be read is a transient error, since it may be in mid
    /// rotation: the cache tries again. A file that is longer than 64 KiB or has control characters
    /// in it, or a path that is no regular file, is a permanent error. Errors name the path, never
    /// the content. A file of which only a part is written cannot be told from a whole one: replace
    /// it by renaming another.
    ///
    /// Default: none.
    pub fn client_secret_file(self, path: impl Into<PathBuf>) -> Self {
        let file = SecretFile::new(path.into());
        self.proof("client_secret_file", ProofSetting::SecretFile(file))
    }

    /// Sets the way in which id and secret are sent (RFC 6749 §2.3.1).
    ///
    /// Default: [`ClientAuthentication::SecretPost`]. For a client without a secret it is an error
    /// of [`build`](Self::build).
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
    /// transient error, since it may be in mid rotation: the cache tries again. A file that is
    /// longer than 64 KiB, has text in it that is no assertion, or is none at all, such as a
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
            (None, Some((setting, ProofSetting::Assertion(_)))) => setting,
            (Some(style), _) => style,
            _ => &ClientAuthentication::SecretPost,
        }
    }

    /// Checks that there is exactly one proof, and that it fits the other settings.
    pub(super) fn build(
        mut self,
        endpoint: &EndpointSetting,
        required: Client,
    ) -> Result<Authentication, InvalidSetting> {
        let is_anonymous = self.client_id.is_empty() && self.proofs.is_empty();
        if required != Client::Optional || !is_anonymous {
            check_credential("client_id", &self.client_id)?;
        }
        if self.is_public(required)? {
            return Ok(Authentication {
                client_id: self.client_id,
                proof: Proof::None,
            });
        }
        let audience = self.audience(endpoint)?;
        if self.style == Some(ClientAuthentication::TlsClientAuth) {
            return self.certificate(audience);
        }
        let Some((setting, proof)) = self.proofs.pop() else {
            return Err(InvalidSetting::new(
                "client_secret",
                "must not be empty, unless the client authenticates by an assertion",
            ));
        };
        if let Some((other, _)) = self.proofs.first() {
            return Err(InvalidSetting::new(
                setting,
                format!("must not be set together with `{other}`: a client authenticates once"),
            ));
        }
        let proof = match proof {
            ProofSetting::Secret(secret) => self.secret(secret, audience)?,
            ProofSetting::SecretFile(file) => self.secret_file(file?, audience)?,
            ProofSetting::Assertion(source) => {
                if let Some(style) = self.style {
                    return Err(InvalidSetting::new(
                        "client_authentication",
                        format!(
                            "must not be `{style:?}` together with `{setting}`: it is for clients \
                             with a secret"
                        ),
                    ));
                }
                self.assertion(setting, source?, audience)?
            }
        };
        Ok(Authentication {
            client_id: self.client_id,
            proof,
        })
    }

    /// Returns true if the client has no proof and needs none.
    fn is_public(&self, required: Client) -> Result<bool, InvalidSetting> {
        let is_public = match self.style {
            Some(style) => style == ClientAuthentication::None,
            None => required == Client::Optional && self.proofs.is_empty(),
        };
        if !is_public {
            return Ok(false);
        }
        if required == Client::Authenticated {
            return Err(InvalidSetting::new(
                "client_authentication",
                "must not be `None` with the client credentials grant (RFC 6749 §4.4)",
            ));
        }
        match self.proofs.first() {
            None => Ok(true),
            Some((setting, _)) => Err(InvalidSetting::new(
                "client_authentication",
                format!("must not be `None` together with `{setting}`"),
            )),
        }
    }

    /// Returns the authentication by the certificate of the transport.
    fn certificate(self, audience: Option<String>) -> Result<Authentication, InvalidSetting> {
        if let Some((setting, _)) = self.proofs.first() {
            return Err(InvalidSetting::new(
                "client_authentication",
                format!(
                    "must not be `TlsClientAuth` together with `{setting}`: a client authenticates \
                     once"
                ),
            ));
        }
        without_audience("TlsClientAuth", audience)?;
        Ok(Authentication {
            client_id: self.client_id,
            proof: Proof::Certificate,
        })
    }

    /// Returns the audience that is set.
    fn audience(&mut self, endpoint: &EndpointSetting) -> Result<Option<String>, InvalidSetting> {
        if let EndpointSetting::Issuer(issuer) = endpoint {
            self.issuer = Some(issuer.clone());
        }
        match (self.audience.take(), self.token_url_as_audience) {
            (None, false) => Ok(None),
            (None, true) => match endpoint {
                EndpointSetting::Url(url) => Ok(Some(url.clone())),
                EndpointSetting::Issuer(_) => Err(InvalidSetting::new(
                    "token_url_as_audience",
                    "must not be set with `discover`, since no audience is taken from metadata",
                )),
            },
            (Some(audience), false) => {
                check_credential("audience", &audience)?;
                Ok(Some(audience))
            }
            (Some(_), true) => Err(InvalidSetting::new(
                "audience",
                "must not be set together with `token_url_as_audience`: an assertion has one \
                 audience",
            )),
        }
    }

    fn secret(
        &self,
        secret: Zeroizing<String>,
        audience: Option<String>,
    ) -> Result<Proof, InvalidSetting> {
        check_credential("client_secret", &secret)?;
        let style = self.secret_style()?;
        #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
        if style == ClientAuthentication::SecretJwt {
            let secret = SecretJwt::new(&secret)?;
            return self.assertion("client_secret_jwt", Arc::new(secret), audience);
        }
        without_audience("client_secret", audience)?;
        Ok(Proof::Secret { secret, style })
    }

    fn secret_file(
        &self,
        file: SecretFile,
        audience: Option<String>,
    ) -> Result<Proof, InvalidSetting> {
        let style = self.secret_style()?;
        #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
        let is_jwt = style == ClientAuthentication::SecretJwt;
        #[cfg(not(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto")))]
        let is_jwt = false;
        let context = if is_jwt {
            self.context("client_secret_jwt", true, audience)?
        } else {
            without_audience("client_secret_file", audience)?;
            AssertionContext::new(&self.client_id)
        };
        Ok(Proof::SecretFile {
            file,
            style,
            context,
        })
    }

    /// Returns the way in which a secret is sent.
    fn secret_style(&self) -> Result<ClientAuthentication, InvalidSetting> {
        let style = self.style.unwrap_or_default();
        if style == ClientAuthentication::SecretBasicRaw && self.client_id.contains(':') {
            return Err(InvalidSetting::new(
                "client_id",
                "must not contain a colon with `SecretBasicRaw`, since a colon separates id and \
                 secret",
            ));
        }
        Ok(style)
    }

    fn assertion(
        &self,
        method: &'static str,
        source: Arc<dyn ClientAssertion>,
        audience: Option<String>,
    ) -> Result<Proof, InvalidSetting> {
        let context = self.context(method, source.needs_audience(), audience)?;
        Ok(Proof::Assertion {
            method,
            source,
            context,
        })
    }

    fn context(
        &self,
        method: &'static str,
        needs_audience: bool,
        audience: Option<String>,
    ) -> Result<AssertionContext, InvalidSetting> {
        let audience = audience.or_else(|| self.issuer.clone());
        if needs_audience && audience.is_none() {
            return Err(InvalidSetting::new(
                "audience",
                format!(
                    "must be set with `{method}`: the issuer's identifier, such as \
                     `https://identity.example.com` (`token_url_as_audience` is for servers that \
                     do not accept it)"
                ),
            ));
        }
        let mut context = AssertionContext::new(&self.client_id);
        if let Some(audience) = audience {
            context = context.with_audience(audience);
        }
        Ok(context)
    }
}

fn without_audience(setting: &'static str, audience: Option<String>) -> Result<(), InvalidSetting> {
    match audience {
        None => Ok(()),
        Some(_) => Err(InvalidSetting::new(
            "audience",
            format!(
                "must not be set with `{setting}`, since it is the audience of assertions: use \
                 `param(\"audience\", …)` for a parameter of the token request"
            ),
        )),
    }
}

fn check_credential(setting: &'static str, value: &str) -> Result<(), InvalidSetting> {
    if value.is_empty() {
        Err(InvalidSetting::new(setting, "must not be empty"))
    } else if value.chars().any(char::is_control) {
        Err(InvalidSetting::new(
            setting,
            "must not contain control characters (was a line break read with it?)",
        ))
    } else {
        Ok(())
    }
}
