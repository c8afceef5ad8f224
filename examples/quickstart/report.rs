//! What is printed: numbers, each beside the one that was expected.

use std::fmt::Display;
use std::process::ExitCode;

#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: usize,
    checks: usize,
    failed: usize,
}

impl Report {
    pub(crate) fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}", self.steps);
    }

    pub(crate) fn check(&mut self, what: &str, expected: usize, seen: usize) {
        self.checks += 1;
        let verdict = if seen == expected {
            "ok"
        } else {
            self.failed += 1;
            "FAILED"
        };
        println!("   {what:<40} expected {expected:>5}   seen {seen:>5}   {verdict}");
    }

    /// A number that is as it is.
    pub(crate) fn note(&self, what: &str, seen: impl Display) {
        println!("   {what:<40} {seen}");
    }

    pub(crate) fn finish(self) -> ExitCode {
        if self.failed == 0 {
            println!("\nAll {} checks ok.", self.checks);
            ExitCode::SUCCESS
        } else {
            println!("\n{} of {} checks FAILED.", self.failed, self.checks);
            ExitCode::FAILURE
        }
    }
}
