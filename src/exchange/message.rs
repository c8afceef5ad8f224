//! What the exchange needs to see of requests and answers, whatever their types.

use http::{HeaderMap, Request, Response, StatusCode};

use crate::policy::origin::Target;
use crate::policy::replay::ReplayPolicy;
use crate::request_auth::RequestAuth;

/// A request on its way out. For `http::Request<B>` and `reqwest::Request`.
pub(crate) trait RequestView: Sized {
    fn target(&self) -> Target<'_>;
    fn headers(&self) -> &HeaderMap;
    fn headers_mut(&mut self) -> &mut HeaderMap;
    fn request_auth(&self) -> Option<&RequestAuth>;
    fn copy(&self, policy: &ReplayPolicy) -> Option<Self>;
}

/// An answer. For `http::Response<R>` and `reqwest::Response`.
pub(crate) trait ResponseView {
    fn status(&self) -> StatusCode;
    fn headers(&self) -> &HeaderMap;
    /// Where it came from in the end, if the client says so.
    fn origin(&self) -> Option<Target<'_>>;
}

impl<B: 'static> RequestView for Request<B> {
    fn target(&self) -> Target<'_> {
        Target::of_uri(self.uri())
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn request_auth(&self) -> Option<&RequestAuth> {
        self.extensions().get()
    }

    fn copy(&self, policy: &ReplayPolicy) -> Option<Self> {
        policy.copy(self)
    }
}

impl<R> ResponseView for Response<R> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    #[cfg(feature = "follow-redirect")]
    fn origin(&self) -> Option<Target<'_>> {
        use tower_http::follow_redirect::RequestUri;
        use tower_http_06::follow_redirect::RequestUri as RequestUri06;

        let extensions = self.extensions();
        let uri = extensions.get::<RequestUri>().map(|it| &it.0);
        let uri = uri.or_else(|| extensions.get::<RequestUri06>().map(|it| &it.0));
        uri.map(Target::of_uri)
    }

    #[cfg(not(feature = "follow-redirect"))]
    fn origin(&self) -> Option<Target<'_>> {
        None
    }
}
