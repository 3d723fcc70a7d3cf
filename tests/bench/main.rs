//! `cargo xtask bench tier`: the RemoteStorageManager against the limit of the machine, both measured in the
//! same run, in turn. Prints ratios; times nothing out, fails only if work fails.
//! `cargo xtask bench memory`: what it takes of a JVM's memory, against what it was allowed.
//! `cargo xtask bench archive`: a topic archived, against fetching it and writing it to a file.
//! `cargo xtask bench scale`: what thousands of quiet and of idle partitions cost an archiver.
//! `cargo xtask bench restore`: an archive restored, against a replica that catches up from a real broker.
//! `cargo xtask bench produce`: an archive restored by a producer, against a lean loop that sends the same batches.
//! `cargo xtask bench verify`: an archive verified and read, against reading and hashing its files.

mod archive;
mod copies;
mod lean;
mod measure;
mod memory;
mod produce;
mod reads;
mod remote;
mod restore;
mod restored;
mod scale;
mod sealed;
mod segment;
mod stage;
mod tier;
mod verify;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about = "Measures Varve against the limit of the machine.")]
enum Bench {
    /// Copies and reads of the tier.
    Tier(tier::Args),
    /// Resident memory and Java heap, with many copies and readers at once.
    Memory(memory::Args),
    /// Archiving a topic.
    Archive(archive::Args),
    /// Archiving thousands of partitions that have next to nothing.
    Scale(scale::Args),
    /// Restoring an archive into a cluster.
    Restore(restore::Args),
    /// Restoring an archive by a producer.
    Produce(produce::Args),
    /// Verifying and reading an archive.
    Verify(verify::Args),
}

fn main() -> ExitCode {
    let outcome = match Bench::parse() {
        Bench::Tier(args) => tier::run(&args),
        Bench::Memory(args) => memory::run(&args),
        Bench::Archive(args) => archive::run(&args),
        Bench::Scale(args) => scale::run(&args),
        Bench::Restore(args) => restore::run(&args),
        Bench::Produce(args) => produce::run(&args),
        Bench::Verify(args) => verify::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}
