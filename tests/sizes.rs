//! The sizes of values that exist in large numbers, and the memory of waiting callers. The figures
//! are exact on 64-bit targets.
#![cfg(target_pointer_width = "64")]

use std::convert::Infallible;
use std::future::Ready;
use std::mem::size_of;
use std::task::{Context, Poll};

use allocation_counter::measure;
use bearer_auth::{
    BearerAuth, BearerAuthLayer, MockTokenSource, ResponseFuture, TokenCache, TokenRequest,
};
use http::{Request, Response};
use tower::Service;

const WAITERS: usize = 100_000;

#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        std::future::ready(Ok(Response::new(())))
    }
}

#[test]
fn the_layer_and_the_cache_are_one_pointer_each() {
    assert_eq!(size_of::<BearerAuthLayer>(), 8);
    // A pointer and a flag.
    assert_eq!(size_of::<BearerAuth<Inner>>(), 16);
    assert_eq!(size_of::<TokenCache>(), 8);
    // A pointer and a hash.
    assert_eq!(size_of::<TokenRequest>(), 16);
}

/// Besides the inner future and the copy of the request for a replay, it holds at most 56 bytes.
#[test]
fn the_response_future_holds_the_inner_future_and_the_copy_of_the_request() {
    let future = size_of::<ResponseFuture<Inner, Request<()>>>();
    let held = size_of::<<Inner as Service<Request<()>>>::Future>() + size_of::<Request<()>>();
    println!(
        "future: {future} bytes, {held} of them for the inner future and the copy of the request"
    );
    assert!(future <= held + 56, "{future} of {held}");
}

#[test]
fn a_waiting_caller_takes_at_most_512_bytes() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    runtime.block_on(async {
        let hold = tokens.hold();
        // Starts the fetch.
        let first = tokio::spawn({
            let cache = cache.clone();
            async move { cache.token().await.map(drop) }
        });
        tokio::task::yield_now().await;

        let mut waiters = Vec::with_capacity(WAITERS);
        let held = measure(|| {
            for _ in 0..WAITERS {
                let cache = cache.clone();
                let mut waiter = Box::pin(async move { cache.token().await.map(drop) });
                let mut context = Context::from_waker(std::task::Waker::noop());
                assert!(waiter.as_mut().poll(&mut context).is_pending());
                waiters.push(waiter);
            }
        });
        let bytes = held.bytes_current as usize / WAITERS;
        println!("{bytes} bytes for each of {WAITERS} waiting callers, with the future");
        assert!(bytes <= 512, "{bytes}");

        drop(hold);
        first.await.unwrap().unwrap();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(tokens.fetches(), 1);
    });
}
