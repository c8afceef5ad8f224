//! How large things are that there are many of, and what a herd of waiters holds. Exact, on 64 bits.
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
fn the_layer_and_its_service_are_a_pointer() {
    assert_eq!(size_of::<BearerAuthLayer>(), 8);
    assert_eq!(size_of::<BearerAuth<Inner>>(), 8);
    assert_eq!(size_of::<TokenCache>(), 8);
    // With its hash beside it.
    assert_eq!(size_of::<TokenRequest>(), 16);
}

/// Beside the inner future it keeps the request, for a second sending, and 56 bytes.
#[test]
fn the_services_future_is_the_inner_one_and_the_kept_request() {
    let future = size_of::<ResponseFuture<Inner, Request<()>>>();
    let held = size_of::<<Inner as Service<Request<()>>>::Future>() + size_of::<Request<()>>();
    println!("future: {future} bytes, of which {held} are the inner future and the request");
    assert!(future <= held + 56, "{future} of {held}");
}

#[test]
fn a_waiter_is_small() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let tokens = MockTokenSource::new();
    let cache = TokenCache::new(tokens.clone());
    runtime.block_on(async {
        let hold = tokens.hold();
        // The flight is under way.
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
        println!("{bytes} bytes for each of {WAITERS} waiters, future included");
        assert!(bytes <= 512, "{bytes}");

        drop(hold);
        first.await.unwrap().unwrap();
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(tokens.fetches(), 1);
    });
}
