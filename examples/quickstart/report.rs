//! The output: each number beside the expected one.

use std::fmt::Display;
use std::process::ExitCode;

#[derive(Debug, Default)]
pub(crate) struct Report {
    steps: usize,
    checks: usize,
    failed: usize,
}

impl Report {
    /// Prints the heading of the next step.
    pub(crate) fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}", self.steps);
    }

    /// Prints a number and compares it with the expected one.
    pub(crate) fn check(&mut self, label: &str, expected: usize, actual: usize) {
        self.checks += 1;
        let verdict = if actual == expected {
            "ok"
        } else {
            self.failed += 1;
            "FAILED"
        };
        println!("   {label:<40} expected {expected:>5}   actual {actual:>5}   {verdict}");
    }

    /// Prints a value for which nothing is expected.
    pub(crate) fn note(&self, label: &str, value: impl Display) {
        println!("   {label:<40} {value}");
    }

    /// Prints the total and returns the exit status.
    pub(crate) fn finish(self) -> ExitCode {
        if self.failed == 0 {
            println!("\nAll {} checks passed.", self.checks);
            ExitCode::SUCCESS
        } else {
            println!("\n{} of {} checks FAILED.", self.failed, self.checks);
            ExitCode::FAILURE
        }
    }
}
