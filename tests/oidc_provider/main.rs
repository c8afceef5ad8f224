//! The three stacks against a certified authorization server and an API that honours its tokens
//! (`tests/servers/oidc-provider`), with no part of this crate on the other side.
//!
//! Needs `node` 20.19 or later and `npm`. Without them, or without a way to npm's registry for the
//! first run, the tests skip and say so; where `CI` is set they fail.

#[path = "oidc_provider/server.rs"]
mod server;
mod servers;

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
use servers::installation::notice;
use servers::stack::{Answer, Call, Kind, Stack, token_error};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use ClientAuthentication::{SecretBasic, SecretPost};

const SPECIAL_SECRET: &str = "p@ss:w%rd&=+ /";

/// What one token request and one accepted API request come to.
const ONE_OF_EACH: Counters = Counters {
    token_requests: 1,
    token_responses_ok: 1,
    token_requests_basic: 0,
    api_requests: 1,
    api_unauthorized: 0,
};

/// A source at this server that authenticates by the form and asks for `tenant/42`.
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

/// A stack that nobody has used yet, with a token of 900 s to come.
fn long_lived(kind: Kind, server: &Server) -> Stack {
    Stack::new(
        kind,
        layer(server, credentials(server, "post-client", "post-secret")),
    )
}

/// The API's report of a request that it accepted.
fn accepted(answer: Result<Answer, BoxError>) -> Value {
    let answer = answer.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    answer.json
}

#[tokio::test]
async fn either_client_authentication_gets_a_token_that_the_api_honours() {
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
            let stack = Stack::new(kind, layer(&server, source));
            let report = accepted(stack.send(Call::get(server.url("/transactions"))).await);
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
async fn a_wrong_secret_an_unknown_scope_and_an_unknown_resource_are_told_apart() {
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
            let stack = Stack::new(kind, layer(&server, source));
            let error = stack.send(Call::get(server.url("/"))).await.unwrap_err();
            let error = token_error(kind, &error).unwrap();
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
async fn a_resource_is_named_by_a_parameter() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        for resource in ["https://api.example.test/", "urn:example:api"] {
            let source = credentials(&server, "post-client", "post-secret");
            let stack = Stack::new(kind, layer(&server, source.param("resource", resource)));
            let report = accepted(stack.send(Call::get(server.url("/"))).await);
            assert_eq!(report["aud"], resource, "{kind:?}");
            assert_eq!(report["scope"], "tenant/42", "{kind:?}");
        }
        let report = accepted(
            long_lived(kind, &server)
                .send(Call::get(server.url("/")))
                .await,
        );
        assert_eq!(
            report["aud"],
            Value::Null,
            "{kind:?}: named by nothing else"
        );
    }
}

#[tokio::test]
async fn a_scope_that_the_server_narrowed_is_seen_on_the_token() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.reset_counters().await;
        let source = credentials(&server, "post-client", "post-secret")
            .scope("tenant/42 tenant/7")
            .param("resource", "urn:example:api");
        let layer = layer(&server, source);
        let report = accepted(
            Stack::new(kind, layer.clone())
                .send(Call::get(server.url("/")))
                .await,
        );
        assert_eq!(report["scope"], "tenant/42", "{kind:?}");
        let token = layer.cache().token().await.unwrap();
        assert_eq!(token.scope(), Some("tenant/42"), "{kind:?}");
        assert_eq!(
            server.counters().await,
            ONE_OF_EACH,
            "{kind:?}: the token that was sent"
        );
    }
}

#[tokio::test]
async fn each_request_carries_the_token_of_its_own_tenant() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in [Kind::Middleware, Kind::TowerHttp] {
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
async fn a_403_for_the_scope_passes_as_it_is_and_renews_nothing() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.reset_counters().await;
        let answer = long_lived(kind, &server)
            .send(Call::get(server.url("/admin/users")))
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{kind:?}");
        let challenge = answer.headers[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(
            challenge.contains("error=\"insufficient_scope\""),
            "{kind:?}: {challenge}"
        );
        let body = json!({ "ok": false, "error": "insufficient_scope" });
        assert_eq!(answer.json, body, "{kind:?}");
        assert_eq!(server.counters().await, ONE_OF_EACH, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_callers_at_once_cost_one_token_request() {
    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let mut calls = JoinSet::new();
        for index in 0..200 {
            let (stack, url) = (stack.clone(), server.url(&format!("/{index}")));
            calls.spawn(async move { accepted(stack.send(Call::get(url)).await) });
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
async fn a_body_is_sent_again_byte_for_byte() {
    let Some(server) = Server::start().await else {
        return;
    };
    // No two of its blocks are alike, so that one left out, doubled or moved would be noticed.
    let body: Bytes = (0..16 * 1024_u32).flat_map(u32::to_le_bytes).collect();
    for kind in Kind::ALL {
        server.revoke_all().await;
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let upload = || Call::post(server.url("/upload"), body.clone());
        let sent_once = accepted(stack.send(upload()).await);
        assert_eq!(sent_once["method"], "POST", "{kind:?}");
        assert_eq!(sent_once["body_bytes"], 64 * 1024, "{kind:?}");

        assert_eq!(server.revoke_all().await, 1, "{kind:?}");
        // The digest is in the report, among all else that the API saw.
        assert!(sent_once["body_sha256"].is_string(), "{sent_once}");
        assert_eq!(accepted(stack.send(upload()).await), sent_once, "{kind:?}");
        let expected = Counters {
            token_requests: 2,
            token_responses_ok: 2,
            token_requests_basic: 0,
            api_requests: 3,
            api_unauthorized: 1,
        };
        assert_eq!(server.counters().await, expected, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_revoked_under_fifty_callers_costs_one_renewal() {
    const CALLERS: usize = 50;

    let Some(server) = Server::start().await else {
        return;
    };
    for kind in Kind::ALL {
        server.revoke_all().await;
        server.reset_counters().await;
        let stack = long_lived(kind, &server);
        let all_are_busy = Arc::new(Barrier::new(CALLERS + 1));
        let revoked = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (stack, url) = (stack.clone(), server.url("/"));
            let (all_are_busy, revoked) = (Arc::clone(&all_are_busy), Arc::clone(&revoked));
            let answers = Arc::clone(&answers);
            callers.spawn(async move {
                let call = async || {
                    accepted(stack.send(Call::get(url.clone())).await);
                    answers.fetch_add(1, Ordering::Relaxed);
                };
                call().await;
                all_are_busy.wait().await;
                // One call after the other, until one was begun when the token was gone.
                while !revoked.load(Ordering::SeqCst) {
                    call().await;
                }
                call().await;
            });
        }
        all_are_busy.wait().await;
        assert_eq!(server.revoke_all().await, 1, "{kind:?}");
        revoked.store(true, Ordering::SeqCst);
        callers.join_all().await;

        let counters = server.counters().await;
        assert_eq!(
            counters.token_requests, 2,
            "{kind:?}: the first and one more"
        );
        let refused = counters.api_unauthorized;
        assert!(
            (1..=CALLERS).contains(&refused),
            "{kind:?}: each caller at most once, {refused}"
        );
        let answers = answers.load(Ordering::Relaxed);
        assert_eq!(
            counters.api_requests,
            answers + refused,
            "{kind:?}: one call more for each"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_5_s_token_is_renewed_before_it_is_refused_under_steady_load() {
    const PERIOD: Duration = Duration::from_millis(20);
    const CALLS: usize = 750; // 15 s
    /// What a token of 5 s has left when it is sent last.
    const MARGIN: Duration = Duration::from_secs(1);

    /// Whether it could be judged.
    async fn load(kind: Kind, server: Server) -> bool {
        let server = Arc::new(server);
        let source = credentials(&server, "short-client", "short-secret");
        let stack = Stack::new(kind, layer(&server, source));
        let (mut calls, mut plain_calls) = (JoinSet::new(), JoinSet::new());
        let mut interval = interval(PERIOD);
        for index in 0..CALLS {
            interval.tick().await;
            let (stack, url) = (stack.clone(), server.url("/"));
            calls.spawn(async move { stack.send(Call::get(url)).await });
            if index % 10 == 0 {
                let (server, start) = (Arc::clone(&server), Instant::now());
                plain_calls.spawn(async move {
                    server.counters().await;
                    start.elapsed()
                });
            }
        }
        let answers = calls.join_all().await;

        // Who is too slow by himself to arrive within the margin can't be helped by it.
        let slowest = plain_calls.join_all().await.into_iter().max().unwrap();
        if slowest >= MARGIN {
            notice(&format!(
                "steady load on {kind:?}: once more, a call without token took {slowest:.1?}"
            ));
            return false;
        }
        for answer in answers {
            assert_eq!(accepted(answer)["client"], "short-client", "{kind:?}");
        }
        let counters = server.counters().await;
        assert_eq!(counters.api_unauthorized, 0, "{kind:?}: {counters:?}");
        assert_eq!(counters.api_requests, CALLS, "{kind:?}: {counters:?}");
        // One at the start, then each due 3.5 to 3.75 s after the last.
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
    panic!("this machine is too busy for a judgement on {kinds:?}");
}
