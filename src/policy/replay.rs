//! Which requests can be sent again: those whose body can be had twice.

use std::any::{Any, TypeId};
use std::fmt;

use bytes::Bytes;
use http::Request;
use http_body_util::{Empty, Full};

/// How bodies are copied, by their type.
#[derive(Clone)]
pub(crate) struct ReplayPolicy {
    enabled: bool,
    /// Types beside the built-in ones.
    bodies: Vec<BodyCopy>,
}

/// Copies a body of one type.
#[derive(Clone, Copy)]
struct BodyCopy {
    body: TypeId,
    copy: fn(&dyn Any, &mut dyn Any),
}

impl ReplayPolicy {
    pub(crate) fn disable(&mut self) {
        self.enabled = false;
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn add_body<B: Clone + 'static>(&mut self) {
        self.bodies.push(BodyCopy {
            body: TypeId::of::<B>(),
            copy: copy_as::<B>,
        });
    }

    /// A copy of the request, if its body is of a type that can be had twice.
    pub(crate) fn copy<B: 'static>(&self, request: &Request<B>) -> Option<Request<B>> {
        let body = self.copy_body(request.body())?;
        let mut copy = Request::new(body);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }

    fn copy_body<B: 'static>(&self, body: &B) -> Option<B> {
        let mut copied: Option<B> = None;
        // For the built-in types this is settled when the crate is compiled.
        copy_known(body, &mut copied);
        if copied.is_none() {
            let known = self
                .bodies
                .iter()
                .find(|known| known.body == TypeId::of::<B>())?;
            (known.copy)(body, &mut copied);
        }
        copied
    }
}

impl Default for ReplayPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            bodies: Vec::new(),
        }
    }
}

impl fmt::Debug for ReplayPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayPolicy")
            .field("enabled", &self.enabled)
            .field("bodies", &self.bodies.len())
            .finish()
    }
}

fn copy_known<B: 'static>(body: &B, copied: &mut Option<B>) {
    macro_rules! try_each {
        ($($known:ty),*) => {
            $(if TypeId::of::<B>() == TypeId::of::<$known>() {
                return copy_as::<$known>(body, copied);
            })*
        };
    }
    try_each!(
        (),
        Bytes,
        String,
        Vec<u8>,
        &'static str,
        &'static [u8],
        Full<Bytes>,
        Empty<Bytes>
    );
    #[cfg(feature = "reqwest")]
    if let Some(body) = (body as &dyn Any).downcast_ref::<reqwest::Body>()
        && let Some(copied) = (copied as &mut dyn Any).downcast_mut::<Option<reqwest::Body>>()
    {
        // `None` for a stream.
        *copied = body
            .as_bytes()
            .map(|bytes| Bytes::copy_from_slice(bytes).into());
    }
}

/// Copies `body` to `copied`, an `Option<B>`, if it is a `B`.
fn copy_as<B: Clone + 'static>(body: &dyn Any, copied: &mut dyn Any) {
    if let (Some(body), Some(copied)) =
        (body.downcast_ref::<B>(), copied.downcast_mut::<Option<B>>())
    {
        *copied = Some(body.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies<B: 'static>(body: B) -> bool {
        ReplayPolicy::default().copy_body(&body).is_some()
    }

    #[test]
    fn in_memory_bodies_are_copied() {
        assert!(copies(()));
        assert!(copies(Bytes::from_static(b"x")));
        assert!(copies("x".to_owned()));
        assert!(copies(vec![1_u8]));
        assert!(copies("x"));
        assert!(copies(&b"x"[..]));
        assert!(copies(Full::new(Bytes::from_static(b"x"))));
        assert!(copies(Empty::<Bytes>::new()));
    }

    #[test]
    fn others_only_if_named() {
        #[derive(Clone, Debug, PartialEq)]
        struct Own(u8);
        assert!(!copies(Own(1)));
        let mut policy = ReplayPolicy::default();
        policy.add_body::<Own>();
        assert_eq!(policy.copy_body(&Own(1)), Some(Own(1)));
        assert!(policy.copy_body(&std::cell::Cell::new(1)).is_none());
    }

    #[test]
    fn a_copy_is_complete() {
        let mut request = Request::post("https://a.example/x?y")
            .body("body".to_owned())
            .unwrap();
        request.headers_mut().append("a", "1".parse().unwrap());
        request.headers_mut().append("a", "2".parse().unwrap());
        *request.version_mut() = http::Version::HTTP_2;
        request.extensions_mut().insert(7_u8);
        let copy = ReplayPolicy::default().copy(&request).unwrap();
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert_eq!(copy.headers(), request.headers());
        assert_eq!(copy.extensions().get::<u8>(), Some(&7));
        assert_eq!(copy.body(), request.body());
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn a_reqwest_body_is_copied_unless_it_is_a_stream() {
        assert!(copies(reqwest::Body::from("x")));
        assert!(!copies(reqwest::Body::wrap(Full::new(Bytes::from_static(
            b"x"
        )))));
    }
}
