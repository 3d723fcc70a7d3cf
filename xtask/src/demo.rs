//! `cargo xtask demo`: builds the plug-in and the command, and lets a real broker tier and be archived
//! (`tests/src/bin/varve-demo.rs`).

use anyhow::Result;

use crate::dist;
use crate::step::Steps;
use crate::workspace::cargo;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    let mut steps = Steps::default();
    let jar = steps.step("varve-rsm.jar", || dist::run(&dist::Args::default()))?;
    let build =
        ["build", "--quiet", "--release", "--package", "varve-cli", "--package", "varve-tests", "--bins"];
    steps.command("varve", cargo().args(build))?;
    let mut demo = cargo();
    demo.args(["run", "--quiet", "--release", "--package", "varve-tests", "--bin", "varve-demo"]);
    steps.command("demo", demo.env("VARVE_RSM_JAR", jar))
}
