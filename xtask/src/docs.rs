//! `cargo xtask docs`: the reference pages, made from the code's own tables (`tests/src/bin/varve-docs.rs`).

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::{building, root, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    let built = building().args(["--bin", "varve-docs"]).status().context("starting cargo")?;
    ensure!(built.success(), "the build ended with {built}");
    let mut docs = Command::new(target_dir().join("release/varve-docs"));
    let status = docs.current_dir(root()).status().context("starting varve-docs")?;
    ensure!(status.success(), "varve-docs ended with {status}");
    Ok(())
}
