//! The time that the layer adds to requests, each figure relative to a baseline of the same run.
//!
//! `cargo bench --bench summary` takes somewhat more than a minute and ends with a table of all
//! figures and their targets. `-- fresh`, `-- cold`, `-- lifecycle` or `-- lookups` runs one part
//! alone.
//!
//! Requests go to services that respond immediately, so that only the layer's own cost is measured.
//! The cases of a comparison take turns, so that load from elsewhere falls on all of them. A ratio
//! is the median over all rounds, followed by the quartiles.

mod cold;
mod fresh;
mod lifecycle;
mod locking;
mod lookups;
mod rounds;
mod scenarios;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use http::Request;
use tower::Service;

use self::support::{callgrind, tower_stacks};

const PARTS: [&str; 4] = ["fresh", "cold", "lifecycle", "lookups"];

/// One line of the table.
struct Row {
    figure: &'static str,
    measured: String,
    target: String,
    /// `None` if the figure was not measured or has no target.
    is_met: Option<bool>,
}

impl Row {
    /// Creates a row without a target.
    fn info(figure: &'static str, measured: rounds::Spread) -> Self {
        Self {
            figure,
            measured: measured.to_ratio(),
            target: String::new(),
            is_met: None,
        }
    }

    /// Creates a row whose target is met if the median is at most `limit`.
    fn at_most(figure: &'static str, measured: rounds::Spread, limit: f64) -> Self {
        Self {
            figure,
            measured: measured.to_ratio(),
            target: format!("≤ {limit} ×"),
            is_met: Some(measured.median <= limit),
        }
    }
}

fn main() -> ExitCode {
    if callgrind::ran_as_child() {
        return ExitCode::SUCCESS;
    }
    let parts: Vec<String> = env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    if let Some(unknown) = parts.iter().find(|it| !PARTS.contains(&&***it)) {
        eprintln!(
            "unknown part `{unknown}`, expected one of: {}",
            PARTS.join(", ")
        );
        return ExitCode::from(2);
    }
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    let mut rows = Vec::new();
    if is_wanted("fresh") {
        rows.extend(fresh::rows());
    }
    if is_wanted("cold") {
        rows.extend(cold::rows());
    }
    if is_wanted("lifecycle") {
        rows.extend(lifecycle::rows());
    }
    if is_wanted("lookups") {
        lookups::print_table();
    }
    if !rows.is_empty() {
        print_table(&rows);
    }
    ExitCode::SUCCESS
}

fn print_table(rows: &[Row]) {
    println!();
    println!("| figure | measured | target | |");
    println!("|---|---|---|---|");
    for row in rows {
        let verdict = match row.is_met {
            Some(true) => "met",
            Some(false) => "falls short",
            None => "",
        };
        println!(
            "| {} | {} | {} | {verdict} |",
            row.figure, row.measured, row.target
        );
    }
    let missed = rows.iter().filter(|row| row.is_met == Some(false)).count();
    println!();
    let targets = rows.iter().filter(|row| row.is_met.is_some()).count();
    println!("{targets} targets, {missed} of them not reached");
}

/// Returns a load that sends requests through this service, one after the other.
fn sending<S>(mut service: S) -> rounds::Load
where
    S: Service<Request<()>> + Send + 'static,
{
    let uri = tower_stacks::uri();
    Box::new(move |requests| {
        for _ in 0..requests {
            let request = tower_stacks::request(black_box(&uri));
            black_box(tower_stacks::send(&mut service, black_box(request)));
        }
    })
}
