//! Copies of requests with a `reqwest::Body`.

use std::any::Any;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::BodyExt;

use super::client::Body;
use crate::policy::replay::BodyCopy;

/// Copies the body if `B` is a `reqwest::Body` and not a stream.
#[inline]
pub(crate) fn copy<B: 'static>(body: &mut B, result: &mut Option<BodyCopy<B>>) {
    if let Some(body) = (body as &mut dyn Any).downcast_mut()
        && let Some(result) = (result as &mut dyn Any).downcast_mut()
    {
        *result = share(body).map(BodyCopy::from);
    }
}

/// Returns a body that shares the bytes of `body`, or `None` for a stream.
///
/// reqwest offers no clone of a body, so its bytes are taken out as its one frame and put back.
fn share(body: &mut Body) -> Option<Body> {
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

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::Full;

    use super::*;
    use crate::policy::replay::ReplayPolicy;

    fn copies_of(body: Body) -> Option<[Body; 2]> {
        let mut request = Request::new(body);
        let copy = ReplayPolicy::default().copy(&mut request)?.into_request();
        Some([request.into_body(), copy.into_body()])
    }

    #[test]
    fn copies_of_a_reqwest_body_share_its_bytes() {
        let body = Body::from("x".repeat(100));
        let before = body.as_bytes().unwrap().as_ptr();
        for body in copies_of(body).unwrap() {
            let bytes = body.as_bytes().unwrap();
            assert_eq!((bytes.len(), bytes.as_ptr()), (100, before));
        }
        for empty in copies_of(Body::default()).unwrap() {
            assert_eq!(empty.as_bytes(), Some(&[][..]));
        }
    }

    #[test]
    fn a_reqwest_body_is_copied_unless_it_is_a_stream() {
        assert!(copies_of(Body::from("x")).is_some());
        let stream = Body::wrap(Full::new(Bytes::from_static(b"x")));
        assert!(copies_of(stream).is_none());
    }
}
