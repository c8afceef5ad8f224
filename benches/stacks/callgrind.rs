//! Instructions per request, counted by valgrind's callgrind: exact, whatever else the machine does.
//!
//! The bench runs itself under valgrind, some requests and twice as many: the difference is what they cost,
//! without what the process does before and after.

use std::env;
use std::hint::black_box;
use std::process::{Command, Stdio};

use http::Request;
use reqwest_middleware::ClientWithMiddleware;
use tower::Service;

use crate::{middleware, stack};

const REQUESTS: u64 = 2_000;
/// In front of a stack's name and a number of requests, on the command line of the process under valgrind.
const FLAG: &str = "--run";

/// Sends requests and says so, if this is the process that runs under valgrind.
pub(crate) fn ran() -> bool {
    let arguments: Vec<String> = env::args().collect();
    match &arguments[1..] {
        [flag, stack, requests, ..] if flag == FLAG => {
            run(stack, requests.parse().expect("a number"));
            true
        }
        _ => false,
    }
}

pub(crate) fn is_there() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Instructions for one request through this stack.
pub(crate) fn count(stack: &str) -> u64 {
    (of_process(stack, 2 * REQUESTS) - of_process(stack, REQUESTS)) / REQUESTS
}

fn of_process(stack: &str, requests: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("a path"))
        .args([FLAG, stack, &requests.to_string()])
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
        "open" => send_all(stack::bearer(stack::open_layer()), requests),
        "tenant" => send_for_tenant(requests),
        "copying" => send_all(stack::Copying(stack::fixed()), requests),
        "replaying" => send_all(stack::replaying(stack::layer()), requests),
        "middleware-none" => execute_all(&middleware::bare(), requests),
        "middleware-fixed" => execute_all(&middleware::fixed(), requests),
        "middleware-bearer" => execute_all(&middleware::bearer(stack::layer()), requests),
        "middleware-coarse" => execute_all(&middleware::bearer(stack::coarse_layer()), requests),
        "middleware-open" => execute_all(&middleware::bearer(stack::open_layer()), requests),
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

fn send_for_tenant(requests: u64) {
    let ((mut service, keys), uri) = (stack::of_tenants(1), stack::uri());
    for _ in 0..requests {
        stack::send_for(&mut service, &uri, keys[0].clone());
    }
}

fn execute_all(client: &ClientWithMiddleware, requests: u64) {
    let url = middleware::url();
    for _ in 0..requests {
        black_box(middleware::send(client, black_box(&url)));
    }
}
