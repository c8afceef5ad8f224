//! The cost of refreshes and of rejections to the callers at that time.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::rounds::{Case, Spread, measure, print};
use crate::scenarios::{self, TokenAtAge};
use crate::tower_stacks::{self as tower, Noop};
use crate::{Row, sending};

pub(crate) fn rows() -> Vec<Row> {
    let runtime = scenarios::runtime(2);
    let mut rows = Vec::from(refresh());
    rows.push(rollover(&runtime));
    rows.push(revocation(&runtime));
    rows
}

/// Compares requests while the token is refreshed in the background with requests while it is
/// fresh. Both use the same stopped clock.
fn refresh() -> [Row; 2] {
    const ROUNDS: usize = 101;
    const REQUESTS: usize = 5_000;

    let (fresh, refreshing) = (TokenAtAge::fresh(), TokenAtAge::refreshing());
    let [fresh, refreshing] = [&fresh, &refreshing].map(|it| tower::token(it.layer.clone()));
    let [one, two] = [1, 2].map(|threads| {
        let cases = [
            Case::new(threads, || sending(Noop)),
            Case::new(threads, || sending(fresh.clone())),
            Case::new(threads, || sending(refreshing.clone())),
        ];
        let nanos = measure(cases, ROUNDS, REQUESTS);
        println!("tower, stopped clock, {threads} thread(s), ns per request");
        let names = ["bare", "fresh token", "token refreshed in the background"];
        print(&names, &nanos);
        Spread::of_added(&nanos[2], &nanos[1], &nanos[0])
    });
    [
        Row::at_most(
            "tower, token refreshed in the background: time added, relative to a fresh token",
            one,
            1.1,
        ),
        Row::at_most("· 2 threads", two, 1.1),
    ]
}

fn rollover(runtime: &Runtime) -> Row {
    let rollover = runtime.block_on(scenarios::rollover(Duration::from_secs(10)));
    let scenarios::Rollover {
        requests,
        delayed,
        token_requests,
    } = rollover;
    Row {
        figure: "500 requests/s for 10 s, 4 s tokens, fetches of 100 ms",
        measured: format!(
            "{delayed} of {requests} delayed by over 50 ms, {token_requests} token requests"
        ),
        target: "0, ≤ 4".to_owned(),
        is_met: Some(delayed == 0 && token_requests <= 4),
    }
}

fn revocation(runtime: &Runtime) -> Row {
    const REQUESTS: usize = 100;
    let revocation = runtime.block_on(scenarios::revocation(REQUESTS));
    let scenarios::Revocation {
        succeeded,
        token_requests,
    } = revocation;
    Row {
        figure: "100 concurrent requests with a revoked token",
        measured: format!("{succeeded} responses with 200, {token_requests} token request(s)"),
        target: "100, 1".to_owned(),
        is_met: Some(succeeded == REQUESTS && token_requests == 1),
    }
}
