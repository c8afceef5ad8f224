//! Responses of real token endpoints that differ from RFC 6749 (rules 4, 11, 14 and 15 of
//! `docs/behaviour.md`), sent over real sockets through the default transport, and what the error
//! says about them.

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bearer_auth::TokenErrorKind::{
    InvalidClient, InvalidResponse, Refused, Source, Throttled, Unavailable,
};
use bearer_auth::{
    AccessToken, BearerAuthLayer, BoxError, ClientCredentials, TokenCache, TokenError,
    TokenRequest, source_fn,
};
use bytes::Bytes;
use http::header::{DATE, RETRY_AFTER};
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body_util::Full;

use crate::support::api::{Api, Scripted, ok};
use crate::support::stack::{Kind, Stack};

const DAY: Duration = Duration::from_secs(86_400);

/// Returns a response of the token endpoint.
fn response(status: u16, body: impl Into<Bytes>) -> Scripted {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn cache(endpoint: &Api) -> TokenCache {
    let source = ClientCredentials::builder(endpoint.url("/token"))
        .client_id("id")
        .client_secret("hush-hush")
        .build();
    TokenCache::new(source.unwrap())
}

/// Fetches a token once. Returns the outcome and the number of token requests.
async fn fetch(
    script: impl Fn() -> Scripted + Send + Sync + 'static,
) -> (Result<AccessToken, TokenError>, usize) {
    let endpoint = Api::start(move |_| script()).await;
    let outcome = cache(&endpoint).token().await;
    (outcome, endpoint.requests().len())
}

/// Fetches a token, which must take one request.
async fn token(body: impl Into<Bytes>) -> AccessToken {
    let body = body.into();
    let (outcome, requests) = fetch(move || response(200, body.clone())).await;
    assert_eq!(requests, 1);
    outcome.unwrap()
}

#[tokio::test]
async fn the_token_type_bearer_token_means_bearer() {
    for token_type in ["BearerToken", "bearertoken", "BEARERTOKEN"] {
        let body = format!(r#"{{"access_token":"t1","token_type":"{token_type}"}}"#);
        assert_eq!(token(body).await.authorization(), "Bearer t1");
    }
}

#[tokio::test]
async fn another_token_type_is_not_tried_again_before_a_pause() {
    let body = r#"{"access_token":"t1","token_type":"DPoP"}"#;
    let (outcome, requests) = fetch(move || response(200, body)).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), InvalidResponse);
    assert!(error.is_transient());
    assert!(error.retry_after().unwrap() >= Duration::from_secs(1));
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn an_expires_in_of_zero_does_not_invalidate_a_first_token() {
    for expires_in in ["0", "-1", "\"0\"", "NaN", "1e400"] {
        let body = format!(r#"{{"access_token":"t1","expires_in":{expires_in}}}"#);
        assert_eq!(token(body).await.expose_secret(), "t1");
    }
}

#[tokio::test]
async fn bad_text_in_another_member_does_not_hide_the_token() {
    for scope in [&b"caf\xE9"[..], b"\\ud800", b"a\nb", b"\\q", b"\xFF\xFE"] {
        let before = br#"{"scope":""#;
        let after = br#"","access_token":"t1","token_type":"Bearer"}"#;
        let body = [&before[..], scope, after].concat();
        assert_eq!(token(body).await.expose_secret(), "t1");
    }
    let latin_1 = b"{\"access_token\":\"t1\",\"scope\":\"caf\xE9\"}".to_vec();
    assert_eq!(token(latin_1).await.scope(), Some("caf\u{FFFD}"));
}

#[tokio::test]
async fn bad_text_in_the_description_does_not_hide_the_error_code() {
    for description in [&b"caf\xE9"[..], b"\\ud800", b"line\r\nbreak"] {
        let before = br#"{"error_description":""#;
        let after = br#"","error":"invalid_client"}"#;
        let body = [&before[..], description, after].concat();
        let (outcome, requests) = fetch(move || response(400, body.clone())).await;
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.kind(), error.oauth_error()),
            (InvalidClient, Some("invalid_client"))
        );
        assert!(error.error_description().unwrap().contains('\u{FFFD}'));
        assert_eq!(requests, 1);
    }
}

#[tokio::test]
async fn of_a_repeated_member_the_last_one_counts() {
    let body = r#"{"access_token":"t1","scope":"a","access_token":"t2","scope":"b"}"#;
    let token = token(body).await;
    assert_eq!((token.expose_secret(), token.scope()), ("t2", Some("b")));

    let body = r#"{"error":"invalid_scope","error":"invalid_client"}"#;
    let (outcome, _) = fetch(move || response(400, body)).await;
    assert_eq!(outcome.unwrap_err().kind(), InvalidClient);
}

#[tokio::test]
async fn a_retry_after_as_a_date_counts_from_the_date_of_the_response() {
    let today = SystemTime::now();
    for server_time in [today - DAY, today, today + DAY] {
        // A date has whole seconds.
        let seconds = server_time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (outcome, requests) = fetch(move || {
            let date = |seconds| {
                let time = UNIX_EPOCH + Duration::from_secs(seconds);
                httpdate::fmt_http_date(time).parse().unwrap()
            };
            let mut response = response(503, "");
            response.headers_mut().insert(DATE, date(seconds));
            response
                .headers_mut()
                .insert(RETRY_AFTER, date(seconds + 20));
            response
        })
        .await;
        let wait = outcome.unwrap_err().retry_after();
        assert_eq!((wait, requests), (Some(Duration::from_secs(20)), 1));
    }
}

#[tokio::test]
async fn a_400_with_server_error_or_unknown_error_is_transient() {
    for code in ["server_error", "unknown_error"] {
        let (outcome, requests) =
            fetch(move || response(400, format!(r#"{{"error":"{code}"}}"#))).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (Unavailable, true));
        assert_eq!(error.oauth_error(), Some(code));
        assert_eq!(requests, 3, "{code}");
    }
}

#[tokio::test]
async fn a_custom_source_reads_a_token_response() {
    let headers = HeaderMap::from_iter([(RETRY_AFTER, "120".parse().unwrap())]);
    let body = br#"{"access_token":"t1","expires_in":"900","scope":"a"}"#;
    let read = |status, body: &[u8]| AccessToken::from_token_response(status, &headers, body);
    let token = read(StatusCode::OK, body).unwrap();
    assert_eq!((token.expose_secret(), token.scope()), ("t1", Some("a")));
    let life = token
        .expires_at()
        .unwrap()
        .duration_since(SystemTime::now());
    assert!((899..=900).contains(&life.unwrap().as_secs()));

    let error = read(StatusCode::BAD_REQUEST, br#"{"error":"slow_down"}"#).unwrap_err();
    assert_eq!(error.kind(), Throttled);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    let too_long = [&body[..], &[b' '; 256 << 10]].concat();
    let error = read(StatusCode::OK, &too_long).unwrap_err();
    assert_eq!(error.kind(), InvalidResponse);
}

#[tokio::test]
async fn an_error_names_its_request_and_its_endpoint() {
    let endpoint = Api::start(|_| response(400, "")).await;
    let cache = cache(&endpoint);
    let request = TokenRequest::scope("tenant/1");
    let fetched = cache.token_for(&request).await.unwrap_err();
    let paused = cache.token_for(&request).await.unwrap_err();
    for (error, is_paused) in [(fetched, false), (paused, true)] {
        assert_eq!(error.kind(), Refused);
        assert_eq!(error.is_paused(), is_paused);
        assert_eq!(error.token_request(), Some(&request));
        assert_eq!(error.token_endpoint(), Some(&*endpoint.authority()));
        let text = error.to_string();
        assert!(!text.contains("tenant") && !text.contains("127"), "{text}");
    }
    assert_eq!(endpoint.requests().len(), 1);

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = listener.local_addr().unwrap().to_string();
    drop(listener);
    let source = ClientCredentials::builder(format!("http://{unused}/token"))
        .client_id("id")
        .client_secret("hush-hush")
        .build();
    let error = TokenCache::new(source.unwrap()).token().await.unwrap_err();
    assert_eq!(error.token_endpoint(), Some(&*unused));
    assert_eq!(error.token_request(), Some(&TokenRequest::default()));
}

#[tokio::test]
async fn a_paused_error_keeps_its_kind_and_the_time_that_remains() {
    let cache = TokenCache::new(source_fn(|_| async {
        let wait = Duration::from_secs(60);
        Err::<AccessToken, _>(TokenError::transient("down").with_retry_after(wait))
    }));
    assert!(!cache.token().await.unwrap_err().is_paused());
    let error = cache.token().await.unwrap_err();
    assert!(error.is_paused());
    assert_eq!(error.kind(), Source);
    assert!(error.retry_after().unwrap() <= Duration::from_secs(60));
    assert_eq!(error.source().unwrap().to_string(), "down");
}

#[tokio::test]
async fn find_returns_the_error_in_every_stack() {
    let api = Api::start(|_| ok()).await;
    for kind in Kind::ALL {
        let layer = BearerAuthLayer::new(source_fn(|_| async {
            Err::<AccessToken, _>(TokenError::permanent("down"))
        }));
        let error = Stack::new(kind, &layer)
            .get(api.url("/"))
            .await
            .unwrap_err();
        let found = TokenError::find(&*error).map(TokenError::kind);
        assert_eq!(found, Some(Source), "{kind:?}: {error:?}");
    }
}

#[derive(Debug)]
struct Transparent(BoxError);

impl fmt::Display for Transparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Transparent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

for_both_reqwests! {
    /// Wraps errors as reqwest-retry's middleware does: in a type that shows the inner error's text
    /// and cause as its own.
    struct Wraps;

    #[async_trait::async_trait]
    impl reqwest_middleware::Middleware for Wraps {
        async fn handle(
            &self,
            request: reqwest::Request,
            extensions: &mut Extensions,
            next: reqwest_middleware::Next<'_>,
        ) -> reqwest_middleware::Result<reqwest::Response> {
            let response = next.run(request, extensions).await;
            let wrap = |error: reqwest_middleware::Error| Transparent(error.into());
            response.map_err(|error| reqwest_middleware::Error::middleware(wrap(error)))
        }
    }

    #[tokio::test]
    async fn find_looks_through_middlewares_that_wrap_errors() {
        let layer = BearerAuthLayer::new(source_fn(|_| async {
            Err::<AccessToken, _>(TokenError::permanent("down"))
        }));
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(Wraps)
            .with(layer)
            .build();
        let api = Api::start(|_| ok()).await;
        let error = client.get(api.url("/")).send().await.unwrap_err();
        let found = TokenError::find(&error).map(TokenError::kind);
        assert_eq!(found, Some(Source), "{error:?}");
        assert!(error.to_string().contains("will not recover by itself"));
    }

    #[test]
    fn find_returns_the_error_that_a_middleware_passes_on_as_it_is() {
        let error = reqwest_middleware::Error::middleware(TokenError::permanent("down"));
        let found = TokenError::find(&error).map(TokenError::kind);
        assert_eq!(found, Some(Source), "{error:?}");
    }
}
