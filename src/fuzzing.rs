//! Access to internals for the fuzz targets in `fuzz/`, which check the properties.
//!
//! It is compiled with `cfg(fuzzing)` only and is not part of the public API.

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
    /// The token68, which some schemes send in place of parameters.
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

/// Parses a response of the token endpoint into the token and its lifetime.
///
/// The lifetime is zero if the response contains none, and
/// [`Duration::MAX`](std::time::Duration::MAX) if it is unlimited.
#[cfg(feature = "client-credentials")]
pub fn token_response(
    status: http::StatusCode,
    headers: &http::HeaderMap,
    body: Option<&[u8]>,
) -> Result<(crate::AccessToken, std::time::Duration), crate::TokenError> {
    use std::time::Duration;

    use crate::token::Lifetime;

    let token = crate::token_endpoint::response::parse(status, headers, body)?;
    let life = match token.lifetime() {
        Lifetime::Unspecified | Lifetime::Ended => Duration::ZERO,
        Lifetime::Limited(life) => life,
        Lifetime::Unlimited => Duration::MAX,
    };
    Ok((token, life))
}

/// The rules for attaching a token, with the layer's settings of the same names.
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
