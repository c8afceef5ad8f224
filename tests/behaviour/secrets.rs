//! No secret is in any output (rule 24 of `docs/behaviour.md`): every public type and every error
//! is formatted and searched for secrets.

use std::error::Error;
use std::fmt::Debug;

use bearer_auth::{
    AccessToken, BearerAuthLayer, ClientAuthentication, ClientCredentials, MockAuthServer,
    MockTokenSource, RequestAuth, StaticTokenSource, TokenCache, TokenError, TokenRequest,
    source_fn, task_local,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};

use crate::support::stack::{Kind, Stack};

const SECRETS: [&str; 4] = [
    "s3cret-of-client",
    "s3cret-of-token",
    "s3cret-of-server",
    "s3cret",
];

fn assert_clean(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in: {text}");
    }
    let encoded = "czNjcmV0";
    assert!(!text.contains(encoded), "base64 of a secret in: {text}");
}

fn assert_debug_is_clean(value: &impl Debug) {
    assert_ne!(format!("{value:?}"), "", "an empty Debug");
    assert_clean(&format!("{value:?}"));
    assert_clean(&format!("{value:#?}"));
}

/// Checks the texts of an error and of all its sources.
fn assert_error_is_clean(error: &(dyn Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        assert_clean(&format!("{error}\n{error:?}\n{error:#?}"));
        next = error.source();
    }
}

#[tokio::test]
async fn no_public_type_shows_a_secret_in_its_debug() {
    let token = AccessToken::new("s3cret-of-token").unwrap();
    let builder = ClientCredentials::builder("https://id.example.com/s3cret-of-client")
        .client_id("id")
        .client_secret("s3cret-of-client")
        .param("software_statement", "s3cret-of-client");
    assert_debug_is_clean(&builder);
    let source = builder.build().unwrap();
    assert_debug_is_clean(&source);
    let fixed = StaticTokenSource::new("s3cret-of-token").unwrap();
    assert_debug_is_clean(&fixed);
    let cache = TokenCache::new(fixed.clone());
    let issued = cache.token().await.unwrap();
    assert_debug_is_clean(&token);
    assert_debug_is_clean(&token.authorization());
    assert_debug_is_clean(&issued);
    assert_debug_is_clean(&cache);
    assert_debug_is_clean(&TokenCache::builder(source));
    let layer = BearerAuthLayer::from_cache(cache);
    assert_debug_is_clean(&layer);
    assert_debug_is_clean(&source_fn(|_| async {
        Ok(AccessToken::new("s3cret-of-token")?)
    }));
    let tokens = MockTokenSource::new();
    assert_debug_is_clean(&(tokens.hold(), tokens));
    let service = layer.layer(tower::util::MapRequest::new(
        tower::service_fn(|_: Request<()>| async { Ok::<_, TokenError>(Response::new(())) }),
        // As a tracing layer inside of this one would log it.
        |request: Request<()>| {
            assert!(request.headers().contains_key("authorization"));
            assert_debug_is_clean(&request);
            request
        },
    ));
    let call = service.oneshot(Request::get("https://a.example").body(()).unwrap());
    assert_debug_is_clean(&call);
    let mut unused = layer.layer(tower::service_fn(async |_: Request<()>| {
        Ok::<_, TokenError>(Response::new(()))
    }));
    assert_debug_is_clean(&unused);
    let request = Request::get("https://a.example").body(()).unwrap();
    assert_debug_is_clean(&tower::Service::call(&mut unused, request));
    let request_auth = RequestAuth::from(TokenRequest::scope("tenant/42"));
    assert_eq!(request_auth, RequestAuth::scope("tenant/42"));
    assert_debug_is_clean(&task_local::with_request_auth(request_auth, async {}));
    call.await.unwrap();
    let server = MockAuthServer::builder()
        .client("id", "s3cret-of-client")
        .start()
        .await
        .unwrap();
    assert_debug_is_clean(&server);
    assert_debug_is_clean(&server.token_log());
}

#[tokio::test]
async fn no_error_shows_a_secret() {
    let server = MockAuthServer::builder().client("id", "s3cret-of-client");
    let body = |body: &str| Response::new(body.to_owned());
    let with_status = |status: u16, text: &str| {
        let mut response = body(text);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    };
    for response in [
        body("s3cret-of-server"),
        body(r#"{"access_token":"s3cret-of-token with blanks"}"#),
        body(r#"{"access_token":"s3cret-of-token","token_type":"s3cret-of-server"}"#),
        body(r#"{"access_token":["s3cret-of-token"]}"#),
        body(r#"{"error":"s3cret of server"}"#),
        body(r#"{"error":"x","error_description":"s3cret-of-server"}"#),
        with_status(
            400,
            r#"{"error":"invalid_scope","error_description":"s3cret-of-server"}"#,
        ),
        with_status(401, r#"{"error":"s3cret of server\u0000"}"#),
        with_status(503, "s3cret-of-server"),
        with_status(302, "s3cret-of-server"),
        body(&"s3cret-of-server".repeat(20_000)),
    ] {
        let case = format!("{} {:.80}", response.status(), response.body());
        for style in [
            ClientAuthentication::SecretPost,
            ClientAuthentication::SecretBasic,
        ] {
            let server = server.clone().start().await.unwrap();
            // More than three: on a busy machine the pause may end before the last stack asks.
            server.answer_token_requests(1_000, response.clone());
            let url = format!("{}?key=s3cret-of-client", server.token_url());
            let source = ClientCredentials::builder(&url)
                .client_id("id")
                .client_secret("s3cret-of-client")
                .client_authentication(style)
                .build()
                .unwrap();
            let layer = BearerAuthLayer::new(source);
            let error = layer.cache().token().await.expect_err(&case);
            assert_error_is_clean(&error);
            // The same error through the stacks, during the pause.
            for kind in Kind::ALL {
                let error = Stack::new(kind, &layer)
                    .get(server.api_url())
                    .await
                    .unwrap_err();
                assert_error_is_clean(&*error);
            }
        }
    }
    let error = AccessToken::new("s3cret-of-token\n").unwrap_err();
    assert_error_is_clean(&error);
    let error = ClientCredentials::builder("http://a.example/s3cret-of-client").build();
    assert_error_is_clean(&error.unwrap_err());
    let error = BearerAuthLayer::new(StaticTokenSource::new("x").unwrap())
        .allow_origin("https://s3cret-of-client@a.example")
        .unwrap_err();
    assert_error_is_clean(&error);
}

#[tokio::test]
async fn a_connection_error_does_not_show_the_token_url() {
    let server = MockAuthServer::start().await.unwrap();
    let url = format!("{}/s3cret-of-client", server.token_url());
    server.shutdown().await;
    let source = ClientCredentials::builder(url)
        .client_id("id")
        .client_secret("s3cret-of-client")
        .build();
    let error = TokenCache::new(source.unwrap()).token().await.unwrap_err();
    assert_error_is_clean(&error);
}

for_both_reqwests! {
    #[tokio::test]
    async fn a_reqwest_error_of_a_tower_transport_does_not_show_the_url() {
        let server = MockAuthServer::start().await.unwrap();
        let url = format!("{}/s3cret-of-client", server.token_url());
        server.shutdown().await;
        let transport = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let response = reqwest::Client::new().get(&url).send();
            async move { Ok::<_, reqwest::Error>(Response::<reqwest::Body>::from(response.await?)) }
        });
        let source = ClientCredentials::builder("https://id.example.com/")
            .client_id("id")
            .client_secret("s3cret-of-client")
            .transport(transport)
            .build();
        let error = TokenCache::new(source.unwrap()).token().await.unwrap_err();
        assert_error_is_clean(&error);
    }
}
