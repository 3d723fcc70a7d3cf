//! `cargo xtask demo | test | bench | dist | docs`: how people build, try and measure. One file per command.

mod bench;
mod demo;
mod dist;
mod docs;
mod step;
mod store;
mod test;
mod workspace;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Builds, tries, tests and measures Varve")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a broker, tier a topic through Varve, read it back and compare
    Demo(demo::Args),
    /// All that a change must pass: formatting, lints, the jar, unit and end-to-end tests
    Test(test::Args),
    /// Measure against the limit of the same machine in the same run
    Bench(bench::Args),
    /// Build target/dist/varve-rsm.jar and target/dist/varve
    Dist(dist::Args),
    /// Write docs/CONFIG.md and docs/METRICS.md from the code's own tables
    Docs(docs::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Dist(args) => dist::run(&args).and_then(|_| dist::command()),
        Command::Docs(args) => docs::run(args),
    }
}
