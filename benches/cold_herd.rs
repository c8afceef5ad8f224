//! A cold start: 10,000 callers at once, a token endpoint that takes 50 ms.
//!
//! `cargo bench --bench cold_herd` prints, for rounds that take turns, how long it took until all
//! callers had gone on, with the cache and with a bare timer of 50 ms in its place, and how many
//! fetches there were.

use std::time::{Duration, Instant};

use bearer_auth::{MockTokenSource, TokenCache};
use tokio::task::JoinSet;

const CALLERS: usize = 10_000;
const LATENCY: Duration = Duration::from_millis(50);
const ROUNDS: usize = 11;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut bare, mut cached, mut fetches) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(runtime.block_on(herd(|| tokio::time::sleep(LATENCY))));
        let tokens = MockTokenSource::new().with_latency(LATENCY);
        let cache = TokenCache::new(tokens.clone());
        cached.push(runtime.block_on(herd(|| {
            let cache = cache.clone();
            async move {
                cache.token().await.expect("a token");
            }
        })));
        fetches.push(tokens.fetches());
    }
    let (bare, cached) = (Spread::of(bare), Spread::of(cached));
    println!(
        "{CALLERS} cold callers, endpoint {LATENCY:?}, {ROUNDS} rounds, median (least – most)"
    );
    println!("  bare timer   {bare}");
    println!("  token cache  {cached}");
    println!(
        "  fetches      {} (most in a round)",
        fetches.iter().max().unwrap_or(&0)
    );
    println!(
        "  ratio to the endpoint's latency  {:.2}",
        cached.median / LATENCY.as_secs_f64()
    );
    println!(
        "  ratio to the bare timer          {:.2}",
        cached.median / bare.median
    );
}

/// How long it takes until all callers have finished.
async fn herd<F, Fut>(caller: F) -> f64
where
    F: Fn() -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(caller());
    }
    callers.join_all().await;
    start.elapsed().as_secs_f64()
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self {
            least: seconds[0],
            median: seconds[seconds.len() / 2],
            most: seconds[seconds.len() - 1],
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, median, most] = [self.least, self.median, self.most].map(|it| it * 1e3);
        write!(f, "{median:6.1} ms ({least:.1} – {most:.1})")
    }
}
