//! `cargo xtask bench`: measures, and prints ratios. Servers are installed by whoever needs them first.

use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};

use crate::dist;
use crate::workspace::{building, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure and how: `tier`, `memory`, `tier --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_values_t = ["tier".to_owned()])]
    arguments: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    // With the `varve` that it measures beside it.
    let built = building().arg("--bins").status();
    let built = built.context("starting cargo")?;
    ensure!(built.success(), "the build ended with {built}");
    let mut bench = Command::new(target_dir().join("release/varve-bench"));
    if args.arguments.first().is_some_and(|what| what == "memory") {
        // It measures the very jar that a broker loads.
        bench.env("VARVE_RSM_JAR", dist::run(&dist::Args::default())?);
    }
    let status: ExitStatus = bench.args(args.arguments).status().context("starting the bench")?;
    ensure!(status.success(), "the bench ended with {status}");
    Ok(())
}
