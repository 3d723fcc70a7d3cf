//! `varve`: thin commands over the crates.
//!
//! Exit codes: 0 done and all is well, 1 done and something was found (corruption, orphans, broken promises
//! of a store), 2 it could not be done.

mod archive;
mod args;
mod command;
mod keys;
mod location;
mod logging;
mod object;
mod output;
mod process;
mod progress;
mod registry;
mod restore;
mod schemas;
mod scrub;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::keys::KeysCommand;
use args::{ArchiveCommand, Cli, Command, ConfigCommand, SegmentCommand, StoreCommand, TierCommand};

/// What a command that ran to its end found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Clean,
    Findings,
}

fn main() -> ExitCode {
    varve_archiver::resident::keep();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let outcome = runtime.block_on(run(cli.command));
    // What is still under way on blocking threads is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(Verdict::Clean) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(1),
        Err(error) => failed(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<Verdict> {
    match command {
        Command::Segment(SegmentCommand::Inspect(args)) => command::segment_inspect::run(args).await,
        Command::Segment(SegmentCommand::Verify(args)) => command::segment_verify::run(args).await,
        Command::Segment(SegmentCommand::Extract(args)) => command::segment_extract::run(args).await,
        Command::Tier(TierCommand::Scrub(args)) => command::tier_scrub::run(args).await,
        Command::Archive(ArchiveCommand::Run(args)) => command::archive_run::run(args).await,
        Command::Archive(ArchiveCommand::Import(args)) => command::archive_import::run(args).await,
        Command::Archive(ArchiveCommand::Status(args)) => command::archive_status::run(args).await,
        Command::Archive(ArchiveCommand::Snapshot(args)) => command::archive_snapshot::run(args).await,
        Command::Keys(KeysCommand::Audit(args)) => command::keys_audit::run(args).await,
        Command::Keys(KeysCommand::Rotate(args)) => command::keys_rotate::run(&args),
        Command::Keys(KeysCommand::Rewrap(args)) => command::keys_rewrap::run(args).await,
        Command::Keys(KeysCommand::Shred(args)) => command::keys_shred::run(args).await,
        Command::Store(StoreCommand::Check(args)) => command::store_check::run(args).await,
        Command::Config(ConfigCommand::Check(args)) => command::config_check::run(&args),
        Command::Ls(args) => command::archive_ls::run(args).await,
        Command::Snapshots(args) => command::archive_snapshots::run(args).await,
        Command::Cat(args) => command::archive_cat::run(args).await,
        Command::Verify(args) => command::archive_verify::run(args).await,
        Command::Diff(args) => command::archive_diff::run(args).await,
        Command::Drill(args) => command::drill::run(args).await,
        Command::Restore(args) => command::restore::run(*args).await,
        Command::Completion(args) => command::completion::run(&args),
        Command::Man(args) => command::man::run(&args),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let pipe = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(pipe)) {
        // `varve … | head`: the reader has what it wanted.
        return ExitCode::SUCCESS;
    }
    // A cause whose text is in the one before it already says nothing new.
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    eprintln!("error: {text}");
    ExitCode::from(2)
}
