//! reqwest's requests and responses, as the exchange sees them.

use http::{HeaderMap, StatusCode};
use reqwest::{Request, Response, Url};

use crate::exchange::message::{RequestView, ResponseView};
use crate::policy::origin::{KeptOrigin, Target};
use crate::policy::replay::{Kept, ReplayPolicy};
use crate::request_auth::RequestAuth;

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
    fn copy(&mut self, _policy: &ReplayPolicy) -> Kept<Self> {
        // `None` if the body is a stream.
        self.try_clone().map_or(Kept::Nothing, Kept::Copy)
    }
}

impl ResponseView for Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn origin(&self) -> Option<Target<'_>> {
        Some(target(self.url()))
    }
}

fn target(url: &Url) -> Target<'_> {
    Target::new(url.scheme(), url.host_str().unwrap_or_default(), url.port())
}
