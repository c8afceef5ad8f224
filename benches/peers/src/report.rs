//! The tables that a run prints.

use crate::results::Results;
use crate::scenarios::cancel::Cancel;
use crate::scenarios::herd::Herd;
use crate::scenarios::hot_path::HotPath;
use crate::scenarios::outage::Outage;
use crate::scenarios::revocation::Revocation;
use crate::scenarios::rollover::Rollover;
use crate::scenarios::{Outcome, Row};
use crate::stats::Spread;

pub(crate) fn print(results: &Results) {
    let machine = &results.machine;
    println!(
        "{}, {} cores, {}, {}, {}",
        machine.cpu, machine.cores, machine.os, machine.rustc, results.date
    );
    let versions = |(name, versions): (&&str, &Vec<&str>)| format!("{name} {}", versions.join("/"));
    println!(
        "{}",
        results
            .versions
            .iter()
            .map(versions)
            .collect::<Vec<_>>()
            .join(", ")
    );
    if results.quick {
        println!("QUICK RUN: the numbers are not meaningful.");
    }
    herd(&results.herd);
    herd(&results.large_herd);
    rollover(&results.rollover);
    cancel(&results.cancel);
    outage(&results.outage);
    revocation(&results.revocation);
    hot_path(&results.hot_path);
}

fn herd(rows: &[Row<Herd>]) {
    let title = measured(rows).map(|it| {
        format!(
            "Herd: {} concurrent cold callers, token endpoint {} ms; \
             times relative to those {} ms, {}",
            it.callers,
            it.token_latency_ms,
            it.token_latency_ms,
            over(it.rounds)
        )
    });
    let head = [
        "token requests",
        "median caller",
        "slowest caller",
        "not a 200",
    ];
    table(title, &head, rows, |it| {
        vec![
            whole(&it.token_requests),
            ratio(&it.median_ratio),
            ratio(&it.slowest_ratio),
            it.not_answered_200.to_string(),
        ]
    });
}

fn rollover(rows: &[Row<Rollover>]) {
    let title = measured(rows).map(|it| {
        format!(
            "Rollover: {} requests in {} s, {} s tokens, token endpoint {} ms; \
             delayed: slower than the median by more than 50 ms; {}",
            it.requests,
            it.seconds,
            it.token_lifetime_s,
            it.token_latency_ms,
            over(it.rounds)
        )
    });
    let head = [
        "delayed by a refresh",
        "delayed otherwise",
        "median",
        "p99",
        "token requests",
        "not a 200",
    ];
    table(title, &head, rows, |it| {
        vec![
            whole(&it.delayed),
            whole(&it.delayed_otherwise),
            format!("{:.2} ms", it.median_ms.median),
            format!("{:.1} ms", it.p99_ms.median),
            whole(&it.token_requests),
            it.not_answered_200.to_string(),
        ]
    });
}

fn cancel(rows: &[Row<Cancel>]) {
    let title = measured(rows).map(|it| {
        format!(
            "Cancel: the first caller is dropped after 10 ms, {} others wait, \
             token endpoint {} ms; {}",
            it.others,
            it.token_latency_ms,
            over(it.rounds)
        )
    });
    let head = ["other callers with 200", "token requests", "slowest caller"];
    table(title, &head, rows, |it| {
        vec![
            whole(&it.answered_200),
            whole(&it.token_requests),
            format!("{:.1} ms", it.slowest_ms.median),
        ]
    });
}

fn outage(rows: &[Row<Outage>]) {
    let title = measured(rows).map(|it| {
        format!(
            "Outage: the token endpoint responds with 503 for {} s, \
             the token expires after {} s, {} callers/s; {}",
            it.seconds,
            it.token_expired_at_s,
            it.callers_per_second,
            over(it.rounds)
        )
    });
    let head = [
        "token requests",
        "without a token",
        "200",
        "401",
        "errors",
        "slowest caller",
        "recovered after",
    ];
    table(title, &head, rows, |it| {
        vec![
            whole(&it.token_requests),
            whole(&it.token_requests_without_token),
            whole(&it.answered_200),
            whole(&it.answered_401),
            whole(&it.errors),
            format!("{:.0} ms", it.slowest_ms.median),
            match it.not_recovered {
                0 => format!("{} s", ratio(&it.recovered_after_s)),
                times => format!("{times} times not within 40 s"),
            },
        ]
    });
}

fn revocation(rows: &[Row<Revocation>]) {
    let title = measured(rows).map(|it| {
        format!(
            "Revocation: {} concurrent requests with a revoked token, token endpoint {} ms; {}",
            it.concurrent,
            it.token_latency_ms,
            over(it.rounds)
        )
    });
    let head = [
        "responses with 200",
        "token requests",
        "API requests",
        "errors",
    ];
    table(title, &head, rows, |it| {
        vec![
            whole(&it.answered_200),
            whole(&it.token_requests),
            whole(&it.api_requests),
            it.errors.to_string(),
        ]
    });
}

fn hot_path(rows: &[Row<HotPath>]) {
    let title = measured(rows).map(|it| {
        format!(
            "Hot path: time added to a request with a fresh token, without sockets; \
             median of {} rounds of {} calls (quartiles)",
            it.rounds, it.calls_per_round
        )
    });
    let head = [
        "added",
        "added by a static header",
        "difference to the static header",
        "bare stack",
    ];
    table(title, &head, rows, |it| {
        let ns = [
            it.added_ns,
            it.static_header_added_ns,
            it.over_static_header_ns,
            it.bare_ns,
        ];
        ns.iter().map(nanoseconds).collect()
    });
}

fn measured<T>(rows: &[Row<T>]) -> Option<&T> {
    rows.iter().find_map(|row| match &row.outcome {
        Outcome::Measured(numbers) => Some(numbers),
        Outcome::None(_) | Outcome::Failed(_) => None,
    })
}

fn table<T>(
    title: Option<String>,
    head: &[&str],
    rows: &[Row<T>],
    cells: impl Fn(&T) -> Vec<String>,
) {
    let line = |row: &Row<T>| {
        let cells = match &row.outcome {
            Outcome::Measured(numbers) => Ok(cells(numbers)),
            Outcome::None(reason) => Err(format!("none: {reason}")),
            Outcome::Failed(error) => Err(format!("FAILED: {error}")),
        };
        (row.peer, cells)
    };
    let lines: Vec<_> = rows.iter().map(line).collect();
    print_table(&title.unwrap_or_default(), head, &lines);
}

/// The name of a row, and its cells or the reason why there are none.
type Line = (&'static str, Result<Vec<String>, String>);

fn print_table(title: &str, head: &[&str], lines: &[Line]) {
    let width = |column: usize| {
        let cells = lines
            .iter()
            .filter_map(|(_, cells)| cells.as_ref().ok()?.get(column));
        cells
            .map(|cell| cell.chars().count())
            .chain([head[column].chars().count()])
            .max()
    };
    let widths: Vec<_> = (0..head.len()).filter_map(width).collect();
    let names = lines
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or_default();
    let padded = |name: &str, cells: &[String]| {
        let cells = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:>width$}"));
        format!("  {name:<names$}  {}", cells.collect::<Vec<_>>().join("  "))
    };
    println!("\n{title}");
    println!(
        "{}",
        padded(
            "",
            &head.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()
        )
    );
    for (name, cells) in lines {
        match cells {
            Ok(cells) => println!("{}", padded(name, cells)),
            Err(reason) => println!("  {name:<names$}  {reason}"),
        }
    }
}

fn over(rounds: usize) -> String {
    match rounds {
        1 => "one round".to_owned(),
        _ => format!("median of {rounds} rounds (minimum – maximum)"),
    }
}

fn ratio(spread: &Spread) -> String {
    with_extremes(spread, |value| format!("{value:.2}"))
}

fn whole(spread: &Spread) -> String {
    with_extremes(spread, |value| format!("{value:.0}"))
}

fn with_extremes(spread: &Spread, text: impl Fn(f64) -> String) -> String {
    let [least, median, most] = [spread.least, spread.median, spread.most].map(text);
    if least == most {
        median
    } else {
        format!("{median} ({least} – {most})")
    }
}

fn nanoseconds(spread: &Spread) -> String {
    let Spread {
        first_quartile,
        median,
        third_quartile,
        ..
    } = spread;
    format!("{median:.0} ns ({first_quartile:.0} – {third_quartile:.0})")
}
