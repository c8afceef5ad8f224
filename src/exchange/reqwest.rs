//! reqwest's requests and responses, as the exchange sees them.

use http::{Extensions, HeaderMap, Method, StatusCode};

use super::client::{Request, Response, Url};
use crate::exchange::message::{CopyView, Location, RequestView, ResponseView};
use crate::policy::origin::{KeptOrigin, Target};
use crate::policy::replay::{Repeat, ReplayPolicy};
use crate::request_auth::RequestAuth;

/// The URL of a `Response` that was made from an `http::Response`.
const PLACEHOLDER_URL: &str = "http://no.url.provided.local/";

impl RequestView for Request {
    #[inline]
    fn target(&self) -> Target<'_> {
        target(self.url())
    }

    #[inline]
    fn origin_to_keep(&self) -> Option<KeptOrigin> {
        // A clone of the `Url` would allocate.
        Some(KeptOrigin::of_url(self.target()))
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    /// The extensions of a `reqwest::Request` are not public.
    fn request_auth(&self) -> Option<&RequestAuth> {
        None
    }

    #[inline]
    fn copy(&mut self, _policy: &ReplayPolicy) -> Option<Self> {
        // `None` if the body is a stream.
        self.try_clone()
    }

    #[inline]
    fn from_copy(copy: Self) -> Self {
        copy
    }
}

impl Repeat for Request {
    // Its extensions can only be copied together with all the rest.
    type Copy = Self;
}

impl CopyView for Request {
    fn location(&self) -> Location<'_> {
        location(self.url())
    }

    fn method(&self) -> &Method {
        self.method()
    }
}

impl ResponseView for Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    fn location(&self) -> Option<Location<'_>> {
        let url = self.url();
        (url.as_str() != PLACEHOLDER_URL).then(|| location(url))
    }
}

fn target(url: &Url) -> Target<'_> {
    Target::new(url.scheme(), url.host_str().unwrap_or_default(), url.port())
}

fn location(url: &Url) -> Location<'_> {
    Location {
        target: target(url),
        path: url.path(),
        query: url.query(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ResponseBuilderExt;
    use super::*;

    #[test]
    fn a_response_without_a_url_has_no_location() {
        let response = Response::from(http::Response::new("x"));
        assert!(response.location().is_none());
        let url: Url = "https://a.example/x?y#z".parse().unwrap();
        let response = http::Response::builder().url(url).body("x").unwrap();
        let response = Response::from(response);
        let location = response.location().unwrap();
        assert_eq!((location.path, location.query), ("/x", Some("y")));
    }
}
