//! The rows of the summary one by one: `cargo bench --bench rows`, with divan's options behind `--` (a filter,
//! such as `fresh` or `life`; `--threads`, `--sample-count`).

mod fresh;
mod life;
#[path = "../stacks/reqwest_middleware.rs"]
mod middleware;
#[path = "../stacks/tower.rs"]
mod stack;
#[path = "../stacks/stages.rs"]
mod stages;

use divan::Bencher;
use http::Request;
use tower::Service;

fn main() {
    divan::main();
}

/// One request. It is made outside of the measured time, and so is the service's clone, whose end divan leaves
/// out because it is handed back.
fn send<S>(bencher: Bencher, service: S)
where
    S: Service<Request<()>> + Clone + Sync,
{
    let uri = stack::uri();
    bencher
        .with_inputs(|| (service.clone(), stack::request(&uri)))
        .bench_values(|(mut service, request)| (stack::send(&mut service, request), service));
}
