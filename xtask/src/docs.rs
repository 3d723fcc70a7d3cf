//! `cargo xtask docs`: the reference pages, made from the code's own tables (`tests/src/bin/varve-docs.rs`).

use anyhow::{Context, Result, ensure};

use crate::workspace::cargo;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    let mut docs = cargo();
    docs.args(["run", "--quiet", "--release", "--package", "varve-tests", "--bin", "varve-docs"]);
    let status = docs.status().context("starting varve-docs")?;
    ensure!(status.success(), "varve-docs ended with {status}");
    Ok(())
}
