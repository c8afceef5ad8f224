//! Requests that a client inside of the layer redirects, and responses whose URL is unknown: what
//! their 401s reject, and which of them are replayed.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, MockTokenSource};
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::{FollowRedirectLayer, RequestUri};
use tower_http_06::follow_redirect::FollowRedirectLayer as FollowRedirectLayer06;

use crate::support::api::{Api, ok, status};
use crate::support::stack::{Call, Kind, Stack};

type Following = BoxCloneSyncService<Request<Full<Bytes>>, StatusCode, BoxError>;
type Log = Arc<Mutex<Vec<String>>>;

/// All stacks in which redirects are followed inside of the layer.
fn stacks(layer: &BearerAuthLayer) -> Vec<(&'static str, Following)> {
    let of_reqwest = |kind| {
        let stack = Stack::new(kind, layer);
        let send = service_fn(move |request: Request<Full<Bytes>>| {
            let stack = stack.clone();
            async move {
                let call = Call {
                    method: request.method().clone(),
                    ..Call::post(request.uri().to_string(), "body")
                };
                Ok(stack.send(call).await?.status)
            }
        });
        BoxCloneSyncService::new(send)
    };
    let client = || Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let inside = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(FollowRedirectLayer::new())
        .service(client())
        .map_response(|response| response.status());
    let inside_06 = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(FollowRedirectLayer06::new())
        .service(client())
        .map_response(|response| response.status());
    vec![
        ("reqwest-middleware", of_reqwest(Kind::Middleware)),
        ("tower around reqwest", of_reqwest(Kind::TowerReqwest)),
        ("reqwest-middleware 0.4", of_reqwest(Kind::Middleware04)),
        (
            "tower around reqwest 0.12",
            of_reqwest(Kind::TowerReqwest012),
        ),
        ("tower-http 0.7", BoxCloneSyncService::new(inside)),
        ("tower-http 0.6", BoxCloneSyncService::new(inside_06)),
    ]
}

/// An API that redirects `/old` to `/new` with this status, and rejects the first token at `/new`.
async fn redirecting(code: u16) -> (Api, Log) {
    let log = Log::default();
    let requests = Arc::clone(&log);
    let api = Api::start(move |seen| {
        let request = format!("{} {}", seen.method, seen.uri.path());
        requests.lock().unwrap().push(request);
        match (seen.uri.path(), seen.token()) {
            ("/old", _) => {
                let mut response = status(code);
                let new = "/new".parse().unwrap();
                response.headers_mut().insert(LOCATION, new);
                response
            }
            (_, Some("mock-token-1")) => rejection(),
            _ => ok(),
        }
    });
    (api.await, log)
}

fn layer(tokens: &MockTokenSource, api: &Api) -> BearerAuthLayer {
    BearerAuthLayer::new(tokens.clone())
        .allow_origin(api.origin())
        .unwrap()
}

/// A 401 that withdraws the token at once, so that the next request waits for another.
fn rejection() -> Response<Full<Bytes>> {
    let mut response = status(401);
    let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

async fn send(client: &Following, method: &Method, url: String) -> StatusCode {
    let request = Request::builder().method(method).uri(url);
    let request = request.body(Full::default()).unwrap();
    client.clone().oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_redirected_post_is_sent_once_and_the_token_is_refreshed_for_the_next() {
    for (code, redirected) in [
        (301, "GET"),
        (302, "GET"),
        (303, "GET"),
        (307, "POST"),
        (308, "POST"),
    ] {
        for index in 0..6 {
            let (api, log) = redirecting(code).await;
            let tokens = MockTokenSource::new();
            let (name, client) = stacks(&layer(&tokens, &api)).swap_remove(index);
            let status = send(&client, &Method::POST, api.url("/old")).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}, {code}");
            let status = send(&client, &Method::POST, api.url("/other")).await;
            assert_eq!(status, StatusCode::OK, "{name}, {code}");
            assert_eq!(tokens.fetches(), 2, "{name}, {code}");
            let redirected = format!("{redirected} /new");
            let expected = ["POST /old", &redirected, "POST /other"];
            assert_eq!(*log.lock().unwrap(), expected, "{name}, {code}");
        }
    }
}

#[tokio::test]
async fn redirected_requests_are_replayed_only_with_safe_methods() {
    for (method, is_replayed) in [
        (Method::GET, true),
        (Method::HEAD, true),
        (Method::OPTIONS, true),
        (Method::TRACE, true),
        (Method::POST, false),
        (Method::PUT, false),
        (Method::PATCH, false),
        (Method::DELETE, false),
    ] {
        for index in 0..6 {
            let (api, log) = redirecting(307).await;
            let tokens = MockTokenSource::new();
            let (name, client) = stacks(&layer(&tokens, &api)).swap_remove(index);
            let status = send(&client, &method, api.url("/old")).await;
            let is_ok = status == StatusCode::OK;
            let requests = log.lock().unwrap().len();
            assert_eq!(
                (is_ok, requests),
                (is_replayed, if is_replayed { 4 } else { 2 }),
                "{name}, {method}"
            );
        }
    }
}

/// The origin of a request that is not one of the settings' is taken from the copy.
#[tokio::test]
async fn a_redirected_post_is_sent_once_also_without_an_allowed_origin() {
    for index in 0..6 {
        let (api, log) = redirecting(303).await;
        let tokens = MockTokenSource::new();
        let layer = BearerAuthLayer::new(tokens.clone());
        let (name, client) = stacks(&layer).swap_remove(index);
        let status = send(&client, &Method::POST, api.url("/old")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}");
        layer.cache().token().await.unwrap();
        assert_eq!(tokens.fetches(), 2, "{name}");
        assert_eq!(*log.lock().unwrap(), ["POST /old", "GET /new"], "{name}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_redirected_is_replayed_with_any_method() {
    for path in ["/new", "/new?", "/new?query", "/new#fragment", ""] {
        for index in 0..6 {
            let (api, log) = redirecting(303).await;
            let (name, client) = stacks(&layer(&MockTokenSource::new(), &api)).swap_remove(index);
            let url = api.url(path).replace("http://", "HTTP://");
            let status = send(&client, &Method::POST, url).await;
            assert_eq!(status, StatusCode::OK, "{name}, {path}");
            assert_eq!(log.lock().unwrap().len(), 2, "{name}, {path}");
        }
    }
}

/// The client drops the header on its way to the other origin, so that the API does not judge the
/// token at all.
#[tokio::test(start_paused = true)]
async fn a_redirect_to_another_origin_and_back_costs_a_refresh_per_spacing() {
    for method in [Method::GET, Method::POST] {
        let log = Log::default();
        let requests = Arc::clone(&log);
        let api = service_fn(move |request: Request<Full<Bytes>>| {
            let url = request.uri().to_string();
            requests.lock().unwrap().push(url.clone());
            let mut response = Response::new(Full::<Bytes>::default());
            let next = match &*url {
                "https://api.example.com/start" => "https://elsewhere.example.com/",
                "https://elsewhere.example.com/" => "https://api.example.com/end",
                _ => {
                    assert!(!request.headers().contains_key(AUTHORIZATION));
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                    return ready(Ok::<_, Infallible>(response));
                }
            };
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response
                .headers_mut()
                .insert(LOCATION, next.parse().unwrap());
            ready(Ok(response))
        });
        let tokens = MockTokenSource::new();
        let layer = BearerAuthLayer::new(tokens.clone())
            .allow_origin("https://api.example.com")
            .unwrap();
        let mut service = layer.layer(FollowRedirectLayer::new().layer(api));
        for _ in 0..50 {
            let request = Request::builder()
                .method(&method)
                .uri("https://api.example.com/start");
            let request = request.body(Full::default()).unwrap();
            let response = service.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The first token, one refresh at once, and one after the doubled spacing of 2 s.
        assert!(tokens.fetches() <= 3, "{method}: {}", tokens.fetches());
        let starts = log.lock().unwrap();
        let starts = starts.iter().filter(|url| url.ends_with("/start")).count();
        if method == Method::POST {
            assert_eq!(starts, 50, "sent once each");
        }
    }
}

for_both_reqwests! {
    /// The response of a cache, a mock or another protocol: it has no URL of its own.
    fn response_without_url(headers: &HeaderMap) -> reqwest::Response {
        let mut response = http::Response::new("made up");
        if headers[AUTHORIZATION] == "Bearer mock-token-1" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response.into()
    }

    struct WithoutUrl;

    #[async_trait::async_trait]
    impl reqwest_middleware::Middleware for WithoutUrl {
        async fn handle(
            &self,
            request: reqwest::Request,
            _: &mut Extensions,
            _: reqwest_middleware::Next<'_>,
        ) -> reqwest_middleware::Result<reqwest::Response> {
            Ok(response_without_url(request.headers()))
        }
    }

    #[tokio::test]
    async fn a_reqwest_response_without_a_url_rejects_and_is_no_redirect() {
        let url = "https://api.example.com/x";
        for has_allowed_origin in [false, true] {
            for is_stream in [false, true] {
                let body = || match is_stream {
                    true => reqwest::Body::wrap(Full::new(Bytes::from_static(b"body"))),
                    false => reqwest::Body::from("body"),
                };
                let layer = || {
                    let tokens = MockTokenSource::new();
                    let layer = BearerAuthLayer::new(tokens.clone());
                    let layer = match has_allowed_origin {
                        true => layer.allow_origin("https://api.example.com").unwrap(),
                        false => layer,
                    };
                    (layer, tokens)
                };
                // A stream is not replayed, but its token is refreshed too.
                let expected = match is_stream {
                    true => StatusCode::UNAUTHORIZED,
                    false => StatusCode::OK,
                };

                let (auth, tokens) = layer();
                let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
                    .with(auth.clone())
                    .with(WithoutUrl)
                    .build();
                let response = client.post(url).body(body()).send().await.unwrap();
                assert_eq!(response.status(), expected);
                auth.cache().token().await.unwrap();
                assert_eq!(tokens.fetches(), 2);

                let (auth, tokens) = layer();
                let mut service = auth.layer(service_fn(async |request: reqwest::Request| {
                    Ok::<_, Infallible>(response_without_url(request.headers()))
                }));
                let mut request = reqwest::Request::new(Method::POST, url.parse().unwrap());
                *request.body_mut() = Some(body());
                let response = service.ready().await.unwrap().call(request).await.unwrap();
                assert_eq!(response.status(), expected);
                auth.cache().token().await.unwrap();
                assert_eq!(tokens.fetches(), 2);
            }
        }
    }
}

/// The inner service knows the origin of such a request. It names one in the response only if it
/// followed a redirect.
#[tokio::test(start_paused = true)]
async fn a_request_for_a_path_is_judged_by_a_response_from_a_path_alone() {
    for (from, fetches) in [("/new", 2), ("https://elsewhere.example/new", 1)] {
        let tokens = MockTokenSource::new();
        let api = service_fn(move |_: Request<()>| {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let from = RequestUri(Uri::from_static(from));
            response.extensions_mut().insert(from);
            ready(Ok::<_, Infallible>(response))
        });
        let service = BearerAuthLayer::new(tokens.clone()).layer(api);
        let request = Request::get("/old").body(()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{from}");
        assert_eq!(tokens.fetches(), fetches, "{from}");
    }
}
