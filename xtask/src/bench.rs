//! `cargo xtask bench`: not there yet, and says so.

use anyhow::{Result, bail};

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    bail!("bench is not there yet")
}
