//! `cargo xtask demo`: builds the plug-in and the command, and lets a real broker tier and be archived
//! (`tests/src/bin/varve-demo.rs`).

use std::process::Command;

use anyhow::Result;

use crate::dist;
use crate::step::Steps;
use crate::store::Store;
use crate::workspace::{building, root, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the tier and the archive are
    #[arg(long, value_enum, default_value_t = Store::File)]
    store: Store,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut steps = Steps::default();
    let jar = steps.step("varve-rsm.jar", || dist::run(&dist::Args::default()))?;
    steps.command("varve", building().arg("--bins"))?;
    let mut demo = Command::new(target_dir().join("release/varve-demo"));
    demo.args(["--store", args.store.name()]);
    steps.command("demo", demo.current_dir(root()).env("VARVE_RSM_JAR", jar))
}
