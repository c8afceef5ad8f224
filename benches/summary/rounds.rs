//! Time measurement on a machine that is busy with other work too: the cases take turns, round
//! after round, and the result is the median of the ratios of all rounds.
//!
//! Each round runs at another depth of the stack. At a few depths, where a request lies across the
//! border of two pages, a stack takes up to 20 ns longer; at one depth for all rounds, which stacks
//! these are depends on the sizes of the frames of the benchmark.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// Runs the given number of operations on the current thread.
pub(crate) type Load = Box<dyn FnMut(usize) + Send>;

/// The depths that the rounds take in turn. [`FRAME`] times as many bytes are a page.
const DEPTHS: usize = 16;
const FRAME: usize = 256;

/// One stack under measurement, with a load for each thread: clones of one layer or client.
pub(crate) struct Case {
    loads: Vec<Load>,
}

impl Case {
    pub(crate) fn new(threads: usize, load: impl Fn() -> Load) -> Self {
        Self {
            loads: (0..threads).map(|_| load()).collect(),
        }
    }

    /// Returns the nanoseconds per operation on the slowest thread.
    ///
    /// The threads are new in each round, also if there is only one, and each warms up first.
    fn run(&mut self, depth: usize, operations: usize) -> f64 {
        let threads = self.loads.len();
        let ready = AtomicUsize::new(0);
        thread::scope(|scope| {
            let running: Vec<_> = self
                .loads
                .iter_mut()
                .map(|load| {
                    let ready = &ready;
                    scope.spawn(move || {
                        at_depth(depth, &mut || {
                            load(operations / 4);
                            ready.fetch_add(1, Ordering::SeqCst);
                            while ready.load(Ordering::SeqCst) < threads {
                                spin_loop();
                            }
                            timed(load, operations)
                        })
                    })
                })
                .collect();
            let nanos = running.into_iter().map(|it| it.join().expect("no panic"));
            nanos.fold(0.0, f64::max)
        })
    }
}

/// Runs `measure` below this many frames of [`FRAME`] bytes and a little.
#[inline(never)]
fn at_depth(depth: usize, measure: &mut dyn FnMut() -> f64) -> f64 {
    if depth == 0 {
        return measure();
    }
    let frame = [0_u8; FRAME];
    black_box(&frame);
    let nanos = at_depth(depth - 1, measure);
    black_box(&frame);
    nanos
}

fn timed(load: &mut Load, operations: usize) -> f64 {
    let start = Instant::now();
    load(operations);
    start.elapsed().as_secs_f64() * 1e9 / operations as f64
}

/// Returns the nanoseconds per operation for each case and round.
pub(crate) fn measure(
    cases: impl IntoIterator<Item = Case>,
    rounds: usize,
    operations: usize,
) -> Vec<Vec<f64>> {
    let mut cases: Vec<_> = cases.into_iter().collect();
    // Warms caches, pools and branch predictors.
    cases
        .iter_mut()
        .for_each(|case| _ = case.run(0, operations));
    let mut nanos = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..rounds {
        for turn in 0..cases.len() {
            // The starting case rotates, so that each case starts as many rounds as any other.
            let case = (round + turn) % cases.len();
            nanos[case].push(cases[case].run(round % DEPTHS, operations));
        }
    }
    nanos
}

/// A median and the quartiles around it.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
        Self {
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
        }
    }

    /// Returns the median and the quartiles as text.
    pub(crate) fn to_ratio(self) -> String {
        format!(
            "{:.2} × ({:.2} – {:.2})",
            self.median, self.lower, self.upper
        )
    }

    /// Returns the time that `with` adds to `bare`, relative to what `baseline` adds to it.
    pub(crate) fn of_added(with: &[f64], baseline: &[f64], bare: &[f64]) -> Self {
        Self::of((0..with.len()).map(|at| (with[at] - bare[at]) / (baseline[at] - bare[at])))
    }

    /// Returns the ratio of `with` to `baseline`.
    pub(crate) fn of_ratio(with: &[f64], baseline: &[f64]) -> Self {
        Self::of(
            with.iter()
                .zip(baseline)
                .map(|(with, baseline)| with / baseline),
        )
    }
}

pub(crate) fn print(names: &[&str], nanos: &[Vec<f64>]) {
    for (name, nanos) in names.iter().zip(nanos) {
        let Spread {
            lower,
            median,
            upper,
        } = Spread::of(nanos.iter().copied());
        println!("  {name:34}{median:7.0} ({lower:.0} – {upper:.0})");
    }
}
