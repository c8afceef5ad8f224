//! Measuring on a machine that does other things too: the cases take turns, round after round, and
//! what counts is the median of the rounds' ratios.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

/// Runs so many requests on one thread.
pub(crate) type Load = Box<dyn FnMut(usize) + Send>;

/// A stack, as many times as there are threads: clones of one layer or client.
pub(crate) struct Case {
    loads: Vec<Load>,
}

impl Case {
    pub(crate) fn new(threads: usize, load: impl Fn() -> Load) -> Self {
        Self {
            loads: (0..threads).map(|_| load()).collect(),
        }
    }

    /// Nanoseconds for one request on each thread: of the slowest. The threads are new, one as well as two, so
    /// each warms up before it counts.
    fn run(&mut self, requests: usize) -> f64 {
        let threads = self.loads.len();
        let arrived = AtomicUsize::new(0);
        thread::scope(|scope| {
            let running: Vec<_> = self
                .loads
                .iter_mut()
                .map(|load| {
                    let arrived = &arrived;
                    scope.spawn(move || {
                        load(requests / 4);
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < threads {
                            spin_loop();
                        }
                        timed(load, requests)
                    })
                })
                .collect();
            let seconds = running.into_iter().map(|it| it.join().expect("no panic"));
            seconds.fold(0.0, f64::max)
        })
    }
}

fn timed(load: &mut Load, requests: usize) -> f64 {
    let start = Instant::now();
    load(requests);
    start.elapsed().as_secs_f64() * 1e9 / requests as f64
}

/// Nanoseconds by round, for each case.
pub(crate) fn measure(
    cases: impl IntoIterator<Item = Case>,
    rounds: usize,
    requests: usize,
) -> Vec<Vec<f64>> {
    let mut cases: Vec<_> = cases.into_iter().collect();
    // Warm caches, pools and branch predictors.
    cases.iter_mut().for_each(|case| _ = case.run(requests));
    let mut nanos = vec![Vec::with_capacity(rounds); cases.len()];
    for round in 0..rounds {
        for turn in 0..cases.len() {
            // Each follows each other as often.
            let case = (round + turn) % cases.len();
            nanos[case].push(cases[case].run(requests));
        }
    }
    nanos
}

/// A median, and the quartiles around it.
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

    /// Of `with` less `without`, in relation to `baseline` less `without`, round by round.
    pub(crate) fn of_added(with: &[f64], baseline: &[f64], without: &[f64]) -> Self {
        Self::of((0..with.len()).map(|at| (with[at] - without[at]) / (baseline[at] - without[at])))
    }

    pub(crate) fn of_ratio(with: &[f64], baseline: &[f64]) -> Self {
        Self::of(
            with.iter()
                .zip(baseline)
                .map(|(with, baseline)| with / baseline),
        )
    }
}

pub(crate) fn print<const N: usize>(names: [&str; N], nanos: &[Vec<f64>]) {
    for (name, nanos) in names.iter().zip(nanos) {
        let Spread {
            lower,
            median,
            upper,
        } = Spread::of(nanos.iter().copied());
        println!("  {name:24}{median:7.0} ({lower:.0} – {upper:.0})");
    }
}
