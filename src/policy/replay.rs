//! The requests that can be replayed: those whose body can be sent twice.

use std::any::{Any, TypeId};
use std::fmt;

#[cfg(feature = "reqwest")]
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Request;
#[cfg(feature = "reqwest")]
use http_body_util::BodyExt;
use http_body_util::{Empty, Full};

/// The copying of bodies, by their type.
#[derive(Clone)]
pub(crate) struct ReplayPolicy {
    enabled: bool,
    /// Types added to the built-in ones.
    bodies: Vec<BodyCopy>,
}

/// A function that copies bodies of one type.
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

    /// Copies the request if its body has a type that can be sent twice.
    pub(crate) fn copy<B: 'static>(&self, request: &mut Request<B>) -> Option<Request<B>> {
        let body = self.copy_body(request.body_mut())?;
        let mut copy = Request::new(body);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }

    fn copy_body<B: 'static>(&self, body: &mut B) -> Option<B> {
        let mut copied: Option<B> = None;
        // For the built-in types, the compiler settles this for each `B`.
        copy_built_in(body, &mut copied);
        if copied.is_none() {
            let added = self
                .bodies
                .iter()
                .find(|added| added.body == TypeId::of::<B>())?;
            (added.copy)(body, &mut copied);
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

fn copy_built_in<B: 'static>(body: &mut B, copied: &mut Option<B>) {
    macro_rules! try_each {
        ($($built_in:ty),*) => {
            $(if TypeId::of::<B>() == TypeId::of::<$built_in>() {
                return copy_as::<$built_in>(body, copied);
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
    if let Some(body) = (body as &mut dyn Any).downcast_mut::<reqwest::Body>()
        && let Some(copied) = (copied as &mut dyn Any).downcast_mut::<Option<reqwest::Body>>()
    {
        *copied = share_reqwest_body(body);
    }
}

/// Returns a body that shares the bytes of `body`, or `None` for a stream.
///
/// reqwest offers no clone of a body, so its bytes are taken out as its one frame and put back.
#[cfg(feature = "reqwest")]
fn share_reqwest_body(body: &mut reqwest::Body) -> Option<reqwest::Body> {
    body.as_bytes()?;
    let mut context = Context::from_waker(Waker::noop());
    let bytes = match pin!(body.frame()).poll(&mut context) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok()?,
        // An empty body has no frame.
        _ => Bytes::new(),
    };
    *body = bytes.clone().into();
    Some(bytes.into())
}

/// Copies `body` to `copied`, an `Option<B>`, if `body` is a `B`.
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

    fn copies<B: 'static>(mut body: B) -> bool {
        ReplayPolicy::default().copy_body(&mut body).is_some()
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
    fn other_bodies_are_copied_if_they_were_added() {
        #[derive(Clone, Debug, PartialEq)]
        struct Own(u8);
        assert!(!copies(Own(1)));
        let mut policy = ReplayPolicy::default();
        policy.add_body::<Own>();
        assert_eq!(policy.copy_body(&mut Own(1)), Some(Own(1)));
        assert!(policy.copy_body(&mut std::cell::Cell::new(1)).is_none());
    }

    #[test]
    fn a_copy_has_all_parts_of_the_request() {
        let mut request = Request::post("https://a.example/x?y")
            .body("body".to_owned())
            .unwrap();
        request.headers_mut().append("a", "1".parse().unwrap());
        request.headers_mut().append("a", "2".parse().unwrap());
        *request.version_mut() = http::Version::HTTP_2;
        request.extensions_mut().insert(7_u8);
        let copy = ReplayPolicy::default().copy(&mut request).unwrap();
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert_eq!(copy.headers(), request.headers());
        assert_eq!(copy.extensions().get::<u8>(), Some(&7));
        assert_eq!(copy.body(), request.body());
    }

    #[cfg(feature = "reqwest")]
    #[test]
    fn copies_of_a_reqwest_body_share_its_bytes() {
        let mut body = reqwest::Body::from("x".repeat(100));
        let before = body.as_bytes().unwrap().as_ptr();
        let copy = ReplayPolicy::default().copy_body(&mut body).unwrap();
        for body in [body, copy] {
            let bytes = body.as_bytes().unwrap();
            assert_eq!((bytes.len(), bytes.as_ptr()), (100, before));
        }
        let mut empty = reqwest::Body::default();
        assert!(ReplayPolicy::default().copy_body(&mut empty).is_some());
        assert_eq!(empty.as_bytes(), Some(&[][..]));
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
