//! Arguments of `varve restore`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::{KeyArgs, StoreArgs, duration};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct RestoreArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RestoreCommand>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    /// Do what a plan says, or go on with it after an interruption; then verify.
    Apply(ApplyArgs),
    /// Delete the topics that a plan's apply has begun and not finished, and unregister its broker id.
    Cleanup(ChangeArgs),
    /// Read the target back and compare it with the archive, byte for byte.
    Verify(PlannedArgs),
    /// Give the topics the configs that they had: from then on retention and compaction work. Shows first what each
    /// would delete.
    Release(ChangeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The archive: file:///directory, s3://bucket/prefix, or the path of a directory.
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) from: Option<String>,
    /// Brokers of the target.
    #[arg(long, value_name = "HOST:PORT,…", required = true)]
    pub(crate) to: Option<String>,
    /// Controllers of the target, at their CONTROLLER listener. Without them a producer writes the records.
    #[arg(long, value_name = "HOST:PORT,…")]
    pub(crate) controller: Option<String>,
    /// How: as the partitions' leader, byte for byte (the default with --controller), or by a producer (the default
    /// without it).
    #[arg(long, value_enum)]
    pub(crate) mode: Option<ModeArg>,
    /// In mode produce: a partition whose first offset is at most this keeps its offsets, if each has a record. So many
    /// are taken by small records, which are deleted again.
    #[arg(long, value_name = "OFFSETS", default_value_t = 1_000_000)]
    pub(crate) filler_max: u64,
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    /// A topic's new name. May be repeated.
    #[arg(long, value_name = "OLD=NEW", value_parser = super::key_value)]
    pub(crate) rename: Vec<(String, String)>,
    /// Consumer groups, with * for any characters; by default all with offsets in the topics. May be repeated.
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub(crate) groups: Vec<String>,
    /// What comes beside the topics: groups, acls, quotas, configs; by default all of them, and none for none. The
    /// target's own values stay.
    #[arg(long, value_name = "PART,…", value_delimiter = ',', default_value = "groups,acls,quotas,configs")]
    pub(crate) parts: Vec<String>,
    /// Replicas of each partition; by default as they were, and at most the number of brokers.
    #[arg(long, value_name = "N")]
    pub(crate) replication_factor: Option<usize>,
    /// The broker id to register with; by default one from 990000 on that is free.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) broker_id: Option<i32>,
    /// Into the very cluster that the archive is of.
    #[arg(long)]
    pub(crate) into_its_source: bool,
    /// Plan, show the plan and write it, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where the plan is written; by default restore-ID.plan in this directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// The archive: file:///directory, s3://bucket/prefix, or the path of a directory.
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// A Kafka installation (with bin and libs), or the folder of its jars.
    #[arg(long, value_name = "DIR", env = "KAFKA_HOME")]
    pub(crate) kafka: PathBuf,
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    /// Draw this part of the topics.
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = super::archive::sample)]
    pub(crate) sample: u32,
    /// Draws the sample: the same seed, the same topics. A number that changes with the week sees all in time.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where the broker keeps its data meanwhile: it needs room for what is restored. By default the system's
    /// temporary folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// Leave the broker's folder, with its log, where it is.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Java's heap, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) heap_mib: u32,
    /// Memory for what is read of the archive.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = bytes)]
    pub(crate) memory: u64,
    /// Where the report is written, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// What of an archive.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    /// The recovery point.
    #[arg(long, value_name = "latest|N", default_value = "latest", value_parser = snapshot)]
    pub(crate) at: SnapshotArg,
    /// Topics, with * for any characters; by default all. May be repeated.
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub(crate) topics: Vec<String>,
    /// Topics that are left out. May be repeated.
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub(crate) without: Vec<String>,
}

/// How a plan is applied.
#[derive(Debug, Args)]
pub(crate) struct HowArgs {
    /// Go ahead without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Bytes per second to all brokers together: 50MiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) throttle: Option<u64>,
    /// Memory for what is read of the archive.
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = bytes)]
    pub(crate) memory: u64,
    /// The address that brokers reach us at: they connect to it and copy. By default that of the way to them.
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,
    /// Where we listen; by default on a free port of that address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Give up if no broker has come further for so long.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(crate) patience: Duration,
    /// Passwords of SCRAM users that the target lacks: lines of NAME=PASSWORD. Whoever has none in it gets a new one,
    /// which is written into it; it is made if it is not there. Without it those users are not made.
    #[arg(long, value_name = "FILE")]
    pub(crate) users: Option<PathBuf>,
    /// Don't read everything back at the end.
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Where the report is written, as JSON; by default beside the plan.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// What opens archive and target.
#[derive(Debug, Args)]
pub(crate) struct AccessArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// The client's configuration for the brokers (security.protocol, sasl.*, ssl.* …), KEY=VALUE lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) command_config: Option<PathBuf>,
    /// The same for the controllers; by default none: PLAINTEXT.
    #[arg(long, value_name = "FILE")]
    pub(crate) controller_config: Option<PathBuf>,
    /// JSON: one object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The plan's file.
    pub(crate) plan: PathBuf,
    #[command(flatten)]
    pub(crate) how: HowArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlannedArgs {
    /// The plan's file.
    pub(crate) plan: PathBuf,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// A change that is shown first.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) planned: PlannedArgs,
    /// Show what it would do, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go ahead without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ModeArg {
    Leader,
    Produce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotArg {
    Latest,
    Number(u64),
}

impl SnapshotArg {
    pub(crate) fn sequence(self) -> Option<u64> {
        match self {
            Self::Latest => None,
            Self::Number(number) => Some(number),
        }
    }
}

fn snapshot(text: &str) -> anyhow::Result<SnapshotArg> {
    match text {
        "latest" => Ok(SnapshotArg::Latest),
        number => Ok(SnapshotArg::Number(number.parse().context("expected latest or a snapshot's number")?)),
    }
}

fn bytes(text: &str) -> anyhow::Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().context("expected a number of bytes: 1000000, 50MiB, 1GiB")?;
    let factor = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => bail!("expected KiB, MiB or GiB after the number, found {unit:?}"),
    };
    let bytes = number.checked_mul(factor).context("too many")?;
    if bytes == 0 {
        bail!("expected more than 0");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_snapshots() {
        assert_eq!((bytes("5").unwrap(), bytes("50MiB").unwrap()), (5, 50 << 20));
        for bad in ["", "0", "5MB", "-1", "99999999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(snapshot("7").unwrap(), SnapshotArg::Number(7));
        assert!(snapshot("newest").is_err());
    }
}
