//! A credential in a file that something else rotates.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{InvalidSetting, TokenError, TokenErrorKind};

/// The maximum length of the file, in bytes. A credential has a few kilobytes at most.
const LONGEST_FILE: usize = 64 * 1024;

/// A file that is read for each token request.
#[derive(Debug)]
pub(crate) struct CredentialFile {
    /// The name of the file in errors.
    name: &'static str,
    path: Arc<Path>,
}

impl CredentialFile {
    /// `name` is that of the file in errors. The error of an empty path names `setting`.
    pub(crate) fn new(
        setting: &'static str,
        name: &'static str,
        path: PathBuf,
    ) -> Result<Self, InvalidSetting> {
        if path.as_os_str().is_empty() {
            return Err(InvalidSetting::new(setting, "must not be empty"));
        }
        Ok(Self {
            name,
            path: path.into(),
        })
    }

    /// Reads the file on a thread that may block.
    ///
    /// # Errors
    ///
    /// Returns a transient error if the file is missing, empty or cannot be read, as a file in mid
    /// rotation may be, and a permanent one for any other content that `parse` does not accept.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        parse: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, TokenError> {
        let path = Arc::clone(&self.path);
        // The task ends early only if its runtime shuts down.
        tokio::task::spawn_blocking(move || read(&path, parse))
            .await
            .map_err(TokenError::transient)?
            .map_err(|problem| {
                let is_transient = matches!(problem, Problem::Unreadable(_) | Problem::Empty);
                let error = FileError {
                    name: self.name,
                    path: Arc::clone(&self.path),
                    problem,
                };
                TokenError::new(TokenErrorKind::CredentialFile, is_transient).with_cause(error)
            })
    }
}

fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, Problem>) -> Result<T, Problem> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(Problem::Unreadable)?.is_file() {
        return Err(Problem::NotAFile);
    }
    let file = File::open(path).map_err(Problem::Unreadable)?;
    // Room for all of it, so that no reallocation leaves a copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(LONGEST_FILE + 1));
    file.take(LONGEST_FILE as u64 + 1)
        .read_to_end(&mut content)
        .map_err(Problem::Unreadable)?;
    if content.len() > LONGEST_FILE {
        return Err(Problem::TooLong);
    }
    parse(&content)
}

/// The error of a file, which names its path but none of its content.
#[derive(Debug)]
struct FileError {
    name: &'static str,
    path: Arc<Path>,
    problem: Problem,
}

/// The reason why there is no credential.
#[derive(Debug)]
pub(crate) enum Problem {
    Unreadable(io::Error),
    Empty,
    NotAFile,
    TooLong,
    /// It has another content, as this text says.
    Invalid(Cow<'static, str>),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} {:?} ", self.name, self.path)?;
        match &self.problem {
            Problem::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Problem::Empty => f.write_str("is empty"),
            Problem::NotAFile => f.write_str("is not a regular file"),
            Problem::TooLong => write!(f, "is longer than {LONGEST_FILE} bytes"),
            Problem::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for FileError {}
