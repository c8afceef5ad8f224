//! The choice of a token by a request, or by the task that sends it.

use crate::error::InvalidSetting;
use crate::token::request::TokenRequest;

/// A request's choice of its token, to be put into the request's extensions.
///
/// ```
/// use bearer_auth::RequestAuth;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(RequestAuth::scope("tenant/42"));
///
/// // With reqwest-middleware:
/// // client.put(presigned_url).with_extension(RequestAuth::skip())
/// ```
///
/// The choice of a token (`scope`, `token` or `skip`) is the request's if it makes one, else the
/// task's (feature `task-local`), else the source's own configuration. Independently of it,
/// `without_replay` applies if the request or the task sets it.
///
/// A [`reqwest::Request`](https://docs.rs/reqwest/latest/reqwest/struct.Request.html) in a tower
/// stack has no public extensions: there, only the task can choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestAuth {
    choice: Option<Choice>,
    without_replay: bool,
}

/// A token, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Skip,
    Token(TokenRequest),
}

impl RequestAuth {
    /// Chooses a token with this scope, see [`TokenRequest::scope`].
    ///
    /// For a name that contains untrusted input, such as a tenant id from a URL, use
    /// [`single_scope`](Self::single_scope): a space in it could add a scope.
    pub fn scope(scope: impl AsRef<str>) -> Self {
        Self::token(TokenRequest::scope(scope))
    }

    /// Chooses the token that `request` identifies.
    pub fn token(request: TokenRequest) -> Self {
        Self {
            choice: Some(Choice::Token(request)),
            without_replay: false,
        }
    }

    /// Chooses no token: the request is sent unchanged.
    pub fn skip() -> Self {
        Self {
            choice: Some(Choice::Skip),
            without_replay: false,
        }
    }

    /// Disables the replay of this request. A rejected token is refreshed all the same.
    ///
    /// Default: the request is replayed once.
    #[must_use]
    pub fn without_replay(mut self) -> Self {
        self.without_replay = true;
        self
    }

    /// Returns this choice, with the fields that it does not set taken from `other`.
    pub(crate) fn or(&self, other: Option<Self>) -> Self {
        let other = other.unwrap_or_default();
        Self {
            choice: self.choice.clone().or(other.choice),
            without_replay: self.without_replay || other.without_replay,
        }
    }

    pub(crate) fn into_parts(self) -> (Option<Choice>, bool) {
        (self.choice, self.without_replay)
    }

    /// Chooses a token with this scope, which has to be a single name, see
    /// [`TokenRequest::single_scope`].
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if `name` is not a `scope-token` (RFC 6749 §3.3).
    pub fn single_scope(name: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        TokenRequest::single_scope(name).map(Self::token)
    }
}

impl From<TokenRequest> for RequestAuth {
    fn from(request: TokenRequest) -> Self {
        Self::token(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_inherited_separately() {
        let task = RequestAuth::scope("tenant/7");
        let only_replay = RequestAuth::default().without_replay();
        assert_eq!(
            only_replay.or(Some(task.clone())),
            task.clone().without_replay()
        );
        assert_eq!(
            RequestAuth::skip().or(Some(task.clone())),
            RequestAuth::skip()
        );
        assert_eq!(
            RequestAuth::scope("tenant/1").or(Some(task.without_replay())),
            RequestAuth::scope("tenant/1").without_replay()
        );
        assert_eq!(RequestAuth::default().or(None), RequestAuth::default());
    }
}
