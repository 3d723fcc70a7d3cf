//! Arguments of `varve restore`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::{KeyArgs, StoreArgs, duration};

/// A slip of the finger is no list.
const PARTITIONS_MAX: i32 = 1_000_000;

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
    /// Of a topic these partitions only; the others begin empty, where the archive ends. May be repeated.
    #[arg(long, value_name = "TOPIC=N,N-N", value_parser = partitions)]
    pub(crate) partitions: Vec<(String, BTreeSet<i32>)>,
    /// Of a partition these offsets only, from A up to and without B. May be repeated.
    #[arg(long, value_name = "TOPIC-N=A..B", value_parser = partition_offsets)]
    pub(crate) offsets: Vec<((String, i32), Range<i64>)>,
    /// Of each partition what comes from the first record on that is not older.
    #[arg(long, value_name = "TIME", value_parser = super::archive::time_ms)]
    pub(crate) since: Option<i64>,
    /// The topics as they were at a time before the snapshot: 2026-11-21T14:05:00Z. By when archivers saw what, not by
    /// the records' timestamps; no transaction is halved.
    #[arg(long, value_name = "TIME", value_parser = super::archive::time_ms, conflicts_with = "offsets")]
    pub(crate) as_of: Option<i64>,
    /// Consumer groups, with * for any characters; by default all with offsets in the topics. May be repeated.
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub(crate) groups: Vec<String>,
    /// What comes beside the topics: groups, acls, quotas, configs, schemas; by default all of them, and none for none.
    /// The target's own values stay.
    #[arg(
        long,
        value_name = "PART,…",
        value_delimiter = ',',
        default_value = "groups,acls,quotas,configs,schemas"
    )]
    pub(crate) parts: Vec<String>,
    #[command(flatten)]
    pub(crate) schemas: SchemaArgs,
    /// Replicas of each partition; by default as they were, and at most the number of brokers.
    #[arg(long, value_name = "N")]
    pub(crate) replication_factor: Option<usize>,
    /// The broker id to register with; by default one from 990000 on that is free.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) broker_id: Option<i32>,
    /// Into the very cluster that the archive is of.
    #[arg(long)]
    pub(crate) into_its_source: bool,
    /// Leave out what does not hold in the archive, and restore the rest. The plan names each range of offsets that is
    /// lost with it; to find them, all of the archive is read while planning.
    #[arg(long)]
    pub(crate) skip_corrupt: bool,
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

/// What of the archive's Schema Registry, and where.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// The target's Schema Registry: it gets the archive's subjects, with their ids.
    #[arg(long, value_name = "URL")]
    pub(crate) schema_registry: Option<String>,
    /// Its subjects, with * for any characters; by default all. May be repeated.
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',', requires = "schema_registry")]
    pub(crate) subjects: Vec<String>,
    /// Where the registry has no mode IMPORT: let it give new ids. Records keep the old ones.
    #[arg(long, requires = "schema_registry")]
    pub(crate) schema_ids_may_change: bool,
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
    /// The recovery point: a snapshot's number, or a time (2026-11-20 14:05, which is UTC, or RFC 3339), for the last
    /// one that was made at or before it.
    #[arg(long, value_name = "latest|N|TIME", default_value = "latest", value_parser = snapshot)]
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
    /// Where brokers reach each other by TLS or SASL: our certificate, whom we trust, and what they log in with, in the
    /// keys of a broker (ssl.keystore.*, ssl.truststore.*, sasl.* …), KEY=VALUE lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) listener_config: Option<PathBuf>,
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
    /// What opens the Schema Registry (schema.registry.user, .password, .ca.file), KEY=VALUE lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) schema_registry_config: Option<PathBuf>,
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
    /// The last one at or before it.
    Time(i64),
}

fn snapshot(text: &str) -> anyhow::Result<SnapshotArg> {
    match text {
        "latest" => Ok(SnapshotArg::Latest),
        number if number.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(SnapshotArg::Number(number.parse().context("expected latest or a snapshot's number")?))
        }
        time => Ok(SnapshotArg::Time(
            super::archive::time_ms(time).context("expected latest, a snapshot's number or a time")?,
        )),
    }
}

/// Some of a topic's.
fn partitions(text: &str) -> anyhow::Result<(String, BTreeSet<i32>)> {
    let (topic, numbers) = text.rsplit_once('=').context("expected TOPIC=0,3-5")?;
    let mut found = BTreeSet::new();
    for part in numbers.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let number: i32 =
                text.parse().with_context(|| format!("expected a partition, found {text:?}"))?;
            if number < 0 { bail!("expected a partition of 0 or more, found {number}") } else { Ok(number) }
        };
        let (first, last) = (number(first)?, number(last)?);
        if last < first || last - first > PARTITIONS_MAX {
            bail!("expected at most {PARTITIONS_MAX} partitions in order, found {part:?}");
        }
        found.extend(first..=last);
    }
    Ok((topic.to_owned(), found))
}

fn partition_offsets(text: &str) -> anyhow::Result<((String, i32), Range<i64>)> {
    let (partition, offsets) = text.rsplit_once('=').context("expected TOPIC-0=1000..2000")?;
    let (topic, number) = partition.rsplit_once('-').context("expected TOPIC-0=1000..2000")?;
    let number = number.parse().with_context(|| format!("expected a partition, found {number:?}"))?;
    Ok(((topic.to_owned(), number), super::archive::offsets(offsets)?))
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
        assert_eq!(snapshot("2023-11-14 22:13").unwrap(), SnapshotArg::Time(1_699_999_980_000));
        assert!(snapshot("newest").is_err());
    }

    #[test]
    fn partitions_and_their_offsets() {
        assert_eq!(partitions("a=b=0,3-5").unwrap(), ("a=b".to_owned(), BTreeSet::from([0, 3, 4, 5])));
        assert_eq!(partition_offsets("my-topic-2=5..9").unwrap(), (("my-topic".to_owned(), 2), 5..9));
        for bad in ["a", "a=", "a=-1", "a=3-1", "a=0-99999999", "a=x"] {
            assert!(partitions(bad).is_err(), "{bad}");
        }
        for bad in ["a=1..2", "a-0", "a-x=1..2", "a-0=2..1"] {
            assert!(partition_offsets(bad).is_err(), "{bad}");
        }
    }
}
