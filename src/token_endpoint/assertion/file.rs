//! An assertion in a file that something else rotates.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::error::{InvalidSetting, TokenError};
use crate::token_endpoint::assertion::{Assertion, AssertionContext, ClientAssertion};
use crate::token_endpoint::credential_file::{CredentialFile, Problem};

/// Reads an assertion from a file for each token request.
#[derive(Debug)]
pub(crate) struct AssertionFile(CredentialFile);

impl AssertionFile {
    pub(crate) fn new(path: PathBuf) -> Result<Self, InvalidSetting> {
        CredentialFile::new("client_assertion_file", "client assertion file", path).map(Self)
    }
}

#[async_trait]
impl ClientAssertion for AssertionFile {
    async fn assertion(&self, _: &AssertionContext) -> Result<Assertion, TokenError> {
        self.0.read(parse).await
    }
}

fn parse(content: &[u8]) -> Result<Assertion, Problem> {
    let text = content.trim_ascii();
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    let text = str::from_utf8(text).ok();
    let assertion = text.and_then(|text| Assertion::new(text).ok());
    assertion.ok_or(Problem::Invalid(
        "contains no assertion: it must be one or more of the bytes 0x21 to 0x7E".into(),
    ))
}
