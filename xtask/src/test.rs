//! `cargo xtask test`: all that a change must pass, cheapest first. Servers that tests need are installed by
//! the first test that wants them; here, unlike in a plain `cargo test`, one that can't be had is a failure.

mod lanes;
mod program;

use anyhow::{Result, ensure};

use crate::dist;
use crate::step::Steps;
use crate::store::Store;
use crate::workspace::cargo;
use lanes::Lanes;

/// A room of these tests takes both cores.
const ONE_BY_ONE: usize = 1;
/// A room of these waits for its brokers most of the time.
const THREE_AT_ONCE: usize = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store that end-to-end tests run on; those about another one are passed over [default: a directory, with
    /// what is about S3 on MinIO, and the suite `stores` on the others]
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// Only tests whose name holds this
    filter: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut steps = Steps::default();
    steps.command("formatting", cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--quiet", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.command("lints", cargo().args(clippy))?;
    let jar = steps.step("varve-rsm.jar", || dist::run(&dist::Args::default()))?;
    let (with_servers, alone) = steps.step("building tests", program::build)?;
    steps.step("servers for unit tests", || program::install(&with_servers))?;
    let mut failures = Vec::new();
    for (name, programs, at_once) in
        [("unit tests", alone, ONE_BY_ONE), ("end-to-end tests", with_servers, THREE_AT_ONCE)]
    {
        let lanes = Lanes { at_once, jar: &jar, store: args.store, filter: args.filter.as_deref() };
        // What fails is told at the end, when all that can be known is known.
        failures.extend(steps.step(name, || lanes.run(programs))?);
    }
    let mut documented = cargo();
    documented.args(["test", "--quiet", "--release", "--workspace", "--doc"]).args(args.filter.as_slice());
    let documented = steps.command("examples in the documentation", &mut documented);
    for failure in &failures {
        println!("\n{failure}");
    }
    documented?;
    ensure!(failures.is_empty(), "{} of the test programs failed", failures.len());
    Ok(())
}
