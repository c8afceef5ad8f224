//! What a token's life costs those who call meanwhile.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::rounds::{Case, Spread, measure, print};
use crate::stages::{self, Aged, herd};
use crate::{Row, sending, stack};

pub(crate) fn rows() -> Vec<Row> {
    let runtime = stages::runtime(2);
    let mut rows = cold_callers(&runtime);
    rows.extend(renewal());
    rows.push(rollover(&runtime));
    rows.push(revocation(&runtime));
    rows
}

/// 10,000 cold callers, and in the cache's place what as many tasks cost in any case.
fn cold_callers(runtime: &Runtime) -> Vec<Row> {
    const ROUNDS: usize = 21;

    let (mut times, mut most) = ([const { Vec::new() }; 3], 0);
    let timed = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        round();
        start.elapsed().div_duration_f64(herd::LATENCY)
    };
    for _ in 0..ROUNDS {
        times[0].push(timed(&mut || runtime.block_on(herd::of_timers())));
        times[1].push(timed(&mut || runtime.block_on(herd::of_listeners())));
        times[2].push(timed(&mut || {
            most = most.max(runtime.block_on(herd::of_cold_callers()));
        }));
    }
    let [timers, listeners, callers] = times.map(Spread::of);
    println!(
        "10,000 cold callers: {:.2} times the endpoint's latency; timers alone {:.2}, listeners {:.2}",
        callers.median, timers.median, listeners.median
    );
    vec![
        Row::at_most(
            "10,000 cold callers, to the endpoint's 50 ms",
            callers,
            1.25,
        ),
        Row {
            figure: "the same: token requests",
            measured: most.to_string(),
            target: "1".to_owned(),
            is_met: Some(most == 1),
        },
    ]
}

/// Requests with a token that is being renewed, and with a fresh one, by the same clock. The target is ours.
fn renewal() -> [Row; 2] {
    const ROUNDS: usize = 101;
    const REQUESTS: usize = 5_000;

    let (fresh, due) = (Aged::fresh(), Aged::due());
    let [fresh, due] = [&fresh, &due].map(|it| stack::bearer(it.layer.clone()));
    let [one, two] = [1, 2].map(|threads| {
        let cases = [
            Case::new(threads, || sending(stack::Noop)),
            Case::new(threads, || sending(fresh.clone())),
            Case::new(threads, || sending(due.clone())),
        ];
        let nanos = measure(cases, ROUNDS, REQUESTS);
        println!("tower, {threads} thread(s), a clock that stands still, ns per request");
        print(["bare", "fresh token", "token that is renewed"], &nanos);
        Spread::of_added(&nanos[2], &nanos[1], &nanos[0])
    });
    [
        Row::at_most(
            "tower, while the token is renewed: added, to a fresh one's",
            one,
            1.1,
        ),
        Row::at_most("the same, 2 threads", two, 1.1),
    ]
}

fn rollover(runtime: &Runtime) -> Row {
    let rollover = runtime.block_on(stages::rollover(Duration::from_secs(10)));
    let stages::Rollover {
        requests,
        held,
        token_requests,
    } = rollover;
    Row {
        figure: "500 requests/s through renewals of 100 ms, 4 s tokens, 10 s",
        measured: format!(
            "{held} of {requests} held up by over 50 ms, {token_requests} token requests"
        ),
        target: "0, ≤ 4".to_owned(),
        is_met: Some(held == 0 && token_requests <= 4),
    }
}

fn revocation(runtime: &Runtime) -> Row {
    const REQUESTS: usize = 100;
    let revocation = runtime.block_on(stages::revocation(REQUESTS));
    let stages::Revocation {
        answered_200,
        token_requests,
    } = revocation;
    Row {
        figure: "a revoked token, 100 requests at once",
        measured: format!("{answered_200} answered 200, {token_requests} token request(s)"),
        target: "100, 1".to_owned(),
        is_met: Some(answered_200 == REQUESTS && token_requests == 1),
    }
}
