//! The cost of requests while the token is fresh.
//!
//! "Time added" is the time of a stack minus that of the same stack without authorization, relative
//! to the time that a constant header adds.

use std::hint::black_box;
use std::sync::Arc;

use bearer_auth::{BearerAuth, RequestAuth, TokenRequest};
use reqwest_middleware::ClientWithMiddleware;

use crate::rounds::{Case, Load, Spread, measure, print};
use crate::support::{middleware_stacks as middleware, references};
use crate::tower_stacks::{self as tower, KeepCopy, Noop};
use crate::{Row, callgrind, sending};

const ROUNDS: usize = 101;
const REQUESTS: usize = 5_000;
const TENANTS: usize = 10_000;

pub(crate) fn rows() -> Vec<Row> {
    let [one, two] = tower_stacks();
    let mut rows = vec![
        Row::at_most(
            "tower, fresh token, no replay, 1 thread: time added, relative to a constant header",
            one.to_header(TOKEN),
            1.5,
        ),
        Row::at_most(
            "· relative to a hand-written `ArcSwap` check",
            one.added(TOKEN, ARC_SWAP),
            1.1,
        ),
        Row::info(
            "· relative to a hand-written `Arc` check",
            one.added(TOKEN, PLAIN_ARC),
        ),
        Row::info("· the `ArcSwap` check itself", one.to_header(ARC_SWAP)),
        Row::info("· the `Arc` check itself", one.to_header(PLAIN_ARC)),
        Row::info(WITH_PAUSABLE_CLOCK, one.to_header(PAUSABLE_TOKEN)),
        Row::at_most(
            "the same, 2 threads that share a layer, relative to a constant header",
            two.to_header(TOKEN),
            1.0,
        ),
        Row::info(
            "· relative to a hand-written `ArcSwap` check",
            two.added(TOKEN, ARC_SWAP),
        ),
        Row::info(
            "· relative to a hand-written `Arc` check",
            two.added(TOKEN, PLAIN_ARC),
        ),
        Row::info("· the `ArcSwap` check itself", two.to_header(ARC_SWAP)),
        Row::info("· the `Arc` check itself", two.to_header(PLAIN_ARC)),
        Row::info(WITH_PAUSABLE_CLOCK, two.to_header(PAUSABLE_TOKEN)),
        scaling(&one, &two),
        instructions(),
        Row::at_most(
            "tower, with replay: time added, relative to a header and a request copy",
            one.added(REPLAY, HEADER_AND_COPY),
            1.25,
        ),
        Row::info(
            WITH_PAUSABLE_CLOCK,
            one.added(PAUSABLE_REPLAY, HEADER_AND_COPY),
        ),
    ];
    let middleware = middleware_stacks();
    rows.extend([
        Row::at_most(
            "reqwest-middleware, no replay: time added, relative to a constant header",
            middleware.to_header(TOKEN),
            1.3,
        ),
        Row::info(WITH_PAUSABLE_CLOCK, middleware.to_header(PAUSABLE_TOKEN)),
        Row::at_most(
            "reqwest-middleware, with replay: time added, relative to a header and `try_clone`",
            middleware.added(REPLAY, HEADER_AND_COPY),
            1.2,
        ),
        Row::info(
            WITH_PAUSABLE_CLOCK,
            middleware.added(PAUSABLE_REPLAY, HEADER_AND_COPY),
        ),
    ]);
    rows.extend(tenants());
    rows
}

const WITH_PAUSABLE_CLOCK: &str = "· with `test-util`";

/// The stacks under comparison, in the order of the cases. The references come last, since
/// reqwest-middleware has none.
const STACKS: [&str; 9] = [
    "bare",
    "constant header",
    "token, no replay",
    "token, no replay, `test-util`",
    "constant header and request copy",
    "token with replay",
    "token with replay, `test-util`",
    "hand-written, `Arc`",
    "hand-written, `ArcSwap`",
];
const BARE: usize = 0;
const HEADER: usize = 1;
const TOKEN: usize = 2;
const PAUSABLE_TOKEN: usize = 3;
const HEADER_AND_COPY: usize = 4;
const REPLAY: usize = 5;
const PAUSABLE_REPLAY: usize = 6;
const PLAIN_ARC: usize = 7;
const ARC_SWAP: usize = 8;

/// The nanoseconds per request of each stack and round.
struct Measured(Vec<Vec<f64>>);

impl Measured {
    fn new(name: &str, nanos: &[Vec<f64>]) -> Self {
        println!("{name}, ns per request");
        print(&STACKS[..nanos.len()], nanos);
        Self(nanos.to_vec())
    }

    /// Returns the time that a stack adds, relative to what a constant header adds.
    fn to_header(&self, stack: usize) -> Spread {
        self.added(stack, HEADER)
    }

    /// Returns the time that a stack adds, relative to what another one adds.
    fn added(&self, stack: usize, baseline: usize) -> Spread {
        Spread::of_added(&self.0[stack], &self.0[baseline], &self.0[BARE])
    }
}

/// Measures one thread, and two that share each layer, in the same rounds, since the two are
/// compared with each other.
fn tower_stacks() -> [Measured; 2] {
    let header = tower::constant_header();
    let (plain_arc, arc_swap) = (references::plain_arc(), references::arc_swap());
    let [token, pausable_token] = [tower::layer(), tower::pausable_clock_layer()].map(tower::token);
    let [replay, pausable_replay] =
        [tower::layer(), tower::pausable_clock_layer()].map(tower::token_with_replay);
    let cases = [1, 2].map(|threads| {
        [
            Case::new(threads, || sending(Noop)),
            Case::new(threads, || sending(header.clone())),
            Case::new(threads, || sending(token.clone())),
            Case::new(threads, || sending(pausable_token.clone())),
            Case::new(threads, || sending(KeepCopy(header.clone()))),
            Case::new(threads, || sending(replay.clone())),
            Case::new(threads, || sending(pausable_replay.clone())),
            Case::new(threads, || sending(plain_arc.clone())),
            Case::new(threads, || sending(arc_swap.clone())),
        ]
    });
    let nanos = measure(cases.into_iter().flatten(), ROUNDS, REQUESTS);
    let (one, two) = nanos.split_at(STACKS.len());
    [
        Measured::new("tower, 1 thread", one),
        Measured::new("tower, 2 threads", two),
    ]
}

/// Returns how much the throughput of two threads exceeds that of one.
fn scaling(one: &Measured, two: &Measured) -> Row {
    let gain = |stack: usize| 2.0 * Spread::of_ratio(&one.0[stack], &two.0[stack]).median;
    let [token, bare, arc, swap] = [TOKEN, BARE, PLAIN_ARC, ARC_SWAP].map(gain);
    Row {
        figure: "tower, throughput of 2 threads relative to 1",
        measured: format!(
            "{token:.2} × (a bare service {bare:.2}, `Arc` {arc:.2}, `ArcSwap` {swap:.2})"
        ),
        target: "≥ 1.9 ×".to_owned(),
        is_met: Some(token >= 1.9),
    }
}

/// Allocations are counted in `tests/allocations.rs`, since the counter would slow down the stacks
/// that are timed here.
fn instructions() -> Row {
    const STACKS: [&str; 4] = [
        "tower-constant-header",
        "tower-plain-arc",
        "tower-arc-swap",
        "tower-token",
    ];
    const LIMIT: u64 = 700;
    let added = callgrind::is_available().then(|| {
        let bare = callgrind::count("tower-bare");
        STACKS.map(|stack| callgrind::count(stack).saturating_sub(bare))
    });
    Row {
        figure: "tower, fresh token, no replay: instructions added",
        measured: match added {
            Some([header, arc, swap, token]) => {
                format!("{token} (a constant header {header}, `Arc` {arc}, `ArcSwap` {swap})")
            }
            None => "not counted: valgrind is not installed".to_owned(),
        },
        target: format!("≤ {LIMIT}"),
        is_met: added.map(|[.., token]| token <= LIMIT),
    }
}

fn middleware_stacks() -> Measured {
    let cases = [
        middleware::bare(),
        middleware::constant_header(),
        middleware::token(tower::layer()),
        middleware::token(tower::pausable_clock_layer()),
        middleware::constant_header_and_copy(),
        middleware::token_with_replay(tower::layer()),
        middleware::token_with_replay(tower::pausable_clock_layer()),
    ]
    .map(|client| Case::new(1, || executing(client.clone())));
    let nanos = measure(cases, ROUNDS, REQUESTS);
    Measured::new("reqwest-middleware", &nanos)
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
        print(&names, &nanos);
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
