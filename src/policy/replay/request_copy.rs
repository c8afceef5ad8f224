//! The copy of a request that is kept for a replay.

use std::fmt;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

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
}

impl<B> Repeat for Request<B> {
    type Copy = RequestCopy<B>;
}

#[cfg(feature = "reqwest")]
impl Repeat for reqwest::Request {
    // Its extensions can only be copied together with all the rest.
    type Copy = Self;
}

impl<B> RequestCopy<B> {
    /// Copies a request, but for its body.
    pub(super) fn new(request: &Request<B>, body: B) -> Self {
        let headers = request.headers();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: (!headers.is_empty()).then(|| list(headers)),
            extensions: request.extensions().clone(),
            body,
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
