//! The cost of requests while the token is fresh.
//!
//! "Time added" is the time of a stack minus that of the same stack without authorization, relative
//! to the time that a constant header adds.

use std::hint::black_box;
use std::sync::Arc;

use bearer_auth::{BearerAuth, RequestAuth, TokenRequest};
use reqwest_middleware::ClientWithMiddleware;

use crate::rounds::{Case, Load, Spread, measure, print};
use crate::support::middleware_stacks as middleware;
use crate::tower_stacks::{self as tower, KeepCopy, Noop};
use crate::{Row, callgrind, sending};

const ROUNDS: usize = 101;
const REQUESTS: usize = 5_000;
const TENANTS: usize = 10_000;

pub(crate) fn rows() -> Vec<Row> {
    let [one, two] = tower_stacks();
    let mut rows = vec![
        Row::at_most(
            "tower, fresh token, no replay: time added, 1 thread",
            one.token,
            1.2,
        ),
        Row::at_most(WITH_COARSE_CLOCK, one.coarse_token, 1.2),
        Row::at_most(
            "· relative to a layer written by hand",
            Spread::of_added(&one.token_nanos, &one.hand_written_nanos, &one.bare_nanos),
            1.1,
        ),
        Row::at_most("· 2 threads that share a layer", two.token, 0.9),
        Row::at_most("· 2 threads, with `CoarseClock`", two.coarse_token, 0.9),
        scaling(&one, &two),
        Row::at_most(
            "tower, with replay: time added, relative to a header and a request copy",
            one.replay,
            1.1,
        ),
        Row::at_most(WITH_COARSE_CLOCK, one.coarse_replay, 1.1),
        instructions(),
    ];
    let middleware = middleware_stacks();
    rows.extend([
        Row::at_most(
            "reqwest-middleware, fresh token, no replay: time added",
            middleware.token,
            1.2,
        ),
        Row::at_most(WITH_COARSE_CLOCK, middleware.coarse_token, 1.2),
        Row::at_most(
            "reqwest-middleware, with replay: time added, relative to a header and `try_clone`",
            middleware.replay,
            1.1,
        ),
        Row::at_most(WITH_COARSE_CLOCK, middleware.coarse_replay, 1.1),
    ]);
    rows.extend(tenants());
    rows
}

const WITH_COARSE_CLOCK: &str = "· with `CoarseClock`";

/// The stacks under comparison, in the order of the cases. The last one is for tower only.
const STACKS: [&str; 8] = [
    "bare",
    "constant header",
    "token, no replay",
    "token, no replay, CoarseClock",
    "constant header and request copy",
    "token with replay",
    "token with replay, CoarseClock",
    "a layer written by hand",
];

/// The time that the token stacks add, relative to their baselines, and the nanoseconds of each
/// round in the bare stack and in the one with a token.
struct Added {
    token: Spread,
    coarse_token: Spread,
    replay: Spread,
    coarse_replay: Spread,
    bare_nanos: Vec<f64>,
    token_nanos: Vec<f64>,
    hand_written_nanos: Vec<f64>,
}

impl Added {
    fn of(name: &str, nanos: &[Vec<f64>]) -> Self {
        println!("{name}, ns per request");
        print(STACKS, nanos);
        let added = |with: usize, baseline: usize| {
            Spread::of_added(&nanos[with], &nanos[baseline], &nanos[0])
        };
        Self {
            token: added(2, 1),
            coarse_token: added(3, 1),
            replay: added(5, 4),
            coarse_replay: added(6, 4),
            bare_nanos: nanos[0].clone(),
            token_nanos: nanos[2].clone(),
            hand_written_nanos: nanos.get(7).cloned().unwrap_or_default(),
        }
    }
}

/// Measures one thread, and two that share each layer, in the same rounds, since the two are
/// compared with each other.
fn tower_stacks() -> [Added; 2] {
    let (header, hand_written) = (tower::constant_header(), tower::hand_written());
    let [token, coarse_token] = [tower::layer(), tower::coarse_clock_layer()].map(tower::token);
    let [replay, coarse_replay] =
        [tower::layer(), tower::coarse_clock_layer()].map(tower::token_with_replay);
    let cases = [1, 2].map(|threads| {
        [
            Case::new(threads, || sending(Noop)),
            Case::new(threads, || sending(header.clone())),
            Case::new(threads, || sending(token.clone())),
            Case::new(threads, || sending(coarse_token.clone())),
            Case::new(threads, || sending(KeepCopy(header.clone()))),
            Case::new(threads, || sending(replay.clone())),
            Case::new(threads, || sending(coarse_replay.clone())),
            Case::new(threads, || sending(hand_written.clone())),
        ]
    });
    let nanos = measure(cases.into_iter().flatten(), ROUNDS, REQUESTS);
    let (one, two) = nanos.split_at(STACKS.len());
    [
        Added::of("tower, 1 thread", one),
        Added::of("tower, 2 threads", two),
    ]
}

/// Returns how much the throughput of two threads exceeds that of one.
fn scaling(one: &Added, two: &Added) -> Row {
    let gain = |one: &[f64], two: &[f64]| 2.0 * Spread::of_ratio(one, two).median;
    let token = gain(&one.token_nanos, &two.token_nanos);
    let bare = gain(&one.bare_nanos, &two.bare_nanos);
    Row {
        figure: "tower, throughput of 2 threads relative to 1",
        measured: format!("{token:.2} × (a bare service {bare:.2})"),
        target: "≥ 1.9 ×".to_owned(),
        is_met: Some(token >= 1.9),
    }
}

/// Allocations are counted in `tests/allocations.rs`, since the counter would slow down the stacks
/// that are timed here.
fn instructions() -> Row {
    const LIMIT: u64 = 500;
    let added = callgrind::is_available().then(|| {
        let bare = callgrind::count("tower-bare");
        ["tower-constant-header", "tower-token"]
            .map(|stack| callgrind::count(stack).saturating_sub(bare))
    });
    Row {
        figure: "tower, fresh token, no replay: instructions added",
        measured: match added {
            Some([header, token]) => format!("{token} (a constant header {header})"),
            None => "not counted: valgrind is not installed".to_owned(),
        },
        target: format!("≤ {LIMIT}"),
        is_met: added.map(|[_, token]| token <= LIMIT),
    }
}

fn middleware_stacks() -> Added {
    let cases = [
        middleware::bare(),
        middleware::constant_header(),
        middleware::token(tower::layer()),
        middleware::token(tower::coarse_clock_layer()),
        middleware::constant_header_and_copy(),
        middleware::token_with_replay(tower::layer()),
        middleware::token_with_replay(tower::coarse_clock_layer()),
    ]
    .map(|client| Case::new(1, || executing(client.clone())));
    let nanos = measure(cases, ROUNDS, REQUESTS);
    Added::of("reqwest-middleware", &nanos)
}

/// Compares requests for a random one of many tenants with requests for always the same one.
fn tenants() -> [Row; 4] {
    let ((one, one_key), (all, keys)) = (tower::tenants(1), tower::tenants(TENANTS));
    let [one_thread, two_threads] = [1, 2].map(|threads| {
        let cases = [
            Case::new(threads, || by_name(one.clone(), 1)),
            Case::new(threads, || by_name(all.clone(), TENANTS)),
            Case::new(threads, || with_kept_keys(one.clone(), &one_key)),
            Case::new(threads, || with_kept_keys(all.clone(), &keys)),
        ];
        let nanos = measure(cases, ROUNDS, REQUESTS);
        println!("tower, a token for each tenant, {threads} thread(s), ns per request");
        let names = [
            "one tenant, by name",
            "any of 10,000, by name",
            "one tenant, with a kept key",
            "any of 10,000, with a kept key",
        ];
        print(names, &nanos);
        [(1, 0), (3, 2)].map(|(all, one)| Spread::of_ratio(&nanos[all], &nanos[one]))
    });
    [
        Row::at_most(
            "request for any of 10,000 tenants, by name, relative to always the same",
            one_thread[0],
            2.0,
        ),
        Row::at_most("· with a kept key", one_thread[1], 2.0),
        Row::at_most("· by name, 2 threads", two_threads[0], 2.0),
        Row::at_most("· with a kept key, 2 threads", two_threads[1], 2.0),
    ]
}

fn executing(client: ClientWithMiddleware) -> Load {
    let url = middleware::url();
    Box::new(move |requests| {
        for _ in 0..requests {
            black_box(middleware::send(&client, black_box(&url)));
        }
    })
}

/// Makes the key from the tenant's name for each request, as a service does that has just learned
/// which tenant it works for.
fn by_name(mut service: BearerAuth<Noop>, tenants: usize) -> Load {
    let uri = tower::uri();
    Box::new(move |requests| {
        for _ in 0..requests {
            let tenant = RequestAuth::scope(tower::scope(fastrand::usize(..tenants)));
            tower::send_for(&mut service, &uri, tenant);
        }
    })
}

/// Clones a key that was made once for each tenant.
fn with_kept_keys(mut service: BearerAuth<Noop>, keys: &Arc<[TokenRequest]>) -> Load {
    let (keys, uri) = (Arc::clone(keys), tower::uri());
    Box::new(move |requests| {
        for _ in 0..requests {
            let tenant = keys[fastrand::usize(..keys.len())].clone();
            tower::send_for(&mut service, &uri, tenant);
        }
    })
}
