//! A request with a fresh token, beside one with a constant header.

use bearer_auth::{RequestAuth, TokenRequest};
use divan::Bencher;
use reqwest_middleware::ClientWithMiddleware;

use crate::{middleware, send, stack};

fn execute(bencher: Bencher, client: &ClientWithMiddleware) {
    let url = middleware::url();
    bencher.bench(|| middleware::send(client, &url));
}

#[divan::bench_group(threads = [1, 2], sample_count = 200, sample_size = 100)]
mod tower_service {
    use super::*;

    #[divan::bench]
    fn bare(bencher: Bencher) {
        send(bencher, stack::Noop);
    }

    #[divan::bench]
    fn constant_header(bencher: Bencher) {
        send(bencher, stack::fixed());
    }

    #[divan::bench]
    fn token(bencher: Bencher) {
        send(bencher, stack::bearer(stack::layer()));
    }

    #[divan::bench]
    fn token_coarse_clock(bencher: Bencher) {
        send(bencher, stack::bearer(stack::coarse_layer()));
    }

    #[divan::bench]
    fn token_with_no_origin_named(bencher: Bencher) {
        send(bencher, stack::bearer(stack::open_layer()));
    }

    #[divan::bench]
    fn copy_and_constant_header(bencher: Bencher) {
        send(bencher, stack::Copying(stack::fixed()));
    }

    #[divan::bench]
    fn token_with_replay(bencher: Bencher) {
        send(bencher, stack::replaying(stack::layer()));
    }
}

#[divan::bench_group(threads = [1, 2], sample_count = 200, sample_size = 100)]
mod reqwest_middleware_stack {
    use super::*;

    #[divan::bench]
    fn bare(bencher: Bencher) {
        execute(bencher, &middleware::bare());
    }

    #[divan::bench]
    fn constant_header(bencher: Bencher) {
        execute(bencher, &middleware::fixed());
    }

    #[divan::bench]
    fn token(bencher: Bencher) {
        execute(bencher, &middleware::bearer(stack::layer()));
    }

    #[divan::bench]
    fn token_coarse_clock(bencher: Bencher) {
        execute(bencher, &middleware::bearer(stack::coarse_layer()));
    }

    #[divan::bench]
    fn copy_and_constant_header(bencher: Bencher) {
        execute(bencher, &middleware::copying());
    }

    #[divan::bench]
    fn token_with_replay(bencher: Bencher) {
        execute(bencher, &middleware::replaying(stack::layer()));
    }
}

#[divan::bench(args = [1, 10_000], threads = [1, 2], sample_count = 200, sample_size = 100)]
fn tower_service_for_one_of(bencher: Bencher, tenants: usize) {
    let scope = |tenant: usize| format!("tenant/{tenant:08x}");
    let (cache, runtime) = (stack::cache(), stack::runtime());
    for tenant in 0..tenants {
        let request = TokenRequest::scope(scope(tenant));
        runtime
            .block_on(cache.token_for(&request))
            .expect("a token");
    }
    let (service, uri) = (stack::bearer(stack::over(cache)), stack::uri());
    bencher
        .with_inputs(|| {
            let mut request = stack::request(&uri);
            let auth = RequestAuth::scope(scope(fastrand::usize(..tenants)));
            request.extensions_mut().insert(auth);
            (service.clone(), request)
        })
        .bench_values(|(mut service, request)| stack::send(&mut service, request));
}
