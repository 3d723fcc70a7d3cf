//! `cargo xtask demo`: builds the plug-in and the command, and lets a real broker tier and be archived
//! (`tests/src/bin/varve-demo.rs`).

use std::process::Command;

use anyhow::Result;

use crate::dist;
use crate::step::Steps;
use crate::workspace::{building, root, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    let mut steps = Steps::default();
    let jar = steps.step("varve-rsm.jar", || dist::run(&dist::Args::default()))?;
    steps.command("varve", building().arg("--bins"))?;
    let mut demo = Command::new(target_dir().join("release/varve-demo"));
    steps.command("demo", demo.current_dir(root()).env("VARVE_RSM_JAR", jar))
}
