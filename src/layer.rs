//! The layer. It is its own builder.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use tower_layer::Layer;

use crate::cache::TokenCache;
use crate::error::{BoxError, InvalidSetting};
use crate::exchange::Settings;
use crate::policy::rejection::{RejectionFn, RejectionPolicy};
use crate::policy::replay::buffered::ReplayBody;
use crate::service::BearerAuth;
use crate::source::TokenSource;

/// Attaches a bearer token to requests: `Authorization: Bearer <token>` (RFC 6750 §2.1).
///
/// A tower [`Layer`] over any `http::Request<B>` service and, with the feature `reqwest`, around a
/// `reqwest::Client`; with the feature `reqwest-middleware`, a `reqwest_middleware::Middleware`.
/// The features `reqwest-0-12` and `reqwest-middleware-0-4` add the same for these versions.
/// Clones, and all services made from it, share one [`TokenCache`].
///
/// A request is sent unchanged, and no token is fetched for it, if it already has an
/// `Authorization` header, if it or its task chose [`RequestAuth::skip`](crate::RequestAuth::skip),
/// or if the token may not go to its origin.
///
/// A response that rejects the token (see [`reject_when`](Self::reject_when)) makes the cache fetch
/// another, and the request is replayed once if its body can be sent twice. The caller gets the
/// response to the replay or, if no other token could be obtained, the first response in full. If
/// the refresh failed or is paused, the [`TokenError`](crate::TokenError) is in that response's
/// extensions.
///
/// Concurrency limits, rate limits, retries and overall timeouts belong outside of this layer. With
/// a limit inside, a request that waits for a token gives back the slot that it was ready with and
/// waits for another afterwards, and a replay needs a slot within 1 s.
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
    /// Creates a layer; call [`allow_origin`](Self::allow_origin) on it, or every https host that
    /// the client calls gets the token.
    ///
    /// The layer has a new [`TokenCache`] with the default settings.
    pub fn new(source: impl TokenSource) -> Self {
        Self::from_cache(TokenCache::new(source))
    }

    /// Creates a layer over an existing cache. As with [`new`](Self::new), call `allow_origin`.
    pub fn from_cache(cache: TokenCache) -> Self {
        Self {
            settings: Arc::new(Settings::new(cache)),
        }
    }

    /// Allows the token to go to this origin, in addition to those allowed before.
    ///
    /// After the first call, the token goes to no other origin. Scheme, host and port must be
    /// equal; a missing port is the default port of the scheme, and case is ignored. An `http`
    /// origin allows plain http there.
    ///
    /// Hosts are compared as they are written. The host of a request is never normalized: a dot at
    /// its end counts, and an IP address has to be in its usual form.
    ///
    /// Default: every https origin, and loopback.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if `origin` is not just scheme, host and port: if it has a path,
    /// a trailing `/`, userinfo or a wildcard. The same for hosts that would not match: those that
    /// are not ASCII or are percent-encoded, IPv4 addresses other than four plain decimal numbers
    /// (`127.1`, `0x7f.0.0.1`), and IPv6 addresses that are not in canonical form (RFC 5952) or
    /// contain an IPv4 address. Where there is another form to write, the error names it.
    pub fn allow_origin(self, origin: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        self.try_edit(|settings| settings.attach.allow_origin(origin.as_ref()))
    }

    /// Allows the token to go to the origin of this URL, as [`allow_origin`](Self::allow_origin)
    /// does.
    ///
    /// The URL's path, query and fragment are ignored: the token goes to all paths of the origin.
    ///
    /// Default: every https origin, and loopback.
    ///
    /// ```
    /// use bearer_auth::{BearerAuthLayer, StaticTokenSource};
    ///
    /// // The same as `allow_origin("https://api.example.com")`.
    /// let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?)
    ///     .allow_origin_of("https://api.example.com/v2/")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidSetting`] if `url` is not an absolute http or https URL, if it has userinfo
    /// or a backslash, or for the hosts that `allow_origin` does not accept.
    pub fn allow_origin_of(self, url: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        self.try_edit(|settings| settings.attach.allow_origin_of(url.as_ref()))
    }

    /// Sets the origin of URIs without authority, for services that add the host themselves.
    ///
    /// A tonic client is the usual case: its requests have a path alone, and the channel inside of
    /// the layer adds the origin. Set that of the channel. The `Host` header is never used.
    ///
    /// Default: none. A request whose URI is a path alone gets a token only if no origin is allowed
    /// explicitly.
    ///
    /// # Errors
    ///
    /// The same as of [`allow_origin`](Self::allow_origin).
    pub fn assume_origin(self, origin: impl AsRef<str>) -> Result<Self, InvalidSetting> {
        self.try_edit(|settings| settings.attach.assume_origin(origin.as_ref()))
    }

    /// Allows plain `http` to every host, as long as no origin is allowed explicitly.
    ///
    /// The token can then be read on the network, which RFC 6750 §5.3 forbids. For a single host,
    /// call [`allow_origin`](Self::allow_origin) with its http origin instead.
    ///
    /// Default: plain http to loopback only.
    #[must_use]
    pub fn allow_http(self) -> Self {
        self.edit(|settings| settings.attach.allow_http())
    }

    /// Disables replays: no request is sent twice.
    ///
    /// A rejected token is still refreshed.
    ///
    /// Default: a rejected request is replayed once.
    #[must_use]
    pub fn without_replay(self) -> Self {
        self.edit(|settings| settings.replay.disable())
    }

    /// Enables replays of requests with bodies of type `B`, which are cloned.
    ///
    /// A clone must produce the same bytes as the original.
    ///
    /// Default: `()`, `Bytes`, `String`, `Vec<u8>`, `&'static str`, `&'static [u8]`, `Full<Bytes>`,
    /// `Option<Full<Bytes>>`, `Empty<Bytes>`, and reqwest bodies that are not streams.
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

    /// Enables replays of requests with bodies of type `B` for which `copy` returns a second body.
    ///
    /// For bodies that can sometimes be copied: those with a `try_clone`, or boxed ones that are
    /// empty. The second body must produce the same bytes as the first. A request for which `copy`
    /// returns `None` is sent once. Each request with such a body is copied, so `copy` should be
    /// cheap.
    ///
    /// Default: the types of [`replay_body`](Self::replay_body), which are always copied. Of
    /// several calls for one type, the last one counts.
    ///
    /// Boxed bodies (`axum::body::Body`, `tonic::body::Body`, `BoxBody`) hide their content, but
    /// can tell if they are empty:
    ///
    /// ```
    /// use axum::body::Body;
    /// use bearer_auth::{BearerAuthLayer, StaticTokenSource};
    /// use http_body::Body as _;
    ///
    /// let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?)
    ///     .replay_body_with::<Body>(|body| body.is_end_stream().then(Body::empty));
    /// # Ok::<(), bearer_auth::InvalidToken>(())
    /// ```
    #[must_use]
    pub fn replay_body_with<B: 'static>(
        self,
        copy: impl Fn(&B) -> Option<B> + Send + Sync + 'static,
    ) -> Self {
        self.edit(|settings| settings.replay.add_body_with(copy))
    }

    /// Enables replays of requests with bodies of type `B` that can only be read once, as streams
    /// and the bodies of tonic are: what was sent is kept, and the replay sends it again.
    ///
    /// `wrap` makes a `B` of a [`ReplayBody`], which sends what the original body sends. It is
    /// called twice for each request, or once if the body is empty. `limit` is the number of bytes
    /// that are kept per request. A frame counts as at least 64 bytes, and trailers count, too. The
    /// request itself is sent without a limit. If more was sent than can be kept, it is not
    /// replayed, and the caller gets the first response. What is kept is freed with the response.
    ///
    /// A replay that begins before the first body was sent to its end takes the rest of the stream.
    /// The first body then ends with an error, never as if it were complete.
    ///
    /// Only an `http::Request` can be replayed in this way, not a `reqwest::Request`.
    ///
    /// Default: none. Of several calls for one type, and of those of
    /// [`replay_body_with`](Self::replay_body_with), the last one counts.
    ///
    /// ```
    /// use bearer_auth::{BearerAuthLayer, GrpcUnauthenticated, StaticTokenSource};
    /// use tonic::body::Body;
    ///
    /// let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?)
    ///     .replay_buffered::<Body>(64 * 1024, Body::new)
    ///     .reject_with(GrpcUnauthenticated);
    /// # Ok::<(), bearer_auth::InvalidToken>(())
    /// ```
    #[must_use]
    pub fn replay_buffered<B>(
        self,
        limit: usize,
        wrap: impl Fn(ReplayBody<B>) -> B + Send + Sync + 'static,
    ) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        self.edit(|settings| settings.replay.add_buffered_body(limit, wrap))
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

    /// Requires every request that would get a token to choose it, or its task to, so that no
    /// request silently gets that of a default tenant.
    ///
    /// A request without a choice fails with
    /// [`RequestAuthMissing`](crate::TokenErrorKind::RequestAuthMissing). The task's choice is read
    /// when the service is called: it is not visible behind a `Buffer`, or in a task that was
    /// spawned within the scope. A layer outside of this one may drop the extensions of a request,
    /// as tower-http's `FollowRedirect` does on a redirect (0.6 always, 0.7 across origins).
    ///
    /// A request to an origin that is not allowed gets no token and no error.
    ///
    /// Default: a request without a choice gets the token of the source's own configuration.
    #[must_use]
    pub fn require_request_auth(self) -> Self {
        self.edit(|settings| settings.require_request_auth = true)
    }

    /// Returns the cache that provides the layer's tokens.
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
