//! Instructions per request, and whether they have become more.
//!
//! `cargo bench --bench instructions` fails if they have. Without valgrind it says so, and fails only where
//! `CI` is set.

#[path = "stacks/callgrind.rs"]
mod callgrind;
#[path = "stacks/reqwest_middleware.rs"]
mod middleware;
#[path = "stacks/tower.rs"]
mod stack;

use std::env;
use std::process::ExitCode;

/// A stack by its name, and the most that it may add to the one that does nothing: what it was when this
/// was written, and a few in a hundred for other compilers. The others are here to be compared with.
type Stack = (&'static str, &'static str, Option<u64>);

const TOWER: [Stack; 7] = [
    ("constant header", "fixed", None),
    ("token, replay off", "bearer", Some(840)),
    ("the same with `CoarseClock`", "coarse", Some(780)),
    ("the same with no origin named", "open", Some(1_100)),
    ("a tenant's token, choice included", "tenant", Some(1_950)),
    ("copy of the request, constant header", "copying", None),
    ("token, replay on", "replaying", Some(1_570)),
];
const MIDDLEWARE: [Stack; 6] = [
    ("constant header", "middleware-fixed", None),
    ("token, replay off", "middleware-bearer", Some(1_750)),
    (
        "the same with `CoarseClock`",
        "middleware-coarse",
        Some(1_700),
    ),
    (
        "the same with no origin named",
        "middleware-open",
        Some(1_860),
    ),
    (
        "copy of the request, constant header",
        "middleware-copying",
        None,
    ),
    ("token, replay on", "middleware-replaying", Some(3_050)),
];

fn main() -> ExitCode {
    if callgrind::ran() {
        return ExitCode::SUCCESS;
    }
    if !callgrind::is_there() {
        println!("SKIPPED: there is no `valgrind` that can be started");
        return ExitCode::from(u8::from(env::var_os("CI").is_some_and(|it| !it.is_empty())));
    }
    let tower = is_within_bounds("tower", "none", &TOWER);
    let middleware = is_within_bounds("reqwest-middleware", "middleware-none", &MIDDLEWARE);
    if tower && middleware {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn is_within_bounds(name: &str, none: &str, stacks: &[Stack]) -> bool {
    let none = callgrind::count(none);
    println!("{name}: instructions per request, beyond the {none} of the stack without");
    let mut is_within = true;
    for &(row, stack, most) in stacks {
        let added = callgrind::count(stack).saturating_sub(none);
        println!("  {row:38}{added:6}");
        if let Some(most) = most.filter(|most| added > *most) {
            println!("  too many: {most} were enough");
            is_within = false;
        }
    }
    is_within
}
