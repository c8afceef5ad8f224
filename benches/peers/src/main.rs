//! Compares bearer-auth with other crates in the same scenarios, on loopback.
//!
//! `cargo run --release` prints tables and writes `results.json` and plots. See the README.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::peers::BoxError;
use self::results::Results;
use self::scenarios::Scale;

mod machine;
mod peers;
mod plots;
mod report;
mod results;
mod scenarios;
mod server;
mod stack;
mod stats;
mod token_request;

const HELP: &str = "\
Compares bearer-auth with other crates in the same scenarios, on loopback.

    cargo run --release [-- [--quick] [FOLDER]]

Prints tables and writes results.json and plots to FOLDER. The default is the folder results in
this package. --quick takes less than two minutes and only shows that everything works: its numbers
are not meaningful, and its default folder is target/quick.
";

fn main() -> ExitCode {
    let mut scale = Scale::Full;
    let mut folder = None;
    for argument in env::args_os().skip(1) {
        if argument == "--help" || argument == "-h" {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        } else if argument == "--quick" {
            scale = Scale::Quick;
        } else if folder.is_none() && !argument.to_string_lossy().starts_with('-') {
            folder = Some(PathBuf::from(argument));
        } else {
            eprintln!("unknown argument `{}`\n\n{HELP}", argument.display());
            return ExitCode::from(2);
        }
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let default = package.join(scale.of("results", "target/quick"));
    match run(scale, &folder.unwrap_or(default)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(scale: Scale, folder: &Path) -> Result<(), BoxError> {
    let results = Results::measure(scale)?;
    report::print(&results);
    fs::create_dir_all(folder)?;
    fs::write(folder.join("results.json"), results::to_json(&results)?)?;
    plots::draw(&results, folder)?;
    if results.has_failures() {
        return Err("a scenario failed, see the tables".into());
    }
    Ok(())
}
