//! Instructions per request, counted by valgrind's callgrind. The count doesn't depend on load.
//!
//! A bench starts itself under valgrind twice, the second time with twice as many requests, and
//! takes the difference, so that the cost of the first request does not count. Only [`repeat`]
//! counts: not the start of the process, nor what other threads do meanwhile, which depends on load.

use std::env;
use std::hint::black_box;
use std::process::{Command, Stdio};

use ::tower::Service;
use http::{Request, Uri};
use reqwest_middleware::ClientWithMiddleware;

use super::middleware_stacks as middleware;
use super::references;
use super::tower_stacks as tower;

const REQUESTS: u64 = 2_000;
/// The first argument of the process under valgrind. A stack's name and a number of requests
/// follow.
const FLAG: &str = "--run";
/// Matches [`repeat`].
const COUNTED_FUNCTION: &str = "*::callgrind::repeat*";

/// Sends the requests that the command line asks for, and returns true, if this process was
/// started by [`count`]. Returns false otherwise.
pub(crate) fn ran_as_child() -> bool {
    let arguments: Vec<String> = env::args().collect();
    match &arguments[1..] {
        [flag, stack, requests, ..] if flag == FLAG => {
            run(stack, requests.parse().expect("a number"));
            true
        }
        _ => false,
    }
}

/// Returns true if valgrind can be started.
pub(crate) fn is_available() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Returns the number of instructions that one request takes in the stack of this name.
///
/// Once a second a request reads the wall clock too, which takes 280 more. That they fall into one
/// of the processes is lost in rounding to the nearest number.
pub(crate) fn count(stack: &str) -> u64 {
    let added = count_process(stack, 2 * REQUESTS) - count_process(stack, REQUESTS);
    (added + REQUESTS / 2) / REQUESTS
}

fn count_process(stack: &str, requests: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED_FUNCTION}"))
        .arg(env::current_exe().expect("a path"))
        .args([FLAG, stack, &requests.to_string()])
        .output()
        .expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // `==1234== Collected : 5678`
    let total = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, total) = total.expect("a total");
    let total = total.trim().parse().expect("a number");
    assert!(total > 0, "no function {COUNTED_FUNCTION}");
    total
}

fn run(stack: &str, requests: u64) {
    match stack {
        "tower-bare" => send_all(tower::Noop, requests),
        "tower-hand-written" => send_all(tower::hand_written(), requests),
        "tower-token-path" => {
            send_all_to(
                &tower::path(),
                tower::token(tower::any_origin_layer()),
                requests,
            );
        }
        "tower-constant-header" => send_all(tower::constant_header(), requests),
        "tower-plain-arc" => send_all(references::plain_arc(), requests),
        "tower-arc-swap" => send_all(references::arc_swap(), requests),
        "tower-token" => send_all(tower::token(tower::layer()), requests),
        "tower-token-pausable-clock" => {
            send_all(tower::token(tower::pausable_clock_layer()), requests);
        }
        "tower-token-shared" => send_all(tower::token(tower::shared_layer()), requests),
        "tower-token-any-origin" => send_all(tower::token(tower::any_origin_layer()), requests),
        "tower-token-of-tenant" => send_all_for_tenant(requests),
        "tower-constant-header-and-copy" => {
            send_all(tower::KeepCopy(tower::constant_header()), requests);
        }
        "tower-token-with-replay" => send_all(tower::token_with_replay(tower::layer()), requests),
        "middleware-bare" => execute_all(&middleware::bare(), requests),
        "middleware-constant-header" => execute_all(&middleware::constant_header(), requests),
        "middleware-token" => execute_all(&middleware::token(tower::layer()), requests),
        "middleware-token-pausable-clock" => {
            execute_all(&middleware::token(tower::pausable_clock_layer()), requests);
        }
        "middleware-token-any-origin" => {
            execute_all(&middleware::token(tower::any_origin_layer()), requests);
        }
        "middleware-constant-header-and-copy" => {
            execute_all(&middleware::constant_header_and_copy(), requests);
        }
        "middleware-token-with-replay" => {
            execute_all(&middleware::token_with_replay(tower::layer()), requests);
        }
        _ => panic!("no stack {stack}"),
    }
}

fn send_all(service: impl Service<Request<()>>, requests: u64) {
    send_all_to(&tower::uri(), service, requests);
}

fn send_all_to(uri: &Uri, mut service: impl Service<Request<()>>, requests: u64) {
    repeat(requests, || {
        let request = tower::request(black_box(uri));
        black_box(tower::send(&mut service, black_box(request)));
    });
}

fn send_all_for_tenant(requests: u64) {
    let ((mut service, keys), uri) = (tower::tenants(1), tower::uri());
    repeat(requests, || {
        tower::send_for(&mut service, &uri, keys[0].clone())
    });
}

fn execute_all(client: &ClientWithMiddleware, requests: u64) {
    let url = middleware::url();
    repeat(requests, || {
        black_box(middleware::send(client, black_box(&url)));
    });
}

/// Sends the requests. Only the instructions of this function and of those that it calls count.
#[inline(never)]
fn repeat(requests: u64, mut send: impl FnMut()) {
    for _ in 0..requests {
        send();
    }
}
