//! The parts of requests and responses that the exchange sees, whatever their types.

use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri};

use crate::policy::origin::{KeptOrigin, Target};
use crate::policy::replay::buffered::BufferedReplay;
use crate::policy::replay::{Repeat, ReplayPolicy, RequestCopy};
use crate::request_auth::RequestAuth;

/// A URL without its fragment, as requests and responses are compared by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location<'a> {
    pub(crate) target: Target<'a>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

/// A request to be sent: an `http::Request<B>` or a `reqwest::Request`.
pub(crate) trait RequestView: Repeat<Copy: CopyView> + Sized {
    fn target(&self) -> Target<'_>;

    /// Returns the origin in a form that can be kept, or `None` if no response will name its own.
    fn origin_to_keep(&self) -> Option<KeptOrigin>;

    fn headers(&self) -> &HeaderMap;

    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// Returns the choice in the request's extensions.
    fn request_auth(&self) -> Option<&RequestAuth>;

    /// Copies the request if its body can be sent twice.
    ///
    /// The body is only changed in its representation.
    fn copy(&mut self, policy: &ReplayPolicy) -> Option<Self::Copy>;

    /// Returns the request that was copied.
    fn from_copy(copy: Self::Copy) -> Self;
}

/// The copy of a request.
pub(crate) trait CopyView {
    fn location(&self) -> Location<'_>;

    fn method(&self) -> &Method;

    /// Returns true if this copy can still be sent: all that was sent of its body is kept.
    fn can_begin_replay(&self) -> bool {
        true
    }

    /// Prepares this copy to be sent. Returns false if it cannot be sent any more.
    fn begin_replay(&mut self) -> bool {
        true
    }
}

/// A response: an `http::Response<R>` or a `reqwest::Response`.
pub(crate) trait ResponseView {
    fn status(&self) -> StatusCode;

    fn headers(&self) -> &HeaderMap;

    fn extensions_mut(&mut self) -> &mut Extensions;

    /// Returns the URL that the response came from after redirects, if the client tells.
    fn location(&self) -> Option<Location<'_>>;
}

impl<'a> Location<'a> {
    pub(crate) fn of_uri(uri: &'a Uri) -> Self {
        Self {
            target: Target::of_uri(uri),
            path: uri.path(),
            query: uri.query(),
        }
    }

    /// Returns true if both are the same URL. The spelling of the origin does not matter.
    pub(crate) fn is_same(self, other: Location<'_>) -> bool {
        self.path == other.path
            && self.query.unwrap_or_default() == other.query.unwrap_or_default()
            && self.target.is_same_origin(other.target)
    }
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

    fn copy(&mut self, policy: &ReplayPolicy) -> Option<RequestCopy<B>> {
        policy.copy(self)
    }

    fn from_copy(copy: RequestCopy<B>) -> Self {
        copy.into_request()
    }
}

impl<B> CopyView for RequestCopy<B> {
    fn location(&self) -> Location<'_> {
        Location::of_uri(&self.uri)
    }

    fn method(&self) -> &Method {
        &self.method
    }

    fn can_begin_replay(&self) -> bool {
        let buffered = self.buffered.as_ref();
        buffered.is_none_or(BufferedReplay::can_begin)
    }

    fn begin_replay(&mut self) -> bool {
        let buffered = self.buffered.take();
        buffered.is_none_or(|buffered| buffered.begin())
    }
}

impl<R> ResponseView for Response<R> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    #[cfg(feature = "follow-redirect")]
    fn location(&self) -> Option<Location<'_>> {
        use tower_http::follow_redirect::RequestUri;
        use tower_http_06::follow_redirect::RequestUri as RequestUri06;

        let extensions = self.extensions();
        let uri = extensions.get::<RequestUri>().map(|it| &it.0);
        let uri = uri.or_else(|| extensions.get::<RequestUri06>().map(|it| &it.0));
        uri.map(Location::of_uri)
    }

    #[cfg(not(feature = "follow-redirect"))]
    fn location(&self) -> Option<Location<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;

    fn are_same(first: &'static str, second: &'static str) -> bool {
        let (first, second) = (Uri::from_static(first), Uri::from_static(second));
        Location::of_uri(&first).is_same(Location::of_uri(&second))
    }

    #[test]
    fn locations_are_compared_by_origin_path_and_query() {
        assert!(are_same("https://a.example", "https://a.example/"));
        assert!(are_same("https://a.example/x?", "https://A.example:443/x"));
        assert!(are_same(
            "https://a.example/x?y#1",
            "https://a.example/x?y#2"
        ));
        assert!(are_same("/x", "/x"));
        assert!(!are_same("https://a.example/x", "https://a.example/X"));
        assert!(!are_same("https://a.example/x", "https://a.example/x?y"));
        assert!(!are_same("https://a.example/x", "https://b.example/x"));
        assert!(!are_same("https://a.example/x", "http://a.example/x"));
        assert!(!are_same("https://a.example/x", "/x"));
    }

    #[test]
    fn a_copy_has_all_parts_of_the_request() {
        let mut request = Request::post("https://a.example/x?y")
            .body("body".to_owned())
            .unwrap();
        request.headers_mut().append("a", "1".parse().unwrap());
        request.headers_mut().append("a", "2".parse().unwrap());
        *request.version_mut() = Version::HTTP_2;
        request.extensions_mut().insert(7_u8);
        request.headers_mut().insert("b", "3".parse().unwrap());
        let copy = request.copy(&ReplayPolicy::default());
        let copy = Request::from_copy(copy.expect("a `String` is copied"));
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert!(copy.headers().iter().eq(request.headers()), "in order");
        assert_eq!(copy.extensions().get::<u8>(), Some(&7));
        assert_eq!(copy.body(), request.body());
    }
}
