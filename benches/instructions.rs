//! Instructions per request, counted by valgrind's callgrind: exact, whatever else the machine does.
//!
//! `cargo bench --bench instructions` runs itself under valgrind, some requests and twice as many: the
//! difference is what they cost, without what the process does before and after. It fails if they
//! have become more. Without valgrind it says so, and fails only where `CI` is set.

#[path = "stacks/reqwest_middleware.rs"]
mod middleware;
#[path = "stacks/tower.rs"]
mod stack;

use std::env;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

use http::Request;
use reqwest_middleware::ClientWithMiddleware;
use tower::Service;

const REQUESTS: u64 = 2_000;
/// What the token may add to a request without replay, by tower and by reqwest-middleware: what it was when
/// this was written, and a few in a hundred for other compilers.
const MOST_ADDED: [u64; 2] = [840, 1_720];

/// Stacks by name, which the process that runs under valgrind is given: one that does nothing, then one
/// with a constant header, then ours; without and with a copy of the request for a second sending.
const TOWER: [&str; 6] = ["none", "fixed", "bearer", "coarse", "copying", "replaying"];
const MIDDLEWARE: [&str; 6] = [
    "middleware-none",
    "middleware-fixed",
    "middleware-bearer",
    "middleware-coarse",
    "middleware-copying",
    "middleware-replaying",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    match &arguments[1..] {
        [flag, stack, requests, ..] if flag == "--run" => {
            run(stack, requests.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        _ => measure(),
    }
}

fn measure() -> ExitCode {
    if !has_valgrind() {
        println!("SKIPPED: there is no `valgrind` that can be started");
        return ExitCode::from(u8::from(env::var_os("CI").is_some_and(|it| !it.is_empty())));
    }
    let added = [
        print("tower", TOWER),
        print("reqwest-middleware", MIDDLEWARE),
    ];
    for (added, most) in added.into_iter().zip(MOST_ADDED) {
        if added > most {
            println!("{added} instructions, {most} were enough");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Counts, prints, and gives what the token adds without replay.
fn print(name: &str, stacks: [&str; 6]) -> u64 {
    let [none, fixed, bearer, coarse, copying, replaying] = stacks.map(|stack| {
        let (once, twice) = (count(stack, REQUESTS), count(stack, 2 * REQUESTS));
        (twice - once) / REQUESTS
    });
    println!("{name}: instructions per request, beyond the {none} of the stack without");
    for (row, count) in [
        ("constant header", fixed),
        ("token, replay off", bearer),
        ("the same with `CoarseClock`", coarse),
        ("copy of the request, constant header", copying),
        ("token, replay on", replaying),
    ] {
        println!("  {row:38}{:6}", count.saturating_sub(none));
    }
    bearer.saturating_sub(none)
}

fn has_valgrind() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Instructions of a whole process that sends so many requests.
fn count(stack: &str, requests: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("a path"))
        .args(["--run", stack, &requests.to_string()])
        .output()
        .expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // `==1234== Collected : 5678`
    let total = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, total) = total.expect("a total");
    total.trim().parse().expect("a number")
}

fn run(stack: &str, requests: u64) {
    match stack {
        "none" => send_all(stack::Noop, requests),
        "fixed" => send_all(stack::fixed(), requests),
        "bearer" => send_all(stack::bearer(stack::layer()), requests),
        "coarse" => send_all(stack::bearer(stack::coarse_layer()), requests),
        "copying" => send_all(stack::Copying(stack::fixed()), requests),
        "replaying" => send_all(stack::replaying(stack::layer()), requests),
        "middleware-none" => execute_all(&middleware::bare(), requests),
        "middleware-fixed" => execute_all(&middleware::fixed(), requests),
        "middleware-bearer" => execute_all(&middleware::bearer(stack::layer()), requests),
        "middleware-coarse" => execute_all(&middleware::bearer(stack::coarse_layer()), requests),
        "middleware-copying" => execute_all(&middleware::copying(), requests),
        "middleware-replaying" => execute_all(&middleware::replaying(stack::layer()), requests),
        _ => panic!("no stack {stack}"),
    }
}

fn send_all(mut service: impl Service<Request<()>>, requests: u64) {
    let uri = stack::uri();
    for _ in 0..requests {
        let request = stack::request(black_box(&uri));
        black_box(stack::send(&mut service, black_box(request)));
    }
}

fn execute_all(client: &ClientWithMiddleware, requests: u64) {
    let url = middleware::url();
    for _ in 0..requests {
        black_box(middleware::send(client, black_box(&url)));
    }
}
