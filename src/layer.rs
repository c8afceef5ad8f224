//! The layer, which is its own builder.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use tower_layer::Layer;

use crate::cache::TokenCache;
use crate::error::InvalidSetting;
use crate::exchange::Settings;
use crate::policy::rejection::{RejectionFn, RejectionPolicy};
use crate::service::BearerAuth;
use crate::source::TokenSource;

/// Gives requests their bearer token: `Authorization: Bearer <token>` (RFC 6750 §2.1).
///
/// A tower [`Layer`] over any `http::Request<B>` service and, with the feature `reqwest`, around a
/// `reqwest::Client`; with the feature `reqwest-middleware`, a `reqwest_middleware::Middleware`.
/// Clones, and all services made of it, share one [`TokenCache`].
///
/// A request goes out untouched, and no token is fetched for it, if it has an `Authorization` header
/// already, if it or its task says [`RequestAuth::skip`](crate::RequestAuth::skip), or if its origin is
/// not one that the token may go to.
///
/// Limits of concurrency and rate, retries and the overall timeout belong outside of this layer: inside,
/// a request that waits for a token holds its turn, and the second sending needs another one, within
/// 1 s.
///
/// An answer that refuses the token (see [`reject_when`](Self::reject_when)) makes the cache fetch
/// another, and the request is sent again once, if its body can be had twice. The caller gets the
/// second answer; or the first, whole, if there was no other token to be had.
///
/// ```
/// use bearer_auth::{BearerAuthLayer, StaticTokenSource};
/// use tower::ServiceBuilder;
///
/// # let http_client = tower::service_fn(|_: http::Request<String>| async {
/// #     Ok::<_, std::io::Error>(http::Response::new(String::new()))
/// # });
/// let auth = BearerAuthLayer::new(StaticTokenSource::new("opaque")?)
///     .allow_origin("https://api.example.com")?;
/// let service = ServiceBuilder::new().layer(auth).service(http_client);
/// # let _ = service;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct BearerAuthLayer {
    pub(crate) settings: Arc<Settings>,
}

impl BearerAuthLayer {
    /// Call [`allow_origin`](Self::allow_origin) on what this returns: without it, every https host
    /// that the client calls gets the token.
    ///
    /// Makes a layer over a new [`TokenCache`] with the default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from_cache(TokenCache::new(source))
    }

    /// A layer over a cache that is there already. See [`new`](Self::new) for `allow_origin`.
    pub fn from_cache(cache: TokenCache) -> Self {
        Self {
            settings: Arc::new(Settings::new(cache)),
        }
    }

    /// Allows the token to go to this origin; call again for more.
    ///
    /// From the first call on it goes to no origin that is not allowed.
    ///
    /// Scheme, host and port must all be equal; a missing port is the scheme's own, letter case makes
    /// no difference. To name a plain `http` origin is to allow plain http there.
    ///
    /// Default: none named, so that all https origins and loopback get it.
    ///
    /// # Errors
    ///
    /// [`InvalidSetting`] if this is not scheme, host and port alone: a path, a last `/`, userinfo, a
    /// wildcard, a host that is not ASCII.
    pub fn allow_origin(self, origin: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        self.try_edit(|settings| settings.attach.allow_origin(origin.as_ref()))
    }

    /// Judges a URI without authority as if it was this origin's.
    ///
    /// That is a path alone, as with a service that adds the host. The `Host` header is never looked at.
    ///
    /// Default: such a request gets a token only if no origins are named.
    ///
    /// # Errors
    ///
    /// As [`allow_origin`](Self::allow_origin).
    pub fn assume_origin(self, origin: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        self.try_edit(|settings| settings.attach.assume_origin(origin.as_ref()))
    }

    /// Allows plain `http` to every host, while no origin is named.
    ///
    /// Whoever is on the way reads the token; RFC 6750 §5.3 forbids it. For one host, name its http
    /// origin instead.
    ///
    /// Default: plain http to loopback only.
    #[must_use]
    pub fn allow_http(self) -> Self {
        self.edit(|settings| settings.attach.allow_http())
    }

    /// Never sends a request twice.
    ///
    /// A refused token is still renewed for the next request.
    ///
    /// Default: a refused request is sent again once.
    #[must_use]
    pub fn without_replay(self) -> Self {
        self.edit(|settings| settings.replay.disable())
    }

    /// Sends requests with bodies of type `B` again too, by a clone of the body.
    ///
    /// A clone must give the same bytes as the original.
    ///
    /// Default, known without this: `()`, `Bytes`, `String`, `Vec<u8>`, `&'static str`, `&'static [u8]`,
    /// `Full<Bytes>`, `Empty<Bytes>`, and bodies of reqwest that are no streams.
    ///
    /// ```
    /// # use bearer_auth::{BearerAuthLayer, StaticTokenSource};
    /// #[derive(Clone)]
    /// struct Record(u64);
    ///
    /// let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?).replay_body::<Record>();
    /// # Ok::<(), bearer_auth::InvalidToken>(())
    /// ```
    #[must_use]
    pub fn replay_body<B: Clone + 'static>(self) -> Self {
        self.edit(|settings| settings.replay.add_body::<B>())
    }

    /// Sets a closure that decides which responses reject the token.
    ///
    /// It replaces the default, so call [`BearerChallenge`](crate::BearerChallenge) from it for the
    /// responses that should still reject. See [`reject_with`](Self::reject_with) for ready-made
    /// policies.
    ///
    /// Default: [`BearerChallenge`](crate::BearerChallenge).
    ///
    /// ```
    /// use bearer_auth::{BearerAuthLayer, BearerChallenge, RejectionPolicy, StaticTokenSource};
    /// use http::StatusCode;
    ///
    /// // An API that answers 403 to an expired token.
    /// let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?).reject_when(
    ///     |status, headers| {
    ///         status == StatusCode::FORBIDDEN || BearerChallenge.rejects(status, headers)
    ///     },
    /// );
    /// # Ok::<(), bearer_auth::InvalidToken>(())
    /// ```
    #[must_use]
    pub fn reject_when(
        self,
        rejects: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.reject_with(RejectionFn(rejects))
    }

    /// Sets the policy that decides which responses reject the token.
    ///
    /// Default: [`BearerChallenge`](crate::BearerChallenge). For gRPC use
    /// [`GrpcUnauthenticated`](crate::GrpcUnauthenticated).
    #[must_use]
    pub fn reject_with(self, policy: impl RejectionPolicy) -> Self {
        let policy: Arc<dyn RejectionPolicy> = Arc::new(policy);
        self.edit(|settings| settings.rejection = Some(policy))
    }

    /// Makes it an error if neither a request nor its task chose a token: no silent default tenant.
    ///
    /// The error is a [`RequestAuthMissing`](crate::TokenErrorKind::RequestAuthMissing). The task is read
    /// when the service is called: behind a `Buffer`, or in a task that was spawned inside of the scope,
    /// it is not seen. A layer outside of this one may drop a request's extensions, as tower-http's
    /// `FollowRedirect` does with those of a hop (0.6 always, 0.7 across origins).
    ///
    /// Default: such a request gets the token of the source's own configuration.
    #[must_use]
    pub fn require_request_auth(self) -> Self {
        self.edit(|settings| settings.require_request_auth = true)
    }

    /// The cache that this layer takes its tokens from.
    pub fn cache(&self) -> &TokenCache {
        &self.settings.cache
    }

    fn edit(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    fn try_edit(
        mut self,
        change: impl FnOnce(&mut Settings) -> Result<(), InvalidSetting>,
    ) -> Result<Self, InvalidSetting> {
        change(Arc::make_mut(&mut self.settings))?;
        Ok(self)
    }
}

impl<S> Layer<S> for BearerAuthLayer {
    type Service = BearerAuth<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BearerAuth::new(inner, Arc::clone(&self.settings))
    }
}

impl fmt::Debug for BearerAuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        f.debug_struct("BearerAuthLayer")
            .field("cache", &settings.cache)
            .field("attach", &settings.attach)
            .field("replay", &settings.replay)
            .field("require_request_auth", &settings.require_request_auth)
            .finish_non_exhaustive()
    }
}
