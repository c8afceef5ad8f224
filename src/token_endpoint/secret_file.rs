//! A client secret in a file that something else rotates.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::error::{InvalidSetting, TokenError};
use crate::token_endpoint::credential_file::{CredentialFile, Problem};

/// Reads a secret from a file for each try of a token request.
#[derive(Debug)]
pub(crate) struct SecretFile(CredentialFile);

impl SecretFile {
    pub(crate) fn new(path: PathBuf) -> Result<Self, InvalidSetting> {
        CredentialFile::new("client_secret_file", "client secret file", path).map(Self)
    }

    pub(crate) async fn read(&self) -> Result<Zeroizing<String>, TokenError> {
        self.0.read(parse).await
    }
}

/// Returns the secret without the line break that editors and `echo` add. Spaces belong to it.
fn parse(content: &[u8]) -> Result<Zeroizing<String>, Problem> {
    let invalid = Problem::Invalid(
        "contains no secret: it must be one line of text without control characters".into(),
    );
    let Ok(text) = str::from_utf8(content) else {
        return Err(invalid);
    };
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        Err(Problem::Empty)
    } else if secret.chars().any(char::is_control) {
        Err(invalid)
    } else {
        Ok(Zeroizing::new(secret.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_line_with_its_spaces() {
        for content in [" s e ", " s e \n", " s e \r\n", " s e \n\n"] {
            assert_eq!(*parse(content.as_bytes()).unwrap(), " s e ");
        }
        for content in ["", "\n", "\r\n"] {
            let problem = parse(content.as_bytes()).unwrap_err();
            assert!(matches!(problem, Problem::Empty), "{problem:?}");
        }
        for content in [&b"a\nb"[..], b"a\0", b"a\tb", b"\xff\xfe"] {
            let problem = parse(content).unwrap_err();
            assert!(matches!(problem, Problem::Invalid(_)), "{problem:?}");
        }
    }
}
