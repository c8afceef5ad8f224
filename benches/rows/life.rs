//! A token's first fetch, its renewal and its revocation.

use std::time::Duration;

use divan::Bencher;

use crate::stages::{self, Aged, herd};
use crate::{send, stack};

/// 10,000 callers at once; an argument is how many threads run them.
#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod ten_thousand {
    use super::*;

    #[divan::bench(args = [1, 2])]
    fn timers_of_50_ms(bencher: Bencher, workers: usize) {
        let runtime = stages::runtime(workers);
        bencher.bench_local(|| runtime.block_on(herd::of_timers()));
    }

    #[divan::bench(args = [1, 2])]
    fn listeners_to_a_word_after_50_ms(bencher: Bencher, workers: usize) {
        let runtime = stages::runtime(workers);
        bencher.bench_local(|| runtime.block_on(herd::of_listeners()));
    }

    #[divan::bench(args = [1, 2])]
    fn cold_callers_at_an_endpoint_of_50_ms(bencher: Bencher, workers: usize) {
        let runtime = stages::runtime(workers);
        bencher.bench_local(|| assert_eq!(runtime.block_on(herd::of_cold_callers()), 1));
    }
}

/// One request; an argument of divan's is how many threads send at once.
#[divan::bench_group(threads = [1, 2], sample_count = 200, sample_size = 100)]
mod a_request {
    use super::*;

    #[divan::bench]
    fn with_a_fresh_token(bencher: Bencher) {
        let aged = Aged::fresh();
        send(bencher, stack::bearer(aged.layer.clone()));
    }

    #[divan::bench]
    fn while_the_token_is_renewed(bencher: Bencher) {
        let aged = Aged::due();
        send(bencher, stack::bearer(aged.layer.clone()));
    }
}

/// 100 requests whose token is refused: a first token, a refusal, a second token and an answer, 20 ms each.
#[divan::bench(args = [1, 2], sample_count = 20, sample_size = 1)]
fn a_revoked_token(bencher: Bencher, workers: usize) {
    const REQUESTS: usize = 100;
    let runtime = stages::runtime(workers);
    bencher.bench_local(|| {
        let revocation = runtime.block_on(stages::revocation(REQUESTS));
        assert_eq!(revocation.answered_200, REQUESTS);
        assert_eq!(revocation.token_requests, 1);
    });
}

/// 500 requests/s for 10 s, while 4 s tokens are renewed in 100 ms each: what it shows is that none has to wait.
#[divan::bench(args = [1, 2], sample_count = 1, sample_size = 1)]
fn a_rollover_of_10_s(bencher: Bencher, workers: usize) {
    const LASTING: Duration = Duration::from_secs(10);
    let runtime = stages::runtime(workers);
    bencher.bench_local(|| {
        let rollover = runtime.block_on(stages::rollover(LASTING));
        assert_eq!(rollover.held, 0, "of {} requests", rollover.requests);
        assert!(rollover.token_requests <= 4);
    });
}
