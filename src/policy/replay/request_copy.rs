//! The copy of a request that is kept for a replay.

use std::fmt;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::policy::replay::BodyCopy;
use crate::policy::replay::buffered::BufferedReplay;

/// A type of request that can be copied.
///
/// Public only because the public future depends on it; the module is private.
pub trait Repeat {
    /// The part of such a request that is kept.
    type Copy;
}

/// The parts of a `Request<B>`.
///
/// The headers are a list rather than a map: almost no copy is ever sent, and cloning the map would
/// take longer than everything else that the layer does. A request without headers allocates
/// nothing.
pub struct RequestCopy<B> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    version: Version,
    /// In the order of the map, several values of one name behind each other. `None` if it is
    /// empty.
    headers: Option<Box<[(HeaderName, HeaderValue)]>>,
    extensions: Extensions,
    body: B,
    /// The handle to the body, if it shares a stream with the request.
    pub(crate) buffered: Option<BufferedReplay>,
}

impl<B> Repeat for Request<B> {
    type Copy = RequestCopy<B>;
}

impl<B> RequestCopy<B> {
    /// Copies a request, but for its body.
    pub(super) fn new(request: &Request<B>, body: BodyCopy<B>) -> Self {
        let headers = request.headers();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: (!headers.is_empty()).then(|| list(headers)),
            extensions: request.extensions().clone(),
            body: body.body,
            buffered: body.buffered,
        }
    }

    pub(crate) fn into_request(self) -> Request<B> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.extensions_mut() = self.extensions;
        for (name, value) in self.headers.unwrap_or_default() {
            // Fails only for more headers than the map that was copied could hold.
            let _ = request.headers_mut().try_append(name, value);
        }
        request
    }
}

fn list(headers: &HeaderMap) -> Box<[(HeaderName, HeaderValue)]> {
    let mut list = Vec::with_capacity(headers.len());
    list.extend(
        headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    list.into_boxed_slice()
}

impl<B> fmt::Debug for RequestCopy<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestCopy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_all_parts_of_the_request() {
        let mut request = Request::post("https://a.example/x?y").body(1).unwrap();
        for (name, value) in [("a", "1"), ("b", "3"), ("a", "2")] {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        *request.version_mut() = Version::HTTP_2;
        request.extensions_mut().insert(7_u8);
        let copy = RequestCopy::new(&request, BodyCopy::from(2)).into_request();
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert_eq!(copy.headers(), request.headers());
        assert_eq!(copy.extensions().get::<u8>(), Some(&7));
        assert_eq!(*copy.body(), 2);
    }
}
