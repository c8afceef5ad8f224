//! Each figure beside its baseline, both of this run, and whether it is where it should be.
//!
//! `cargo bench --bench summary` takes about a minute; with `-- fresh` or `-- life` behind it, only those
//! rows. Requests go to services that answer at once: what is
//! measured is what a layer adds. Rounds take turns, so that whatever else the machine does falls on all;
//! a ratio is the median over the rounds, with the quartiles behind it.

#[path = "../stacks/callgrind.rs"]
mod callgrind;
mod fresh;
mod life;
#[path = "../stacks/reqwest_middleware.rs"]
mod middleware;
mod rounds;
#[path = "../stacks/tower.rs"]
mod stack;
#[path = "../stacks/stages.rs"]
mod stages;

use std::env;
use std::hint::black_box;

use http::Request;
use tower::Service;

/// One line of the table.
struct Row {
    figure: &'static str,
    measured: String,
    target: String,
    /// `None`: not measured.
    is_met: Option<bool>,
}

impl Row {
    /// A figure that is to be `most` at the most.
    fn at_most(figure: &'static str, measured: rounds::Spread, most: f64) -> Self {
        Self {
            figure,
            measured: format!(
                "{:.2} × ({:.2} – {:.2})",
                measured.median, measured.lower, measured.upper
            ),
            target: format!("≤ {most} ×"),
            is_met: Some(measured.median <= most),
        }
    }
}

fn main() {
    if callgrind::ran() {
        return;
    }
    let parts: Vec<String> = env::args()
        .skip(1)
        .filter(|it| !it.starts_with('-'))
        .collect();
    if let Some(unknown) = parts.iter().find(|it| !["fresh", "life"].contains(&&***it)) {
        eprintln!("no part `{unknown}`: there are `fresh` and `life`");
        return;
    }
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|it| it == part);
    let mut rows = Vec::new();
    if is_wanted("fresh") {
        rows.extend(fresh::rows());
    }
    if is_wanted("life") {
        rows.extend(life::rows());
    }
    println!();
    println!("| figure | measured | target | |");
    println!("|---|---|---|---|");
    for row in &rows {
        let verdict = match row.is_met {
            Some(true) => "",
            Some(false) => "missed",
            None => "not measured",
        };
        println!(
            "| {} | {} | {} | {verdict} |",
            row.figure, row.measured, row.target
        );
    }
    let missed = rows.iter().filter(|row| row.is_met == Some(false)).count();
    println!();
    println!("{} rows, {missed} short of their target", rows.len());
}

/// Requests by one thread through this service.
fn sending<S>(mut service: S) -> rounds::Load
where
    S: Service<Request<()>> + Send + 'static,
{
    let uri = stack::uri();
    Box::new(move |requests| {
        for _ in 0..requests {
            let request = stack::request(black_box(&uri));
            black_box(stack::send(&mut service, black_box(request)));
        }
    })
}
