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

use buffered::{ReplayBody, copy_buffered};

/// The copying of bodies, by their type.
#[derive(Clone)]
pub(crate) struct ReplayPolicy {
    enabled: bool,
    /// Types added to the built-in ones.
    added: Vec<AddedBody>,
}

/// A function that copies requests with bodies of one type.
#[derive(Clone)]
struct AddedBody {
    body: TypeId,
    copy: Arc<CopyRequest>,
}

/// Copies a `Request<B>` to a `Kept<Request<B>>`, if the arguments are these.
type CopyRequest = dyn Fn(&mut dyn Any, &mut dyn Any) + Send + Sync;

/// The part of a request that is kept until its response.
pub(crate) enum Kept<Q> {
    /// A copy for a replay.
    Copy(Q),
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
        let copy = move |request: &mut dyn Any, kept: &mut dyn Any| {
            if let Some(request) = request.downcast_ref::<Request<B>>()
                && let Some(kept) = kept.downcast_mut()
                && let Some(body) = copy(request.body())
            {
                *kept = Kept::Copy(copy_with_body(request, body));
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
        let copy = move |request: &mut dyn Any, kept: &mut dyn Any| {
            if let Some(request) = request.downcast_mut::<Request<B>>()
                && let Some(kept) = kept.downcast_mut()
            {
                *kept = copy_buffered(request, limit, &wrap);
            }
        };
        self.add(TypeId::of::<B>(), Arc::new(copy));
    }

    /// Adds a function, in place of an earlier one for the same type.
    fn add(&mut self, body: TypeId, copy: Arc<CopyRequest>) {
        self.added.retain(|added| added.body != body);
        self.added.push(AddedBody { body, copy });
    }

    /// Copies a request if its body has a type that can be sent twice.
    ///
    /// The request keeps its content, but its body may be another one that sends the same.
    pub(crate) fn copy<B: 'static>(&self, request: &mut Request<B>) -> Kept<Request<B>> {
        let mut kept = Kept::Nothing;
        // For the built-in types, the compiler settles this for each `B`.
        copy_built_in(request, &mut kept);
        if let Kept::Nothing = kept
            && let Some(added) = self.added.iter().find(|it| it.body == TypeId::of::<B>())
        {
            (added.copy)(request, &mut kept);
        }
        kept
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

fn copy_built_in<B: 'static>(request: &mut Request<B>, kept: &mut Kept<Request<B>>) {
    macro_rules! try_each {
        ($($body:ty),*) => {
            $(if TypeId::of::<B>() == TypeId::of::<$body>() {
                return copy_as::<$body>(request, kept);
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
    crate::for_reqwest_0_13::body::copy(request, kept);
    #[cfg(feature = "reqwest-0-12")]
    crate::for_reqwest_0_12::body::copy(request, kept);
}

/// Copies a request, but for its body.
pub(crate) fn copy_with_body<B>(request: &Request<B>, body: B) -> Request<B> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Copies a `Request<B>` to a `Kept<Request<B>>`, if the arguments are these.
fn copy_as<B: Clone + 'static>(request: &mut dyn Any, kept: &mut dyn Any) {
    if let Some(request) = request.downcast_ref::<Request<B>>()
        && let Some(kept) = kept.downcast_mut()
    {
        *kept = Kept::Copy(request.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy<B: 'static>(policy: &ReplayPolicy, body: B) -> Option<[B; 2]> {
        let mut request = Request::new(body);
        match policy.copy(&mut request) {
            Kept::Copy(copy) => Some([request.into_body(), copy.into_body()]),
            Kept::Origin(_) | Kept::Nothing => None,
        }
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

    #[test]
    fn a_copy_with_another_body_has_all_parts_of_the_request() {
        struct Own;
        let mut policy = ReplayPolicy::default();
        policy.add_body_with(|_: &Own| Some(Own));
        let mut request = Request::post("https://a.example/x?y").body(Own).unwrap();
        request.headers_mut().append("a", "1".parse().unwrap());
        request.headers_mut().append("a", "2".parse().unwrap());
        *request.version_mut() = http::Version::HTTP_2;
        request.extensions_mut().insert(7_u8);
        let Kept::Copy(copy) = policy.copy(&mut request) else {
            panic!("the function returns a body");
        };
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert_eq!(copy.headers(), request.headers());
        assert_eq!(copy.extensions().get::<u8>(), Some(&7));
    }
}
