//! An assertion in a file that something else rotates.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::error::{InvalidSetting, TokenError};
use crate::token_endpoint::assertion::{Assertion, AssertionContext, ClientAssertion};

/// The maximum length of the file, in bytes. An assertion has a few kilobytes at most.
const LONGEST_FILE: usize = 64 * 1024;

/// Reads an assertion from a file for each token request.
#[derive(Debug)]
pub(crate) struct AssertionFile(Arc<Path>);

impl AssertionFile {
    pub(crate) fn new(path: PathBuf) -> Result<Self, InvalidSetting> {
        if path.as_os_str().is_empty() {
            return Err(InvalidSetting::new(
                "client_assertion_file",
                "must not be empty",
            ));
        }
        Ok(Self(path.into()))
    }
}

#[async_trait]
impl ClientAssertion for AssertionFile {
    async fn assertion(&self, _: &AssertionContext) -> Result<Assertion, TokenError> {
        let path = Arc::clone(&self.0);
        // The task ends early only if its runtime shuts down.
        tokio::task::spawn_blocking(move || read(&path))
            .await
            .map_err(TokenError::transient)?
            .map_err(|problem| {
                let is_transient = matches!(problem, Problem::Unreadable(_) | Problem::Empty);
                let error = FileError {
                    path: Arc::clone(&self.0),
                    problem,
                };
                if is_transient {
                    TokenError::transient(error)
                } else {
                    TokenError::permanent(error)
                }
            })
    }
}

fn read(path: &Path) -> Result<Assertion, Problem> {
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
    let text = content.trim_ascii();
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    let text = str::from_utf8(text).map_err(|_| Problem::NoAssertion)?;
    Assertion::new(text).map_err(|_| Problem::NoAssertion)
}

/// The error of a file, which names its path but none of its content.
#[derive(Debug)]
struct FileError {
    path: Arc<Path>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Unreadable(io::Error),
    Empty,
    NotAFile,
    TooLong,
    NoAssertion,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client assertion file {:?} ", self.path)?;
        match &self.problem {
            Problem::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Problem::Empty => f.write_str("is empty"),
            Problem::NotAFile => f.write_str("is not a regular file"),
            Problem::TooLong => write!(f, "is longer than {LONGEST_FILE} bytes"),
            Problem::NoAssertion => f.write_str(
                "contains no assertion: it must be one or more of the bytes 0x21 to 0x7E",
            ),
        }
    }
}

impl std::error::Error for FileError {}
