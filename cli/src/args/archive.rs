//! Arguments of the commands that look into an archive.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::{KeyArgs, StoreArgs};

/// Which archive.
#[derive(Debug, Args)]
pub(crate) struct ArchiveUrl {
    /// URL of the archive (file:///directory, s3://bucket/prefix), or the path of a directory.
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// As of when a partition is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// What the store has, the journal included.
    Now,
    Latest,
    Snapshot(u64),
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) archive: ArchiveUrl,
    /// One topic, by name or id, with its partitions; or one of them.
    #[arg(value_name = "TOPIC[:PARTITION]")]
    pub(crate) topic: Option<String>,
    /// As of a snapshot (a number, or latest), or now. By default the latest, or now if there is none.
    #[arg(long, value_name = "latest|N|now", value_parser = as_of)]
    pub(crate) snapshot: Option<AsOf>,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// JSON: one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    #[command(flatten)]
    pub(crate) archive: ArchiveUrl,
    /// One snapshot in detail.
    pub(crate) sequence: Option<u64>,
    /// List at most so many, the newest first.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) max: u64,
    /// Public keys that are trusted to sign, as for `varve verify`.
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// JSON: one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CatFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    #[command(flatten)]
    pub(crate) archive: ArchiveUrl,
    /// The topic, by name or id.
    pub(crate) topic: String,
    /// One partition; by default all, one after the other.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
    /// Offsets from A up to and without B; either may be left out. A alone is that offset.
    #[arg(long, value_name = "A..B", value_parser = offsets)]
    pub(crate) offset: Option<Range<i64>>,
    /// Timestamps from T1 up to and without T2: RFC 3339, a date, or milliseconds since 1970.
    #[arg(long, value_name = "T1..T2", value_parser = times)]
    pub(crate) time: Option<Range<i64>>,
    /// Records of exactly this key (base64:… for bytes).
    #[arg(long, value_name = "K")]
    pub(crate) key: Option<String>,
    /// Stop after so many records.
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
    /// As of a snapshot (a number, or latest), or now: all there is.
    #[arg(long, value_name = "latest|N|now", default_value = "now", value_parser = as_of)]
    pub(crate) snapshot: AsOf,
    /// The history of this branch instead of the current one.
    #[arg(long, value_name = "N")]
    pub(crate) branch: Option<u32>,
    /// read_committed leaves out aborted records, and what is not decided at the archive's end.
    #[arg(long, value_enum, default_value = "read_uncommitted")]
    pub(crate) isolation: Isolation,
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: CatFormat,
    /// The batches themselves, byte for byte, as in a broker's .log file: those that touch the range. One partition.
    #[arg(long, requires = "partition", conflicts_with_all = ["key", "time", "max", "format", "isolation"])]
    pub(crate) raw_batches: bool,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DepthArg {
    /// Every object is there, in its size.
    Listed,
    /// And its footer is the one that the snapshot names.
    Footers,
    /// And every frame and chunk holds.
    Contents,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveVerifyArgs {
    #[command(flatten)]
    pub(crate) archive: ArchiveUrl,
    /// The snapshot to prove; by default the newest.
    #[arg(long, value_name = "N")]
    pub(crate) snapshot: Option<u64>,
    /// Take snapshots up to this number as proven already.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) since: u64,
    /// Look at this part of the objects only. The chain of snapshots and all manifests are always checked.
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = sample)]
    pub(crate) sample: u32,
    /// Draws the sample: the same seed, the same objects.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    #[arg(long, value_enum, default_value = "contents")]
    pub(crate) depth: DepthArg,
    /// Partitions that are looked at at once, and objects that are read at once. Default: 8; on a filesystem, the
    /// number of cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) parallel: Option<u16>,
    /// Public keys: every snapshot must be signed by one of them. PEM, or base64, one a line.
    #[arg(long, value_name = "KEYFILE")]
    pub(crate) trust: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    /// JSON: a line for each finding, then one for the sums.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) archive: ArchiveUrl,
    /// The earlier snapshot.
    #[arg(required_unless_present = "bootstrap_server", requires = "snapshot_b")]
    pub(crate) snapshot_a: Option<u64>,
    /// The later one.
    pub(crate) snapshot_b: Option<u64>,
    /// Compare the archive, as it is now, with this cluster instead.
    #[arg(long = "bootstrap-server", value_name = "HOST:PORT,…", conflicts_with = "snapshot_a")]
    pub(crate) bootstrap_server: Option<String>,
    /// The client's configuration (security.protocol, sasl.*, ssl.* …), KEY=VALUE lines.
    #[arg(long, value_name = "FILE", requires = "bootstrap_server")]
    pub(crate) command_config: Option<PathBuf>,
    /// A partition that lags by more is a finding: offsets (1000), or an age (90s, 30m, 2h).
    #[arg(long, value_name = "N|AGE", value_parser = max_lag, requires = "bootstrap_server")]
    pub(crate) max_lag: Option<MaxLag>,
    /// JSON: one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaxLag {
    Offsets(u64),
    Milliseconds(i64),
}

fn as_of(text: &str) -> anyhow::Result<AsOf> {
    match text {
        "now" => Ok(AsOf::Now),
        "latest" => Ok(AsOf::Latest),
        number => Ok(AsOf::Snapshot(number.parse().context("expected latest, now or a snapshot's number")?)),
    }
}

/// `A..B`, each or both left out, or `A` alone: `first` and what follows it.
fn range(text: &str, end: i64, parse: impl Fn(&str) -> anyhow::Result<i64>) -> anyhow::Result<Range<i64>> {
    let found = match text.split_once("..") {
        None => {
            let first = parse(text)?;
            first..first.saturating_add(1)
        }
        Some((first, last)) => {
            let first = if first.is_empty() { 0 } else { parse(first)? };
            let last = if last.is_empty() { end } else { parse(last)? };
            first..last
        }
    };
    if found.is_empty() {
        bail!("nothing lies in {text}: expected A..B with A below B");
    }
    Ok(found)
}

pub(super) fn offsets(text: &str) -> anyhow::Result<Range<i64>> {
    range(text, i64::MAX, |number| {
        let offset: i64 =
            number.parse().with_context(|| format!("expected an offset, or A..B, found {number:?}"))?;
        if offset < 0 {
            bail!("expected an offset of 0 or more, found {number}")
        }
        Ok(offset)
    })
}

fn times(text: &str) -> anyhow::Result<Range<i64>> {
    range(text, i64::MAX, time_ms)
}

/// RFC 3339, a date (its begin, UTC), a date and a time of day (UTC), or milliseconds since 1970.
pub(super) fn time_ms(text: &str) -> anyhow::Result<i64> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().context("too large a time");
    }
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    let parsed = OffsetDateTime::parse(&full, &Rfc3339).with_context(|| {
        format!("expected 2026-11-21T10:00:00Z, 2026-11-21 or milliseconds, found {text:?}")
    })?;
    i64::try_from(parsed.unix_timestamp_nanos() / 1_000_000).context("too far a time")
}

/// Percent, with at most four decimals, as millionths.
pub(super) fn sample(text: &str) -> anyhow::Result<u32> {
    let percent: f64 = text.trim_end_matches('%').parse().context("expected a percentage: 5%, 0.5%")?;
    if !(percent > 0.0 && percent <= 100.0) {
        bail!("expected more than 0% and at most 100%, found {text}");
    }
    Ok((percent * 10_000.0).round().max(1.0) as u32)
}

fn max_lag(text: &str) -> anyhow::Result<MaxLag> {
    if let Ok(offsets) = text.parse() {
        return Ok(MaxLag::Offsets(offsets));
    }
    let age = super::duration(text).context("expected a number of offsets, or an age")?;
    Ok(MaxLag::Milliseconds(i64::try_from(age.as_millis())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(offsets("5..10").unwrap(), 5..10);
        assert_eq!(offsets("..10").unwrap(), 0..10);
        assert_eq!(offsets("5..").unwrap(), 5..i64::MAX);
        assert_eq!(offsets("5").unwrap(), 5..6);
        for bad in ["", "5..5", "6..5", "-1..3", "a..b", "1...3"] {
            assert!(offsets(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_in_three_ways() {
        let ms = 1_700_000_000_000;
        assert_eq!(times("2023-11-14T22:13:20Z..1700000000500").unwrap(), ms..ms + 500);
        assert_eq!(times("2023-11-14..").unwrap().start, 1_699_920_000_000);
        assert_eq!(time_ms("2023-11-14T23:13:20.25+01:00").unwrap(), ms + 250);
        for minute in ["2023-11-14 22:13", "2023-11-14T22:13", "2023-11-14 22:13:00", "2023-11-14 22:13:00Z"]
        {
            assert_eq!(time_ms(minute).unwrap(), ms - 20_000, "{minute}");
        }
        assert!(times("yesterday..").is_err());
    }

    #[test]
    fn samples_and_lags() {
        assert_eq!((sample("5%").unwrap(), sample("0.0001").unwrap()), (50_000, 1));
        assert_eq!(sample("100%").unwrap(), 1_000_000);
        for bad in ["0%", "101%", "x", "-1", "NaN"] {
            assert!(sample(bad).is_err(), "{bad}");
        }
        assert_eq!(max_lag("10").unwrap(), MaxLag::Offsets(10));
        assert_eq!(max_lag("2m").unwrap(), MaxLag::Milliseconds(120_000));
        assert!(max_lag("2w").is_err());
    }

    #[test]
    fn points_in_time() {
        assert_eq!(as_of("latest").unwrap(), AsOf::Latest);
        assert_eq!(as_of("17").unwrap(), AsOf::Snapshot(17));
        assert!(as_of("newest").is_err());
    }
}
