//! Instructions per request, counted by valgrind's callgrind: exact, whatever else the machine does.
//!
//! `cargo bench --bench instructions` runs itself under valgrind, some requests and twice as many: the
//! difference is what they cost, without what the process does before and after. It fails if a target
//! is missed. Without valgrind it says so, and fails only where `CI` is set.

#[path = "stacks/tower.rs"]
mod stack;

use std::env;
use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};

use http::Request;
use tower::Service;

const REQUESTS: u64 = 2_000;
/// What a request costs more with the token than without, at most.
const MOST_ADDED: u64 = 500;

/// Names a stack, to the process that runs under valgrind.
const CASES: [&str; 5] = ["none", "static", "bearer", "copy-static", "bearer-replay"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    match &arguments[1..] {
        [flag, case, requests, ..] if flag == "--run" => {
            run(case, requests.parse().expect("a number"));
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
    let counts = CASES.map(|case| {
        let (once, twice) = (count(case, REQUESTS), count(case, 2 * REQUESTS));
        (twice - once) / REQUESTS
    });
    let [none, fixed, bearer, copied, replayed] = counts;
    let added = |count: u64| count.saturating_sub(none);
    println!("instructions per request, beside the {none} of the bare service");
    println!("  static header                       {:5}", added(fixed));
    println!(
        "  bearer, replay off                  {:5}  (at most {MOST_ADDED})",
        added(bearer)
    );
    println!("  copy of the request, static header  {:5}", added(copied));
    println!(
        "  bearer, replay on                   {:5}",
        added(replayed)
    );
    if added(bearer) > MOST_ADDED {
        println!("over the limit");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn has_valgrind() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Instructions of a whole process that sends so many requests.
fn count(case: &str, requests: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("a path"))
        .args(["--run", case, &requests.to_string()])
        .output()
        .expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // `==1234== Collected : 5678`
    let total = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, total) = total.expect("a total");
    total.trim().parse().expect("a number")
}

fn run(case: &str, requests: u64) {
    match case {
        "none" => send_all(stack::Noop, requests),
        "static" => send_all(stack::fixed(), requests),
        "bearer" => send_all(stack::bearer(), requests),
        "copy-static" => send_all(stack::Copying(stack::fixed()), requests),
        "bearer-replay" => send_all(stack::replaying(), requests),
        _ => panic!("no stack {case}"),
    }
}

fn send_all(mut service: impl Service<Request<()>>, requests: u64) {
    let uri = stack::uri();
    for _ in 0..requests {
        let request = stack::request(black_box(&uri));
        black_box(stack::send(&mut service, black_box(request)));
    }
}
