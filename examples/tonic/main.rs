//! Tokens for a tonic client: a revoked token is replaced without the caller noticing.
//!
//! `cargo run --example tonic` uses a gRPC server on loopback.

use std::time::Duration;

use bearer_auth::{BearerAuthLayer, BoxError, GrpcUnauthenticated, MockTokenSource, TokenCache};
use bytes::Bytes;
use client::with_tokens;
use futures_util::stream;
use http::uri::PathAndQuery;
use server::{BytesCodec, Ledger};
use tonic::Request;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::transport::Endpoint;

mod client;
mod server;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let ledger = Ledger::default();
    let origin = format!("http://{}", ledger.start().await?);

    // In an application, a `ClientCredentials`.
    let cache = TokenCache::new(MockTokenSource::new());
    let auth = BearerAuthLayer::from_cache(cache.clone())
        // tonic's channel adds the origin itself, so requests have only a path.
        .assume_origin(&origin)?
        .allow_origin(&origin)?
        .reject_with(GrpcUnauthenticated)
        // Every body of tonic is a stream; up to 64 KiB of it can be sent again.
        .replay_buffered::<Body>(64 * 1024, Body::new);
    let channel = Endpoint::from_shared(origin)?.connect_lazy();
    let channel = with_tokens(channel, auth, Duration::from_secs(30));
    // A generated client is used in the same way: `LedgerClient::new(channel)`.
    let mut client = Grpc::new(channel);

    for call in 1..=2 {
        client.ready().await?;
        let path = PathAndQuery::from_static("/demo.Ledger/Echo");
        let echo = client.unary(Request::new(Bytes::from("7")), path, BytesCodec);
        println!("Echo: {:?}", echo.await?.into_inner());

        client.ready().await?;
        let path = PathAndQuery::from_static("/demo.Ledger/List");
        let list = client.server_streaming(Request::new(Bytes::from("7")), path, BytesCodec);
        let mut messages = list.await?.into_inner();
        while let Some(message) = messages.message().await? {
            println!("List: {message:?}");
        }

        client.ready().await?;
        let path = PathAndQuery::from_static("/demo.Ledger/Import");
        let messages = stream::iter(["1", "2", "3"].map(Bytes::from));
        let import = client.client_streaming(Request::new(messages), path, BytesCodec);
        println!("Import: {:?} messages", import.await?.into_inner());

        // The first call after this is rejected, and replayed with another token.
        ledger.revoke(cache.token().await?.expose_secret());
        assert_eq!(ledger.rejections(), call - 1);
    }
    Ok(())
}
