//! A source that reads a file which something else rotates.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::clock;
use crate::error::{InvalidSetting, TokenError};
use crate::source::TokenSource;
use crate::token::AccessToken;
use crate::token::jwt::JwtTimes;
use crate::token::request::TokenRequest;

/// The longest file that is read, in bytes. Few servers accept a header of that length.
const LONGEST_FILE: u64 = 64 * 1024;

/// A source that returns the token in a file which something else rotates, such as a projected
/// service account token of Kubernetes or the output of a SPIFFE helper.
///
/// The file is read at each fetch, for every [`TokenRequest`], and white space around the token is
/// removed. If the token is a JWT with `exp` (RFC 7519 §4.1.4), its life is what `exp` and `iat`
/// say; the signature is not verified. Any other token lives for
/// [`with_lifetime`](Self::with_lifetime).
///
/// A file that is missing, cannot be read for another reason that may pass, is empty, or holds an
/// expired JWT is a transient error, since that is how a rotation may look for a moment. Missing
/// permissions, a path that is not a file, a file of more than 64 KiB, and a content that is not a
/// token are permanent errors. A file of which only a part is written cannot be told from a whole
/// one: what rotates the file should write another and rename it.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, FileTokenSource};
///
/// let source = FileTokenSource::new("/var/run/secrets/tokens/api")?;
/// let layer = BearerAuthLayer::new(source).allow_origin("https://api.example.com")?;
/// # Ok::<(), bearer_auth::InvalidSetting>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileTokenSource {
    path: Arc<Path>,
    lifetime: Option<Duration>,
}

impl FileTokenSource {
    /// Creates a source that reads this file. The file need not be there yet.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if the path is empty.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, InvalidSetting> {
        let path = path.into();
        if path.as_os_str().is_empty() {
            return Err(InvalidSetting::new("path", "must not be empty"));
        }
        Ok(Self {
            path: path.into(),
            lifetime: None,
        })
    }

    /// Sets the lifetime of a token that is not a JWT with `exp`. It counts from the time at which
    /// the file is read.
    ///
    /// Default: the cache's [`default_lifetime`](crate::TokenCacheBuilder::default_lifetime), so
    /// that the file is read again every few minutes.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

#[async_trait]
impl TokenSource for FileTokenSource {
    async fn fetch(&self, _request: &TokenRequest) -> Result<AccessToken, TokenError> {
        let path = Arc::clone(&self.path);
        // One blocking task for the whole read. tokio's files would need one for each step.
        let content = spawn_blocking(move || read(&path))
            .await
            .map_err(TokenError::transient)??;
        let text = std::str::from_utf8(&content).map_err(|_| {
            TokenError::permanent(format!(
                "the token file `{}` is not text: write the token to it as it is",
                self.path.display()
            ))
        })?;
        let text = text.trim();
        let token = AccessToken::new(text)?;
        match (JwtTimes::read(text), self.lifetime) {
            (Some(times), _) => with_times(token, times).ok_or_else(|| {
                TokenError::transient(format!(
                    "the token in the file `{}` has expired: check what rotates the file",
                    self.path.display()
                ))
            }),
            (None, Some(lifetime)) => Ok(token.with_lifetime(lifetime)),
            (None, None) => Ok(token),
        }
    }
}

/// Returns the token with its life, or `None` if it has expired.
fn with_times(token: AccessToken, times: JwtTimes) -> Option<AccessToken> {
    let remaining = times.expires_at.duration_since(clock::wall_now()).ok()?;
    if remaining.is_zero() {
        return None;
    }
    let life = times
        .issued_at
        .and_then(|issued_at| Some((issued_at, times.expires_at.duration_since(issued_at).ok()?)));
    Some(match life {
        Some((issued_at, life)) => token.with_lifetime(life).with_issued_at(issued_at),
        None => token.with_lifetime(remaining),
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    // Opening a pipe would block the thread until something writes to it.
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(TokenError::permanent(format!(
            "`{}` is not a file: set the path of the token file",
            path.display()
        )));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    // Room for all of it, so that no reallocation leaves a copy of the token behind.
    let capacity = metadata.len().min(LONGEST_FILE) as usize + 2;
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(LONGEST_FILE + 1)
        .read_to_end(&mut content)
        .map_err(|error| unreadable(path, &error))?;
    if content.len() as u64 > LONGEST_FILE {
        return Err(TokenError::permanent(format!(
            "the token file `{}` is longer than {LONGEST_FILE} bytes: write only the token to it",
            path.display()
        )));
    }
    Ok(content)
}

fn unreadable(path: &Path, error: &io::Error) -> TokenError {
    let text = format!(
        "the token file `{}` cannot be read: {error}",
        path.display()
    );
    match error.kind() {
        ErrorKind::PermissionDenied => TokenError::permanent(text),
        _ => TokenError::transient(text),
    }
}
