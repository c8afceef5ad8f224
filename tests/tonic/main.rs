//! tonic's client and server on loopback: a revoked token is replaced without the caller noticing.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, GrpcUnauthenticated, MockTokenSource, TokenCache, TokenError};
use bytes::Bytes;
use client::{AuthorizedChannel, with_tokens};
use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use server::{BytesCodec, LISTED, Ledger};
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

#[path = "../../examples/tonic/client.rs"]
mod client;
#[path = "../../examples/tonic/server.rs"]
mod server;

const LIMIT: usize = 64 * 1024;

/// The limit of a call that should not meet it.
const LONG: Duration = Duration::from_secs(60);

type Client = Grpc<AuthorizedChannel>;

struct Stack {
    ledger: Ledger,
    tokens: MockTokenSource,
    cache: TokenCache,
    origin: String,
    auth: BearerAuthLayer,
    client: Client,
}

impl Stack {
    async fn start() -> Self {
        let with_origin =
            |auth: BearerAuthLayer, origin: &str| auth.assume_origin(origin)?.allow_origin(origin);
        Self::start_with(with_origin).await
    }

    async fn start_with(
        set: impl FnOnce(BearerAuthLayer, &str) -> Result<BearerAuthLayer, bearer_auth::InvalidSetting>,
    ) -> Self {
        let ledger = Ledger::default();
        let origin = format!("http://{}", ledger.start().await.unwrap());
        let tokens = MockTokenSource::new();
        let cache = TokenCache::new(tokens.clone());
        let auth = BearerAuthLayer::from_cache(cache.clone())
            .reject_with(GrpcUnauthenticated)
            .replay_buffered::<Body>(LIMIT, Body::new);
        let channel = Endpoint::from_shared(origin.clone())
            .unwrap()
            .connect_lazy();
        let auth = set(auth, &origin).unwrap();
        let client = Grpc::new(with_tokens(channel, auth.clone(), LONG));
        Self {
            ledger,
            tokens,
            cache,
            origin,
            auth,
            client,
        }
    }

    /// Starts with a token that the API is about to reject.
    async fn start_revoked() -> Self {
        let stack = Self::start().await;
        stack
            .ledger
            .revoke(stack.cache.token().await.unwrap().expose_secret());
        stack
    }

    async fn echo(&mut self, message: &Bytes) -> Result<Bytes, Status> {
        self.client.ready().await?;
        let path = PathAndQuery::from_static("/demo.Ledger/Echo");
        let response = self
            .client
            .unary(Request::new(message.clone()), path, BytesCodec)
            .await;
        response.map(tonic::Response::into_inner)
    }

    async fn import(
        &mut self,
        path: &'static str,
        messages: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Bytes, Status> {
        self.client.ready().await?;
        let path = PathAndQuery::from_static(path);
        let request = Request::new(messages);
        let response = self
            .client
            .client_streaming(request, path, BytesCodec)
            .await;
        response.map(tonic::Response::into_inner)
    }
}

#[tokio::test]
async fn unary_calls_survive_a_revoked_token() {
    for size in [0, 1, LIMIT / 2] {
        let mut stack = Stack::start_revoked().await;
        let message = Bytes::from(vec![7; size]);
        assert_eq!(stack.echo(&message).await.unwrap(), message);
        assert_eq!((stack.ledger.rejections(), stack.tokens.fetches()), (1, 2));
    }
}

#[tokio::test]
async fn server_streaming_calls_survive_a_revoked_token() {
    let mut stack = Stack::start_revoked().await;
    stack.client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/demo.Ledger/List");
    let request = Request::new(Bytes::from("7"));
    let response = stack
        .client
        .server_streaming(request, path, BytesCodec)
        .await;
    let mut messages = response.unwrap().into_inner();
    for _ in 0..LISTED {
        assert_eq!(messages.message().await.unwrap().unwrap(), "7");
    }
    assert!(messages.message().await.unwrap().is_none());
    assert_eq!((stack.ledger.rejections(), stack.tokens.fetches()), (1, 2));
}

#[tokio::test]
async fn client_streaming_calls_within_the_limit_survive_a_revoked_token() {
    for path in ["/demo.Ledger/Import", "/demo.Ledger/ImportSlowly"] {
        let mut stack = Stack::start_revoked().await;
        let messages = stream::iter(["1", "2", "3"].map(Bytes::from));
        assert_eq!(stack.import(path, messages).await.unwrap(), "3", "{path}");
        assert_eq!((stack.ledger.rejections(), stack.tokens.fetches()), (1, 2));
    }
}

#[tokio::test]
async fn the_rest_of_a_client_stream_goes_to_the_replay_alone() {
    let mut stack = Stack::start_revoked().await;
    let mut imports = stack.ledger.imports.subscribe();
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let messages = stream::unfold(receiver, async |mut receiver| {
        let message = receiver.recv().await?;
        Some((message, receiver))
    });
    let call =
        tokio::spawn(async move { stack.import("/demo.Ledger/ImportSlowly", messages).await });
    sender.send("1".into()).await.unwrap();
    imports.wait_for(|seen| seen.messages == 2).await.unwrap();
    sender.send("2".into()).await.unwrap();
    drop(sender);
    assert_eq!(call.await.unwrap().unwrap(), "2");
    let seen = imports
        .wait_for(|seen| seen.rejected.is_some())
        .await
        .unwrap();
    assert_eq!(
        seen.messages, 3,
        "the first message twice, the second one once"
    );
    assert!(seen.rejected.as_ref().unwrap().is_err(), "not complete");
}

#[tokio::test]
async fn a_client_stream_over_the_limit_gets_the_first_status() {
    let mut stack = Stack::start_revoked().await;
    let messages = stream::iter([Bytes::from("x".repeat(LIMIT + 1))]);
    let status = stack
        .import("/demo.Ledger/ImportSlowly", messages)
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the token was revoked")
    );
    // The refresh is in progress, or done.
    stack.echo(&"7".into()).await.unwrap();
    assert_eq!(stack.tokens.fetches(), 2);
}

#[tokio::test]
async fn a_token_that_stays_rejected_is_the_servers_status() {
    let mut stack = Stack::start_revoked().await;
    stack.ledger.revoke("mock-token-2");
    let status = stack.echo(&"7".into()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the token was revoked")
    );
    assert_eq!((stack.ledger.rejections(), stack.tokens.fetches()), (2, 2));
}

#[tokio::test]
async fn token_errors_are_unavailable_or_unauthenticated() {
    let mut stack = Stack::start().await;
    let wait = Duration::from_secs(7);
    stack
        .tokens
        .fail_times(9, TokenError::transient("down").with_retry_after(wait));
    let status = stack.echo(&"7".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let found = TokenError::find(&status).expect("the status has it as its source");
    assert!(
        found
            .retry_after()
            .is_some_and(|wait| wait > Duration::from_secs(5))
    );

    let mut stack = Stack::start().await;
    stack.tokens.fail_next(TokenError::permanent("no"));
    let status = stack.echo(&"7".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(TokenError::find(&status).is_some());
    assert_eq!(stack.ledger.rejections(), 0, "nothing was sent");
}

#[tokio::test]
async fn a_rejection_without_another_token_says_why() {
    let mut stack = Stack::start_revoked().await;
    let down = TokenError::transient("down").with_retry_after(Duration::from_secs(7));
    stack.tokens.fail_times(9, down);
    let status = stack.echo(&"7".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let found = TokenError::find(&status).expect("the status has it as its source");
    assert!(found.retry_after().is_some());
    assert_eq!(stack.ledger.rejections(), 1);
}

#[tokio::test]
async fn a_call_that_waits_too_long_for_its_token_exceeds_its_deadline() {
    let mut stack = Stack::start().await;
    let _held = stack.tokens.hold();
    let channel = Endpoint::from_shared(stack.origin.clone()).unwrap();
    let limit = Duration::from_millis(1);
    let service = with_tokens(channel.connect_lazy(), stack.auth.clone(), limit);
    stack.client = Grpc::new(service);
    let status = stack.echo(&"7".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(stack.ledger.rejections(), 0, "nothing was sent");
}

#[tokio::test]
async fn without_a_replay_calls_use_the_old_token_until_another_has_arrived() {
    let mut stack = Stack::start_revoked().await;
    let auth = stack.auth.clone().without_replay();
    let channel = Endpoint::from_shared(stack.origin.clone()).unwrap();
    stack.client = Grpc::new(with_tokens(channel.connect_lazy(), auth, LONG));
    let held = stack.tokens.hold();
    for call in 1..=2 {
        let status = stack.echo(&"7".into()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(stack.ledger.rejections(), call);
    }
    drop(held);
    let successor = async {
        while stack.cache.token().await.unwrap().expose_secret() == "mock-token-1" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, successor).await.unwrap();
    stack.echo(&"7".into()).await.unwrap();
    assert_eq!(stack.tokens.fetches(), 2);
}

#[tokio::test]
async fn errors_of_the_channel_keep_their_status() {
    let mut stack = Stack::start().await;
    let closed = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let auth = BearerAuthLayer::from_cache(stack.cache.clone());
    stack.client = Grpc::new(with_tokens(closed, auth, LONG));
    let status = stack.echo(&"7".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(TokenError::find(&status).is_none());
}

#[tokio::test]
async fn the_origin_has_to_be_assumed_or_set_on_the_client() {
    // The channel adds the origin after the layer.
    let mut stack = Stack::start_with(|auth, origin| auth.allow_origin(origin)).await;
    let status = stack.echo(&"7".into()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!((stack.ledger.rejections(), stack.tokens.fetches()), (1, 0));

    let ledger = Ledger::default();
    let origin = format!("http://{}", ledger.start().await.unwrap());
    let auth = BearerAuthLayer::from_cache(stack.cache)
        .allow_origin(&origin)
        .unwrap();
    let channel = Endpoint::from_shared(origin.clone())
        .unwrap()
        .connect_lazy();
    let uri = origin.parse().unwrap();
    let mut client = Grpc::with_origin(with_tokens(channel, auth, LONG), uri);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/demo.Ledger/Echo");
    client
        .unary(Request::new(Bytes::from("7")), path, BytesCodec)
        .await
        .unwrap();
    assert_eq!((ledger.rejections(), stack.tokens.fetches()), (0, 1));
}
