//! `cargo xtask bench tier`: the RemoteStorageManager against the limit of the machine, both measured in the
//! same run, in turn. Prints ratios; times nothing out, fails only if work fails.

mod lean;
mod measure;
mod segment;
mod stage;
mod tier;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures Varve against the limit of the machine.")]
enum Bench {
    /// Copies and reads of the tier.
    Tier(tier::Args),
}

fn main() -> ExitCode {
    let Bench::Tier(args) = Bench::parse();
    match tier::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}
