//! reqwest's request and response, as the [exchange](crate::exchange) sees them.

use http::{HeaderMap, StatusCode};
use reqwest::{Request, Response, Url};

use crate::exchange::message::{RequestView, ResponseView};
use crate::policy::origin::Target;
use crate::policy::replay::ReplayPolicy;
use crate::request_auth::RequestAuth;

impl RequestView for Request {
    fn target(&self) -> Target<'_> {
        of_url(self.url())
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    /// Its extensions are not public.
    fn request_auth(&self) -> Option<&RequestAuth> {
        None
    }

    fn copy(&self, _policy: &ReplayPolicy) -> Option<Self> {
        // `None` for a stream.
        self.try_clone()
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
        Some(of_url(self.url()))
    }
}

fn of_url(url: &Url) -> Target<'_> {
    Target::new(url.scheme(), url.host_str().unwrap_or_default(), url.port())
}
