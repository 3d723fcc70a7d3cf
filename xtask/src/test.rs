//! `cargo xtask test`: all that a change must pass, cheapest first. Servers that tests need are installed by
//! the first test that wants them; here, unlike in a plain `cargo test`, one that can't be had is a failure.

use anyhow::Result;

use crate::dist;
use crate::step::Steps;
use crate::workspace::cargo;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name holds this
    filter: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut steps = Steps::default();
    steps.command("formatting", cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--quiet", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.command("lints", cargo().args(clippy))?;
    let jar = steps.step("varve-rsm.jar", || dist::run(&dist::Args::default()))?;
    let build = ["test", "--quiet", "--release", "--workspace", "--no-run"];
    steps.command("building tests", cargo().args(build))?;
    let mut tests = cargo();
    tests.args(["test", "--release", "--workspace", "--no-fail-fast"]);
    tests.args(args.filter.as_slice());
    tests.env("VARVE_REQUIRE_SERVERS", "1").env("VARVE_RSM_JAR", jar);
    steps.command("unit and end-to-end tests", &mut tests)
}
