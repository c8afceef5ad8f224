//! Instructions per request, with an upper limit for each stack.
//!
//! `cargo bench --bench instructions` fails if a stack exceeds its limit. Without valgrind it
//! prints that it was skipped, which is a failure only if the variable `CI` is set. The package in
//! `benches/counted` builds it with few dependencies.

mod support;

use std::env;
use std::process::ExitCode;

use self::support::callgrind;

/// One line of a table.
struct Row {
    label: &'static str,
    stack: &'static str,
    /// The most instructions that the stack may add to the bare one: a few percent more than it
    /// took when the limit was set, since compilers differ. `None` for a baseline.
    limit: Option<u64>,
}

const fn row(label: &'static str, stack: &'static str, limit: Option<u64>) -> Row {
    Row {
        label,
        stack,
        limit,
    }
}

const TOWER: [Row; 9] = [
    row("constant header", "tower-constant-header", None),
    row("a layer written by hand", "tower-hand-written", None),
    row("token, no replay", "tower-token", Some(720)),
    row(
        "· with `test-util`",
        "tower-token-pausable-clock",
        Some(800),
    ),
    row(
        "· without an allowed origin",
        "tower-token-any-origin",
        Some(865),
    ),
    row(
        "· without an allowed origin, to a path",
        "tower-token-path",
        Some(645),
    ),
    row(
        "· for a tenant, chosen per request",
        "tower-token-of-tenant",
        Some(1_820),
    ),
    row(
        "constant header and request copy",
        "tower-constant-header-and-copy",
        None,
    ),
    row("token with replay", "tower-token-with-replay", Some(965)),
];
const MIDDLEWARE: [Row; 6] = [
    row("constant header", "middleware-constant-header", None),
    row("token, no replay", "middleware-token", Some(1_580)),
    row(
        "· with `test-util`",
        "middleware-token-pausable-clock",
        Some(1_665),
    ),
    row(
        "· without an allowed origin",
        "middleware-token-any-origin",
        Some(1_690),
    ),
    row(
        "constant header and request copy",
        "middleware-constant-header-and-copy",
        None,
    ),
    row(
        "token with replay",
        "middleware-token-with-replay",
        Some(2_970),
    ),
];

fn main() -> ExitCode {
    if callgrind::ran_as_child() {
        return ExitCode::SUCCESS;
    }
    if !callgrind::is_available() {
        println!("SKIPPED: valgrind is not installed");
        return ExitCode::from(u8::from(env::var_os("CI").is_some_and(|it| !it.is_empty())));
    }
    let tower = is_within_limits("tower", "tower-bare", &TOWER);
    let middleware = is_within_limits("reqwest-middleware", "middleware-bare", &MIDDLEWARE);
    let shared = adds_nothing("token of a fleet", "tower-token-shared", "tower-token");
    if tower && middleware && shared {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns true if a stack takes as many instructions as another.
fn adds_nothing(label: &str, stack: &str, other: &str) -> bool {
    let (count, expected) = (callgrind::count(stack), callgrind::count(other));
    println!("{label}: {count} instructions per request, {expected} without a store");
    let is_same = count == expected;
    if !is_same {
        println!("  not the same number");
    }
    is_same
}

fn is_within_limits(name: &str, bare: &str, rows: &[Row]) -> bool {
    let bare = callgrind::count(bare);
    println!("{name}: instructions added per request (the bare stack takes {bare})");
    let mut is_within = true;
    for row in rows {
        let added = callgrind::count(row.stack).saturating_sub(bare);
        println!("  {:38}{added:6}", row.label);
        if let Some(limit) = row.limit.filter(|limit| added > *limit) {
            println!("  above the limit of {limit}");
            is_within = false;
        }
    }
    is_within
}
