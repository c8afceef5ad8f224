//! What a request with a fresh token costs.
//!
//! "Added" is the time of a stack less that of the stack without the layer, in relation to the same for a
//! constant header.

use std::hint::black_box;
use std::sync::Arc;

use bearer_auth::{BearerAuth, RequestAuth, TokenRequest};
use reqwest_middleware::ClientWithMiddleware;

use crate::rounds::{Case, Load, Spread, measure, print};
use crate::{Row, callgrind, middleware, sending, stack};

const ROUNDS: usize = 101;
const REQUESTS: usize = 5_000;
const TENANTS: usize = 10_000;

pub(crate) fn rows() -> Vec<Row> {
    let [one, two] = tower();
    let mut rows = vec![
        Row::at_most(
            "tower, fresh token, no replay: time added, 1 thread",
            one.token,
            1.2,
        ),
        Row::at_most(WITH_COARSE_CLOCK, one.coarse_token, 1.2),
        Row::at_most("the same, 2 threads that share a layer", two.token, 0.9),
        Row::at_most(WITH_COARSE_CLOCK, two.coarse_token, 0.9),
        scaling(&one, &two),
        Row::at_most(
            "tower, replay on: added to a copy of the request",
            one.replay,
            1.1,
        ),
        Row::at_most(WITH_COARSE_CLOCK, one.coarse_replay, 1.1),
        instructions(),
    ];
    let middleware = reqwest_middleware();
    rows.extend([
        Row::at_most(
            "reqwest-middleware, fresh token, no replay: time added",
            middleware.token,
            1.2,
        ),
        Row::at_most(WITH_COARSE_CLOCK, middleware.coarse_token, 1.2),
        Row::at_most(
            "reqwest-middleware, replay on: added to `try_clone`",
            middleware.replay,
            1.1,
        ),
        Row::at_most(WITH_COARSE_CLOCK, middleware.coarse_replay, 1.1),
    ]);
    rows.extend(tenants());
    rows
}

const WITH_COARSE_CLOCK: &str = "· the same with `CoarseClock`";

/// The stacks that are compared, in the order in which `cases` are.
const STACKS: [&str; 7] = [
    "bare",
    "constant header",
    "token",
    "token, CoarseClock",
    "copy, constant header",
    "replay on",
    "replay on, CoarseClock",
];

/// What each adds to its baseline; nanoseconds by round, without a layer and with the token.
struct Added {
    token: Spread,
    coarse_token: Spread,
    replay: Spread,
    coarse_replay: Spread,
    bare: Vec<f64>,
    bearer: Vec<f64>,
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
            bare: nanos[0].clone(),
            bearer: nanos[2].clone(),
        }
    }
}

/// By one thread, and by two that share each layer: in the same rounds, since they are compared.
fn tower() -> [Added; 2] {
    let fixed = stack::fixed();
    let [bearer, coarse_bearer] = [stack::layer(), stack::coarse_layer()].map(stack::bearer);
    let [replaying, coarse_replaying] =
        [stack::layer(), stack::coarse_layer()].map(stack::replaying);
    let cases = [1, 2].map(|threads| {
        [
            Case::new(threads, || sending(stack::Noop)),
            Case::new(threads, || sending(fixed.clone())),
            Case::new(threads, || sending(bearer.clone())),
            Case::new(threads, || sending(coarse_bearer.clone())),
            Case::new(threads, || sending(stack::Copying(fixed.clone()))),
            Case::new(threads, || sending(replaying.clone())),
            Case::new(threads, || sending(coarse_replaying.clone())),
        ]
    });
    let nanos = measure(cases.into_iter().flatten(), ROUNDS, REQUESTS);
    let (one, two) = nanos.split_at(STACKS.len());
    [
        Added::of("tower, 1 thread", one),
        Added::of("tower, 2 threads", two),
    ]
}

/// How much more two threads do than one.
fn scaling(one: &Added, two: &Added) -> Row {
    let gain = |one: &[f64], two: &[f64]| 2.0 * Spread::of_ratio(one, two).median;
    let (ours, bare) = (gain(&one.bearer, &two.bearer), gain(&one.bare, &two.bare));
    Row {
        figure: "tower, from 1 thread to 2",
        measured: format!("{ours:.2} × (a bare service {bare:.2})"),
        target: "≥ 1.9 ×".to_owned(),
        is_met: Some(ours >= 1.9),
    }
}

/// Allocations are counted by `tests/allocations.rs`, where the counter slows nothing down that is timed.
fn instructions() -> Row {
    const MOST: u64 = 500;
    let added = callgrind::is_there().then(|| {
        let none = callgrind::count("none");
        ["fixed", "bearer"].map(|it| callgrind::count(it).saturating_sub(none))
    });
    Row {
        figure: "tower, fresh token, no replay: instructions added",
        measured: match added {
            Some([fixed, bearer]) => format!("{bearer} (a constant header {fixed})"),
            None => "not counted: there is no `valgrind`".to_owned(),
        },
        target: format!("≤ {MOST}"),
        is_met: added.map(|[_, bearer]| bearer <= MOST),
    }
}

fn reqwest_middleware() -> Added {
    let cases = [
        middleware::bare(),
        middleware::fixed(),
        middleware::bearer(stack::layer()),
        middleware::bearer(stack::coarse_layer()),
        middleware::copying(),
        middleware::replaying(stack::layer()),
        middleware::replaying(stack::coarse_layer()),
    ]
    .map(|client| Case::new(1, || executing(client.clone())));
    let nanos = measure(cases, ROUNDS, REQUESTS);
    Added::of("reqwest-middleware", &nanos)
}

/// Requests for a tenant, who is one of 10,000 or always the same.
fn tenants() -> [Row; 4] {
    let ((one, one_key), (all, keys)) = (stack::of_tenants(1), stack::of_tenants(TENANTS));
    let [one_thread, two_threads] = [1, 2].map(|threads| {
        let cases = [
            Case::new(threads, || naming(one.clone(), 1)),
            Case::new(threads, || naming(all.clone(), TENANTS)),
            Case::new(threads, || keeping(one.clone(), &one_key)),
            Case::new(threads, || keeping(all.clone(), &keys)),
        ];
        let nanos = measure(cases, ROUNDS, REQUESTS);
        println!("tenants, {threads} thread(s), ns per request");
        let names = [
            "one, by name",
            "any of 10,000",
            "one, key at hand",
            "any of 10,000",
        ];
        print(names, &nanos);
        [(1, 0), (3, 2)].map(|(all, one)| Spread::of_ratio(&nanos[all], &nanos[one]))
    });
    [
        Row::at_most(
            "a request for any of 10,000 tenants, to always the same, by name",
            one_thread[0],
            2.0,
        ),
        Row::at_most("· the same, key at hand", one_thread[1], 2.0),
        Row::at_most("the same by name, 2 threads", two_threads[0], 2.0),
        Row::at_most("· the same, key at hand", two_threads[1], 2.0),
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

/// As a service does that has just read which tenant it works for.
fn naming(mut service: BearerAuth<stack::Noop>, tenants: usize) -> Load {
    let uri = stack::uri();
    Box::new(move |requests| {
        for _ in 0..requests {
            let tenant = RequestAuth::scope(stack::scope(fastrand::usize(..tenants)));
            stack::send_for(&mut service, &uri, tenant);
        }
    })
}

/// As a service does that has made each tenant's key once.
fn keeping(mut service: BearerAuth<stack::Noop>, keys: &Arc<[TokenRequest]>) -> Load {
    let (keys, uri) = (Arc::clone(keys), stack::uri());
    Box::new(move |requests| {
        for _ in 0..requests {
            let tenant = keys[fastrand::usize(..keys.len())].clone();
            stack::send_for(&mut service, &uri, tenant);
        }
    })
}
