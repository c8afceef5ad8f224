//! All stacks against a certified authorization server and an API that accepts its tokens
//! (`tests/servers/oidc-provider`), both independent of this crate.
//!
//! Needs `node` 20.19 or later and `npm`. Without them, or if the first run cannot reach npm's
//! registry, the tests are skipped with a notice. If `CI` is set, they fail instead.

mod assertions;
mod certificates;
mod discovery;
mod grants;
mod server;

#[path = "../support"]
mod support {
    pub(crate) mod node;
    #[macro_use]
    mod reqwest_versions;
    pub(crate) mod stack;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bearer_auth::{
    BearerAuthLayer, BoxError, ClientAuthentication, ClientCredentials, ClientCredentialsBuilder,
    RequestAuth, TokenErrorKind,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};
use server::{Counters, Server};
use support::node::installation::notice;
use support::node::json_body;
use support::stack::{ApiResponse, Call, Kind, Stack, token_error};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use ClientAuthentication::{SecretBasic, SecretPost};

const SPECIAL_SECRET: &str = "p@ss:w%rd&=+ /";

/// The counters after one token request and one accepted API request.
const ONE_OF_EACH: Counters = Counters {
    token_requests: 1,
    token_responses_ok: 1,
    token_requests_basic: 0,
    token_requests_tls: 0,
    api_requests: 1,
    api_unauthorized: 0,
};

/// Returns a source that authenticates in the form and requests the scope `tenant/42`.
fn credentials(server: &Server, id: &str, secret: &str) -> ClientCredentialsBuilder {
    ClientCredentials::builder(&server.token_url)
        .client_id(id)
        .client_secret(secret)
        .scope("tenant/42")
}

fn layer(server: &Server, source: ClientCredentialsBuilder) -> BearerAuthLayer {
    BearerAuthLayer::new(source.build().unwrap())
        .allow_origin(&server.api_url)
        .unwrap()
}

/// Returns a stack with an empty cache, whose tokens will have a lifetime of 900 s.
fn long_lived(kind: Kind, server: &Server) -> Stack {
    let source = credentials(server, "post-client", "post-secret");
    Stack::new(kind, &layer(server, source))
}

/// Returns the API's report of a request that it accepted.
fn accepted(response: Result<ApiResponse, BoxError>) -> Value {
    let response = response.unwrap();
    let report = json_body(&response);
    assert_eq!(response.status, StatusCode::OK, "{report}");
    report
}

#[tokio::test]
async fn each_client_authentication_gets_a_token_that_the_api_accepts() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for (id, secret, style) in [
            ("post-client", "post-secret", SecretPost),
            ("basic-client", "basic-secret", SecretBasic),
            ("special-post", SPECIAL_SECRET, SecretPost),
            ("special-basic", SPECIAL_SECRET, SecretBasic),
        ] {
            server.reset_counters().await;
            let source = credentials(&server, id, secret).client_authentication(style);
            let stack = Stack::new(kind, &layer(&server, source));
            let report = accepted(stack.get(server.url("/transactions")).await);
            assert_eq!(report["client"], id, "{kind:?}");
            assert_eq!(report["scope"], "tenant/42", "{kind:?}, {id}");
            assert_eq!(report["path"], "/transactions", "{kind:?}, {id}");
            let token_requests_basic = usize::from(style == SecretBasic);
            let expected = Counters {
                token_requests_basic,
                ..ONE_OF_EACH
            };
            assert_eq!(server.counters().await, expected, "{kind:?}, {id}");
        }
    }
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_scope_or_resource_have_different_error_kinds() {
    use TokenErrorKind::{InvalidClient, InvalidScope};

    let Some(server) = Server::start().await else {
        return;
    };
    let post = || credentials(&server, "post-client", "post-secret");
    let wrong = || credentials(&server, "post-client", "no-such-secret");
    for kind in Kind::ALL {
        for (source, expected, code) in [
            (wrong(), InvalidClient, "invalid_client"),
            (
                wrong().client_authentication(SecretBasic),
                InvalidClient,
                "invalid_client",
            ),
            (post().scope("tenant/99"), InvalidScope, "invalid_scope"),
            (
                post().scope("tenant/42 no-such-scope"),
                InvalidScope,
                "invalid_scope",
            ),
            (
                post().param("resource", "urn:example:none"),
                InvalidScope,
                "invalid_target",
            ),
        ] {
            server.reset_counters().await;
            let stack = Stack::new(kind, &layer(&server, source));
            let error = stack.get(server.url("/")).await.unwrap_err();
            let error = token_error(&error).unwrap();
            assert_eq!(error.kind(), expected, "{kind:?}");
            assert_eq!(error.oauth_error(), Some(code), "{kind:?}");
            assert!(
                error
                    .status()
                    .is_some_and(|status| status.is_client_error()),
                "{error}"
            );
            assert!(error.error_description().is_some(), "{kind:?}, {code}");
            assert!(!error.is_transient(), "{kind:?}, {code}");
            let Counters {
                token_requests,
                api_requests,
                ..
            } = server.counters().await;
            assert_eq!((token_requests, api_requests), (1, 0), "{kind:?}, {code}");
        }
    }
}

#[tokio::test]
async fn a_resource_parameter_reaches_the_server() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for resource in ["https://api.example.test/", "urn:example:api"] {
            let source = credentials(&server, "post-client", "post-secret");
            let stack = Stack::new(kind, &layer(&server, source.param("resource", resource)));
            let report = accepted(stack.get(server.url("/")).await);
            assert_eq!(report["aud"], resource, "{kind:?}");
            assert_eq!(report["scope"], "tenant/42", "{kind:?}");
        }
        let report = accepted(long_lived(kind, &server).get(server.url("/")).await);
        assert_eq!(
            report["aud"],
            Value::Null,
            "{kind:?}: without the parameter"
        );
    }
}

#[tokio::test]
async fn a_narrowed_scope_is_available_on_the_token() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.reset_counters().await;
        let source = credentials(&server, "post-client", "post-secret")
            .scope("tenant/42 tenant/7")
            .param("resource", "urn:example:api");
        let layer = layer(&server, source);
        let report = accepted(Stack::new(kind, &layer).get(server.url("/")).await);
        assert_eq!(report["scope"], "tenant/42", "{kind:?}");
        let token = layer.cache().token().await.unwrap();
        assert_eq!(token.scope(), Some("tenant/42"), "{kind:?}");
        assert_eq!(
            server.counters().await,
            ONE_OF_EACH,
            "{kind:?}: it is the token that was sent"
        );
    }
}

#[tokio::test]
async fn each_request_carries_the_token_of_its_own_tenant() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::WITH_EXTENSIONS {
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let tenants = ["tenant/42", "tenant/43", "tenant/7"];
        let reports = join_all((0..60).map(|index| {
            let (stack, tenant) = (&stack, tenants[index % tenants.len()]);
            let call = Call::get(server.url("/")).auth(RequestAuth::scope(tenant));
            async move { (accepted(stack.send(call).await), tenant) }
        }));
        for (report, tenant) in reports.await {
            assert_eq!(report["scope"], tenant, "{kind:?}");
        }
        let Counters {
            token_requests,
            api_requests,
            ..
        } = server.counters().await;
        assert_eq!(
            (token_requests, api_requests),
            (tenants.len(), 60),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_403_for_the_scope_is_returned_and_causes_no_refresh() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let response = stack.get(server.url("/admin/users")).await.unwrap();
        assert_eq!(response.status, StatusCode::FORBIDDEN, "{kind:?}");
        let challenge = response.headers[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(
            challenge.contains("error=\"insufficient_scope\""),
            "{kind:?}: {challenge}"
        );
        let body = json!({ "ok": false, "error": "insufficient_scope" });
        assert_eq!(json_body(&response), body, "{kind:?}");
        assert_eq!(server.counters().await, ONE_OF_EACH, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_concurrent_callers_cost_one_token_request() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let mut calls = JoinSet::new();
        for index in 0..200 {
            let (stack, url) = (stack.clone(), server.url(&format!("/{index}")));
            calls.spawn(async move { accepted(stack.get(url).await) });
        }
        for report in calls.join_all().await {
            assert_eq!(report["scope"], "tenant/42", "{kind:?}");
        }
        let expected = Counters {
            api_requests: 200,
            ..ONE_OF_EACH
        };
        assert_eq!(server.counters().await, expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_body_is_replayed_byte_for_byte() {
    let Some(server) = Server::start().await else {
        return;
    };
    // All blocks differ, so that one which is lost, doubled or moved changes the digest.
    let body: Bytes = (0..16 * 1024_u32).flat_map(u32::to_le_bytes).collect();
    for kind in Kind::ALL {
        server.revoke_all().await;
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let upload = || Call::post(server.url("/upload"), body.clone());
        let report = accepted(stack.send(upload()).await);
        assert_eq!(report["method"], "POST", "{kind:?}");
        assert_eq!(report["body_bytes"], 64 * 1024, "{kind:?}");

        assert_eq!(server.revoke_all().await, 1, "{kind:?}");
        // The report contains the digest of the body.
        assert!(report["body_sha256"].is_string(), "{report}");
        assert_eq!(accepted(stack.send(upload()).await), report, "{kind:?}");
        let expected = Counters {
            token_requests: 2,
            token_responses_ok: 2,
            token_requests_basic: 0,
            token_requests_tls: 0,
            api_requests: 3,
            api_unauthorized: 1,
        };
        assert_eq!(server.counters().await, expected, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_revoked_under_fifty_callers_costs_one_refresh() {
    const CALLERS: usize = 50;

    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.revoke_all().await;
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let all_have_started = Arc::new(Barrier::new(CALLERS + 1));
        let revoked = Arc::new(AtomicBool::new(false));
        let responses = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (stack, url) = (stack.clone(), server.url("/"));
            let (all_have_started, revoked) = (Arc::clone(&all_have_started), Arc::clone(&revoked));
            let responses = Arc::clone(&responses);
            callers.spawn(async move {
                let call = async || {
                    accepted(stack.get(url.clone()).await);
                    responses.fetch_add(1, Ordering::Relaxed);
                };
                call().await;
                all_have_started.wait().await;
                // Calls in sequence, until one starts after the revocation.
                while !revoked.load(Ordering::SeqCst) {
                    call().await;
                }
                call().await;
            });
        }
        all_have_started.wait().await;
        assert_eq!(server.revoke_all().await, 1, "{kind:?}");
        revoked.store(true, Ordering::SeqCst);
        callers.join_all().await;

        let counters = server.counters().await;
        assert_eq!(
            counters.token_requests, 2,
            "{kind:?}: the first and one more"
        );
        let rejected = counters.api_unauthorized;
        assert!(
            (1..=CALLERS).contains(&rejected),
            "{kind:?}: {rejected} rejections, at most one for each caller"
        );
        assert_eq!(
            counters.api_requests,
            responses.load(Ordering::Relaxed) + rejected,
            "{kind:?}: one replay for each rejection"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_steady_load_a_token_of_5_s_is_refreshed_before_it_expires() {
    const PERIOD: Duration = Duration::from_millis(20);
    const CALLS: usize = 750; // 15 s
    /// The remaining lifetime of a token of 5 s when it is sent for the last time.
    const MARGIN: Duration = Duration::from_secs(1);

    /// Returns false if this machine was too busy for a result.
    async fn load(kind: Kind, server: Server) -> bool {
        let server = Arc::new(server);
        let source = credentials(&server, "short-client", "short-secret");
        let stack = Stack::new(kind, &layer(&server, source));
        let (mut calls, mut plain_calls) = (JoinSet::new(), JoinSet::new());
        let mut interval = interval(PERIOD);
        for index in 0..CALLS {
            interval.tick().await;
            let (stack, url) = (stack.clone(), server.url("/"));
            calls.spawn(async move { stack.get(url).await });
            if index % 10 == 0 {
                let (server, start) = (Arc::clone(&server), Instant::now());
                plain_calls.spawn(async move {
                    server.counters().await;
                    start.elapsed()
                });
            }
        }
        let responses = calls.join_all().await;

        // If a call without a token takes longer than the margin, so may one with a token.
        let slowest = plain_calls.join_all().await.into_iter().max().unwrap();
        if slowest >= MARGIN {
            notice(&format!(
                "steady load on {kind:?}: repeated, as a call without token took {slowest:.1?}"
            ));
            return false;
        }
        for response in responses {
            assert_eq!(accepted(response)["client"], "short-client", "{kind:?}");
        }
        let counters = server.counters().await;
        assert_eq!(counters.api_unauthorized, 0, "{kind:?}: {counters:?}");
        assert_eq!(counters.api_requests, CALLS, "{kind:?}: {counters:?}");
        // One at the start, then one each time a token is due, 3.5 to 3.75 s after the last.
        assert!(
            (4..=5).contains(&counters.token_requests),
            "{kind:?}: {counters:?}"
        );
        true
    }

    let mut kinds = Kind::ALL.to_vec();
    for _ in 0..3 {
        let loads = kinds.into_iter().map(async |kind| {
            let server = Server::start().await?;
            (!load(kind, server).await).then_some(kind)
        });
        kinds = join_all(loads).await.into_iter().flatten().collect();
        if kinds.is_empty() {
            return;
        }
    }
    panic!("this machine is too busy for a result for {kinds:?}");
}
