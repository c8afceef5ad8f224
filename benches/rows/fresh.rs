//! A request with a fresh token, beside one with a constant header.

use bearer_auth::RequestAuth;
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

/// Whose name has just been read.
#[divan::bench(args = [1, 10_000], threads = [1, 2], sample_count = 200, sample_size = 100)]
fn one_of_many_tenants_by_name(bencher: Bencher, tenants: usize) {
    let ((service, _), uri) = (stack::of_tenants(tenants), stack::uri());
    bencher
        .with_inputs(|| (service.clone(), fastrand::usize(..tenants)))
        .bench_values(|(mut service, tenant)| {
            stack::send_for(&mut service, &uri, RequestAuth::scope(stack::scope(tenant)));
            service
        });
}

/// Whose key is kept.
#[divan::bench(args = [1, 10_000], threads = [1, 2], sample_count = 200, sample_size = 100)]
fn one_of_many_tenants_key_at_hand(bencher: Bencher, tenants: usize) {
    let ((service, keys), uri) = (stack::of_tenants(tenants), stack::uri());
    bencher
        .with_inputs(|| (service.clone(), fastrand::usize(..tenants)))
        .bench_values(|(mut service, tenant)| {
            stack::send_for(&mut service, &uri, keys[tenant].clone());
            service
        });
}
