//! The shapes of the public API: code that uses them compiles and keeps compiling.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bearer_auth::{
    AccessToken, BearerAuth, BearerAuthLayer, BoxError, ClientAuthentication, ClientCredentials,
    InvalidToken, MockAuthServer, MockTokenSource, RequestAuth, StaticTokenSource, TokenCache,
    TokenError, TokenErrorKind, TokenRequest, TokenSource, source_fn,
};
use http::{Method, Request, Response};
use tower::{Layer, Service, ServiceExt};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

for_both_reqwests! {
    #[tokio::test]
    async fn an_existing_reqwest_client_sends_tokens() -> Outcome {
        let server = MockAuthServer::start().await?;
        let source = ClientCredentials::builder(server.token_url())
            .client_id(server.client_id())
            .client_secret(server.client_secret())
            .scope("tenant/4f1c2d3e")
            .client_authentication(ClientAuthentication::SecretPost)
            .param("audience", "api")
            .build()?;
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(BearerAuthLayer::new(source).allow_origin(server.origin())?)
            .build();
        let response = client.get(server.api_url()).send().await?;
        assert_eq!(response.status(), 200);
        client
            .get(server.api_url())
            .with_extension(RequestAuth::scope("tenant/42"))
            .send()
            .await?;
        client
            .put(server.api_url())
            .with_extension(RequestAuth::skip())
            .send()
            .await?;
        client
            .put(server.api_url())
            .with_extension(RequestAuth::default().without_replay())
            .send()
            .await?;
        assert_eq!(server.token_requests(), 2);
        assert_eq!(server.api_requests(), 4);
        server.revoke_all();
        Ok(())
    }

    #[tokio::test]
    async fn a_bare_reqwest_client_is_an_inner_service() -> Outcome {
        let server = MockAuthServer::start().await?;
        let source = source_fn(|_| async { Err(TokenError::permanent("not today")) });
        let auth = BearerAuthLayer::new(source).allow_http().without_replay();
        let mut service = tower::ServiceBuilder::new()
            .layer(auth)
            .service(reqwest::Client::new());
        let url: reqwest::Url = server.api_url().parse()?;
        let error = service
            .ready()
            .await?
            .call(reqwest::Request::new(Method::GET, url))
            .await
            .unwrap_err();
        assert_eq!(
            error.downcast_ref::<TokenError>().unwrap().kind(),
            TokenErrorKind::Source
        );
        Ok(())
    }

    #[tokio::test]
    async fn the_layer_works_between_other_layers_and_in_spawned_tasks() -> Outcome {
        let server = MockAuthServer::start().await?;
        let auth = BearerAuthLayer::new(MockTokenSource::new());
        let service = tower::ServiceBuilder::new()
            .buffer(16)
            .timeout(Duration::from_secs(5))
            .layer(auth)
            .timeout(Duration::from_secs(5))
            .concurrency_limit(4)
            .service(reqwest::Client::new());
        let url: reqwest::Url = server.api_url().parse()?;
        let calls = (0..10).map(|_| {
            let (service, request) = (
                service.clone(),
                reqwest::Request::new(Method::GET, url.clone()),
            );
            tokio::spawn(async move { service.oneshot(request).await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await??.status(), 401, "a token of another issuer");
        }
        Ok(())
    }
}

#[tokio::test]
async fn clients_of_both_versions_of_reqwest_share_one_layer_and_its_tokens() -> Outcome {
    let server = MockAuthServer::start().await?;
    let source = ClientCredentials::builder(server.token_url())
        .client_id(server.client_id())
        .client_secret(server.client_secret())
        .reqwest_0_12_builder(reqwest_0_12::Client::builder())
        .build()?;
    let auth = BearerAuthLayer::new(source).allow_origin(server.origin())?;
    let latest = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(auth.clone())
        .build();
    let earlier = reqwest_middleware_0_4::ClientBuilder::new(reqwest_0_12::Client::new())
        .with(auth.clone())
        .build();
    let url = server.api_url();
    for token_requests in 1..=2 {
        assert_eq!(latest.get(url).send().await?.status(), 200);
        assert_eq!(earlier.get(url).send().await?.status(), 200);
        let request = reqwest::Request::new(Method::GET, url.parse()?);
        let response = auth.layer(reqwest::Client::new()).oneshot(request).await?;
        assert_eq!(response.status(), 200);
        let request = reqwest_0_12::Request::new(Method::GET, url.parse()?);
        let service = auth.layer(reqwest_0_12::Client::new());
        assert_eq!(service.oneshot(request).await?.status(), 200);
        assert_eq!(server.token_requests(), token_requests);
        server.revoke_all();
    }
    Ok(())
}

#[tokio::test]
async fn a_tower_stack_needs_no_traits_of_its_body() -> Outcome {
    #[derive(Debug)]
    struct NeitherCloneNorDefault;

    fn is_clone_and_send<T: Clone + Send + 'static>(_: &T) {}

    let inner = tower::service_fn(|request: Request<NeitherCloneNorDefault>| async move {
        assert_eq!(request.headers()["authorization"], "Bearer opaque");
        Ok::<_, std::io::Error>(Response::new(request.into_body()))
    });
    let auth = BearerAuthLayer::new(StaticTokenSource::new("opaque")?)
        .allow_origin("https://api.example.com")?;
    let mut service = tower::ServiceBuilder::new().layer(auth).service(inner);
    is_clone_and_send(&service);
    let request = Request::get("https://api.example.com/").body(NeitherCloneNorDefault)?;
    let response = service.ready().await?.call(request).await?;
    assert_eq!(format!("{:?}", response.body()), "NeitherCloneNorDefault");

    fn has_no_other_parameter<S>(_: BearerAuth<S>) {}
    has_no_other_parameter(service);
    Ok(())
}

/// Responds with its name.
#[derive(Clone)]
struct Named(&'static str);

impl Service<Request<()>> for Named {
    type Response = Response<&'static str>;
    type Error = Infallible;
    type Future = Ready<Result<Response<&'static str>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(self.0)))
    }
}

#[tokio::test]
async fn the_inner_service_can_be_borrowed_changed_and_taken_out() -> Outcome {
    let layer = BearerAuthLayer::new(StaticTokenSource::new("opaque")?);
    let mut service: BearerAuth<Named> = layer.layer(Named("before"));
    assert_eq!(service.get_ref().0, "before");

    *service.get_mut() = Named("after");
    assert_eq!(service.get_ref().0, "after");
    let request = Request::get("https://api.example.com/").body(())?;
    let response = service.ready().await?.call(request).await?;
    assert_eq!(*response.body(), "after");

    let inner: Named = service.into_inner();
    assert_eq!(inner.0, "after");
    Ok(())
}

#[tokio::test]
async fn closures_structs_and_trait_objects_are_sources() -> Outcome {
    struct Fixed;

    #[async_trait::async_trait]
    impl TokenSource for Fixed {
        async fn fetch(&self, request: &TokenRequest) -> Result<AccessToken, TokenError> {
            assert_eq!(request.scopes(), None);
            Ok(AccessToken::new("fixed")?.without_expiry())
        }
    }

    let source = source_fn(|request: TokenRequest| async move {
        assert!(request.scopes().is_none());
        Ok(AccessToken::new("opaque")?.with_lifetime(Duration::from_secs(900)))
    });
    let object: Arc<dyn TokenSource> = Arc::new(Fixed);
    for cache in [
        TokenCache::new(source),
        TokenCache::new(Fixed),
        TokenCache::new(object),
        TokenCache::new(Box::new(Fixed) as Box<dyn TokenSource>),
    ] {
        cache.token().await?;
    }
    let converted: TokenError = AccessToken::new("").unwrap_err().into();
    assert_eq!(converted.kind(), TokenErrorKind::InvalidToken);
    assert!(TokenError::transient("down").is_transient());
    assert!(!TokenError::permanent(std::io::Error::other("no")).is_transient());
    Ok(())
}

#[tokio::test]
async fn the_cache_works_without_a_layer() -> Outcome {
    let invalid: Result<AccessToken, InvalidToken> = AccessToken::new("two words");
    assert!(invalid.is_err());
    let cache = TokenCache::builder(MockTokenSource::new())
        .fetch_timeout(Duration::from_secs(10))
        .default_lifetime(Duration::from_secs(60))
        .max_entries(100)
        .build()
        .unwrap();
    let token: AccessToken = cache.token().await?;
    assert!(token.expires_at().is_some());
    assert_eq!(token.clone().expose_secret(), "mock-token-1");
    let token = cache.token_for(&TokenRequest::scope("tenant/42")).await?;
    cache.invalidate(&token);
    let auth = BearerAuthLayer::from_cache(cache.clone()).require_request_auth();
    let _ = auth.assume_origin("https://api.example.com")?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_mock_source_can_be_held_delayed_and_made_to_fail() -> Outcome {
    let tokens = MockTokenSource::new()
        .with_lifetime(Duration::from_secs(900))
        .with_latency(Duration::from_millis(50));
    let cache = TokenCache::new(tokens.clone());
    let hold = tokens.hold();
    let waiting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.token().await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    drop(hold);
    assert_eq!(waiting.await??.expose_secret(), "mock-token-1");
    assert_eq!(tokens.fetches(), 1);
    assert_eq!(tokens.requests(), vec![TokenRequest::default()]);

    tokio::time::advance(Duration::from_secs(900)).await;
    tokens.fail_next(TokenError::permanent("no"));
    assert!(cache.token().await.is_err());
    tokens.fail_times(3, TokenError::transient("down"));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(cache.token().await.is_err());
    assert_eq!(tokens.fetches(), 5);
    Ok(())
}

#[test]
fn token_errors_are_clone_and_found_by_downcast() {
    fn is_shared<T: Clone + Error + Send + Sync + 'static>() {}
    is_shared::<TokenError>();
    let error = TokenError::transient("down");
    assert_eq!(error.kind(), TokenErrorKind::Source);
    assert_eq!(
        (
            error.retry_after(),
            error.status(),
            error.oauth_error(),
            error.error_description()
        ),
        (None, None, None, None)
    );
    let boxed: BoxError = error.into();
    assert!(boxed.downcast_ref::<TokenError>().is_some());
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NANOSECOND: Duration = Duration::from_nanos(1);

#[tokio::test]
async fn an_invalid_setting_is_an_error_of_build_that_names_it() {
    let tokens = MockTokenSource::new();
    let builder = || TokenCache::builder(tokens.clone());
    for (cache, setting) in [
        (builder().fetch_timeout(Duration::ZERO), "fetch_timeout"),
        (builder().fetch_timeout(DAY + NANOSECOND), "fetch_timeout"),
        (
            builder().first_pause(DAY).longest_pause(DAY - NANOSECOND),
            "longest_pause",
        ),
        (
            builder().default_lifetime(Duration::ZERO),
            "default_lifetime",
        ),
        (builder().first_pause(Duration::ZERO), "first_pause"),
        (
            builder().longest_pause(Duration::from_millis(1)),
            "longest_pause",
        ),
        (builder().max_entries(0), "max_entries"),
        (
            builder().max_concurrent_fetches(0),
            "max_concurrent_fetches",
        ),
    ] {
        let error = cache.build().unwrap_err();
        assert_eq!(error.setting(), setting);
        assert!(error.to_string().contains(setting), "{error}");
    }
    assert_eq!(tokens.fetches(), 0);
    let longest = builder()
        .fetch_timeout(DAY)
        .first_pause(DAY)
        .longest_pause(DAY);
    longest.build().unwrap().token().await.unwrap();
}
