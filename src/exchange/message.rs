//! The parts of requests and responses that the exchange sees, whatever their types.

use http::{HeaderMap, Request, Response, StatusCode};

use crate::policy::origin::{KeptOrigin, Target};
use crate::policy::replay::{Kept, ReplayPolicy};
use crate::request_auth::RequestAuth;

/// A request to be sent: an `http::Request<B>` or a `reqwest::Request`.
pub(crate) trait RequestView: Sized {
    fn target(&self) -> Target<'_>;

    /// Returns the origin in a form that can be kept, or `None` if no response will name its own.
    fn origin_to_keep(&self) -> Option<KeptOrigin>;

    fn headers(&self) -> &HeaderMap;

    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// Returns the choice in the request's extensions.
    fn request_auth(&self) -> Option<&RequestAuth>;

    /// Copies the request if its body can be sent twice. Else returns `Kept::Nothing`.
    ///
    /// The body is only changed in its representation.
    fn copy(&mut self, policy: &ReplayPolicy) -> Kept<Self>;
}

/// A response: an `http::Response<R>` or a `reqwest::Response`.
pub(crate) trait ResponseView {
    fn status(&self) -> StatusCode;

    fn headers(&self) -> &HeaderMap;

    /// Returns the target that the response came from after redirects, if the client tells.
    fn origin(&self) -> Option<Target<'_>>;
}

impl<B: 'static> RequestView for Request<B> {
    fn target(&self) -> Target<'_> {
        Target::of_uri(self.uri())
    }

    #[inline]
    fn origin_to_keep(&self) -> Option<KeptOrigin> {
        // Only this feature lets a response name its origin.
        cfg!(feature = "follow-redirect").then(|| KeptOrigin::of_uri(self.uri()))
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

    fn copy(&mut self, policy: &ReplayPolicy) -> Kept<Self> {
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

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    #[test]
    fn a_copy_has_all_parts_of_the_request() {
        let mut request = Request::post("https://a.example/x?y")
            .body("body".to_owned())
            .unwrap();
        request.headers_mut().append("a", "1".parse().unwrap());
        request.headers_mut().append("a", "2".parse().unwrap());
        *request.version_mut() = Version::HTTP_2;
        request.extensions_mut().insert(7_u8);
        let Kept::Copy(copy) = request.copy(&ReplayPolicy::default()) else {
            panic!("a `String` is copied");
        };
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert_eq!(copy.headers(), request.headers());
        assert_eq!(copy.extensions().get::<u8>(), Some(&7));
        assert_eq!(copy.body(), request.body());
    }
}
