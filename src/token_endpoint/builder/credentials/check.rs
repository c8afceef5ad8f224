//! The checks of the settings by which the client proves its identity.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::InvalidSetting;
#[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
use crate::token_endpoint::assertion::jwt::SecretJwt;
use crate::token_endpoint::assertion::{AssertionContext, ClientAssertion};
use crate::token_endpoint::authentication::{Authentication, ClientAuthentication, Proof};
use crate::token_endpoint::builder::credentials::{CredentialSettings, ProofSetting};
use crate::token_endpoint::builder::{Client, EndpointSetting};
use crate::token_endpoint::secret_file::SecretFile;

impl CredentialSettings {
    /// Checks that there is exactly one proof, and that it fits the other settings.
    pub(in crate::token_endpoint::builder) fn build(
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
                self.check_no_style(setting)?;
                self.assertion(setting, source?, audience)?
            }
            #[cfg(any(feature = "private-key-jwt", feature = "private-key-jwt-rust-crypto"))]
            ProofSetting::KeyFile(file) => {
                self.check_no_style(setting)?;
                Proof::KeyFile {
                    file: file?,
                    context: self.context(setting, true, audience)?,
                }
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

    /// Checks that no way to send a secret is set.
    fn check_no_style(&self, setting: &'static str) -> Result<(), InvalidSetting> {
        match self.style {
            None => Ok(()),
            Some(style) => Err(InvalidSetting::new(
                "client_authentication",
                format!(
                    "must not be `{style:?}` together with `{setting}`: it is for clients with a \
                     secret"
                ),
            )),
        }
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
