//! The internals that the fuzz targets in `fuzz/` call, with plain data as input and output. The
//! targets state what must hold. Compiled under `cfg(fuzzing)` only, and no part of the public API.

use http::Uri;

use crate::error::InvalidSetting;
use crate::policy::attach::AttachPolicy;
use crate::policy::challenge;
use crate::policy::origin::Target;

/// A challenge of a `WWW-Authenticate` field.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    /// The scheme as the server wrote it.
    pub scheme: String,
    /// The data in place of parameters.
    pub token68: Option<String>,
    /// The names and values of the parameters, in order.
    pub params: Vec<(String, String)>,
}

/// Parses the lines of a `WWW-Authenticate` field.
pub fn challenges<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let challenges = challenge::parse(lines).into_iter();
    challenges
        .map(|challenge| {
            let (scheme, token68, params) = challenge.into_parts();
            Challenge {
                scheme,
                token68,
                params,
            }
        })
        .collect()
}

/// Reads a response of the token endpoint: the token and its lifetime, which is `None` if the
/// response names none, and zero if it says that none is left.
#[cfg(feature = "client-credentials")]
pub fn token_response(
    status: http::StatusCode,
    headers: &http::HeaderMap,
    body: Option<&[u8]>,
) -> Result<(crate::AccessToken, Option<std::time::Duration>), crate::TokenError> {
    use std::time::Duration;

    use crate::token::Lifetime;

    let token = crate::token_endpoint::response::parse(status, headers, body)?;
    let lifetime = match token.lifetime() {
        Lifetime::Unspecified => None,
        Lifetime::Limited(lifetime) => Some(lifetime),
        Lifetime::Ended => Some(Duration::ZERO),
        // No response sets this; the targets allow 10 years at most.
        Lifetime::Unlimited => Some(Duration::MAX),
    };
    Ok((token, lifetime))
}

/// The rules for where a token may go, with the layer's settings of the same names.
#[derive(Clone, Debug, Default)]
pub struct Attach(AttachPolicy);

impl Attach {
    /// Allows an origin.
    pub fn allow_origin(&mut self, origin: &str) -> Result<(), InvalidSetting> {
        self.0.allow_origin(origin)
    }

    /// Sets the origin of requests without an authority.
    pub fn assume_origin(&mut self, origin: &str) -> Result<(), InvalidSetting> {
        self.0.assume_origin(origin)
    }

    /// Allows plain http.
    pub fn allow_http(&mut self) {
        self.0.allow_http();
    }

    /// Returns true if an `http::Request` to `uri` gets a token.
    pub fn allows_uri(&self, uri: &Uri) -> bool {
        self.0.admit(Target::of_uri(uri)).is_some()
    }

    /// Returns true if a `reqwest::Request` to `url` gets a token.
    #[cfg(feature = "reqwest")]
    pub fn allows_url(&self, url: reqwest::Url) -> bool {
        use crate::exchange::message::RequestView;

        let request = reqwest::Request::new(http::Method::GET, url);
        self.0.admit(request.target()).is_some()
    }
}
