//! The requests that can be replayed: those whose body can be sent twice.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use http_body_util::{Empty, Full};

use crate::error::BoxError;
use crate::policy::origin::KeptOrigin;

pub(crate) mod buffered;
mod request_copy;

use buffered::{BufferedReplay, ReplayBody, copy_buffered};
pub(crate) use request_copy::{Repeat, RequestCopy};

/// The copying of bodies, by their type.
#[derive(Clone)]
pub(crate) struct ReplayPolicy {
    enabled: bool,
    /// Types added to the built-in ones.
    added: Vec<AddedBody>,
}

/// A function that copies bodies of one type.
#[derive(Clone)]
struct AddedBody {
    body: TypeId,
    copy: Arc<CopyBody>,
}

/// The copy of a body, with the handle to it if its stream is shared.
pub(crate) struct BodyCopy<B> {
    pub(crate) body: B,
    pub(crate) buffered: Option<BufferedReplay>,
}

/// Copies a `B` to an `Option<BodyCopy<B>>`, if the arguments are these.
type CopyBody = dyn Fn(&mut dyn Any, &mut dyn Any) + Send + Sync;

/// The part of a request that is kept until its response.
pub(crate) enum Kept<Q: Repeat> {
    /// A copy for a replay.
    Copy(Q::Copy),
    /// Without a copy, the origin, to compare that of the response with.
    Origin(KeptOrigin),
    /// Nothing: the origin is one of the settings, or no response will name its own.
    Nothing,
}

impl ReplayPolicy {
    pub(crate) fn disable(&mut self) {
        self.enabled = false;
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn add_body<B: Clone + 'static>(&mut self) {
        self.add(TypeId::of::<B>(), Arc::new(copy_as::<B>));
    }

    pub(crate) fn add_body_with<B: 'static>(
        &mut self,
        copy: impl Fn(&B) -> Option<B> + Send + Sync + 'static,
    ) {
        let copy = move |body: &mut dyn Any, result: &mut dyn Any| {
            if let Some(body) = body.downcast_ref()
                && let Some(result) = result.downcast_mut()
            {
                *result = copy(body).map(BodyCopy::from);
            }
        };
        self.add(TypeId::of::<B>(), Arc::new(copy));
    }

    pub(crate) fn add_buffered_body<B>(
        &mut self,
        limit: usize,
        wrap: impl Fn(ReplayBody<B>) -> B + Send + Sync + 'static,
    ) where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let copy = move |body: &mut dyn Any, result: &mut dyn Any| {
            if let Some(body) = body.downcast_mut::<B>()
                && let Some(result) = result.downcast_mut()
            {
                *result = Some(copy_buffered(body, limit, &wrap));
            }
        };
        self.add(TypeId::of::<B>(), Arc::new(copy));
    }

    /// Adds a function, in place of an earlier one for the same type.
    fn add(&mut self, body: TypeId, copy: Arc<CopyBody>) {
        self.added.retain(|added| added.body != body);
        self.added.push(AddedBody { body, copy });
    }

    /// Copies a request if its body has a type that can be sent twice.
    ///
    /// The request keeps its content, but its body may be another one that sends the same.
    #[inline]
    pub(crate) fn copy<B: 'static>(&self, request: &mut Request<B>) -> Option<RequestCopy<B>> {
        let body = self.copy_body(request.body_mut())?;
        Some(RequestCopy::new(request, body))
    }

    #[inline]
    fn copy_body<B: 'static>(&self, body: &mut B) -> Option<BodyCopy<B>> {
        let mut result = None;
        // For the built-in types, the compiler settles this for each `B`.
        copy_built_in(body, &mut result);
        if result.is_none()
            && let Some(added) = self.added.iter().find(|it| it.body == TypeId::of::<B>())
        {
            (added.copy)(body, &mut result);
        }
        result
    }
}

impl Default for ReplayPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            added: Vec::new(),
        }
    }
}

impl fmt::Debug for ReplayPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayPolicy")
            .field("enabled", &self.enabled)
            .field("added", &self.added.len())
            .finish()
    }
}

#[inline]
fn copy_built_in<B: 'static>(body: &mut B, result: &mut Option<BodyCopy<B>>) {
    macro_rules! try_each {
        ($($body:ty),*) => {
            $(if TypeId::of::<B>() == TypeId::of::<$body>() {
                return copy_as::<$body>(body, result);
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
        Option<Full<Bytes>>,
        Empty<Bytes>
    );
    #[cfg(feature = "reqwest")]
    crate::for_reqwest_0_13::body::copy(body, result);
    #[cfg(feature = "reqwest-0-12")]
    crate::for_reqwest_0_12::body::copy(body, result);
}

impl<B> From<B> for BodyCopy<B> {
    #[inline]
    fn from(body: B) -> Self {
        Self {
            body,
            buffered: None,
        }
    }
}

/// Copies a `B` to an `Option<BodyCopy<B>>`, if the arguments are these.
#[inline]
fn copy_as<B: Clone + 'static>(body: &mut dyn Any, result: &mut dyn Any) {
    if let Some(body) = body.downcast_ref::<B>()
        && let Some(result) = result.downcast_mut()
    {
        *result = Some(BodyCopy::from(body.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy<B: 'static>(policy: &ReplayPolicy, body: B) -> Option<[B; 2]> {
        let mut request = Request::new(body);
        let copy = policy.copy(&mut request)?.into_request();
        Some([request.into_body(), copy.into_body()])
    }

    fn copies<B: 'static>(body: B) -> bool {
        copy(&ReplayPolicy::default(), body).is_some()
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
        assert!(copies(Some(Full::new(Bytes::from_static(b"x")))));
        assert!(copies(None::<Full<Bytes>>));
        assert!(copies(Empty::<Bytes>::new()));
    }

    #[test]
    fn other_bodies_are_copied_if_they_were_added() {
        #[derive(Clone, Debug, PartialEq)]
        struct Own(u8);
        assert!(!copies(Own(1)));
        let mut policy = ReplayPolicy::default();
        policy.add_body::<Own>();
        assert_eq!(copy(&policy, Own(1)), Some([Own(1), Own(1)]));
        assert!(copy(&policy, std::cell::Cell::new(1)).is_none());
    }

    #[test]
    fn a_function_decides_which_bodies_are_copied() {
        /// Not `Clone`.
        #[derive(Debug, PartialEq)]
        struct Own(u8);
        let mut policy = ReplayPolicy::default();
        policy.add_body_with(|body: &Own| (body.0 < 2).then_some(Own(body.0)));
        assert_eq!(copy(&policy, Own(1)), Some([Own(1), Own(1)]));
        assert_eq!(copy(&policy, Own(2)), None);
        policy.add_body_with(|body: &Own| Some(Own(body.0)));
        assert!(copy(&policy, Own(2)).is_some(), "the last one counts");
    }
}
