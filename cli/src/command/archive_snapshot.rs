//! `varve archive snapshot`: a recovery point, made beside the archivers that run.

use std::io::Write;

use anyhow::Context;
use serde_json::json;
use varve_archiver::config::Config;
use varve_archiver::{Archiver, SnapshotOutcome, StoredSnapshot};

use crate::args::ArchiveSnapshotArgs;
use crate::output::{grouped, time};
use crate::{Verdict, logging, progress};

pub(crate) async fn run(args: ArchiveSnapshotArgs) -> anyhow::Result<Verdict> {
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load(&args.config, &args.set, &env)?;
    logging::start(&config.log);
    let wait = args.wait.unwrap_or(config.snapshots.wait);
    let archiver = Archiver::open(config).await.context("the archive")?;
    if args.without_cluster {
        let bar = progress::unknown("looking through the archive");
        let outcome = archiver.snapshot_without_cluster().await;
        bar.finish_and_clear();
        print_stored(&outcome?, args.json)?;
        return Ok(Verdict::Clean);
    }
    let bar = progress::unknown("waiting for the archive");
    let outcome = archiver.snapshot_now(wait).await;
    bar.finish_and_clear();
    let outcome = outcome?;
    print(&outcome, args.json)?;
    Ok(if outcome.lagging.is_empty() { Verdict::Clean } else { Verdict::Findings })
}

fn print_stored(outcome: &StoredSnapshot, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let (record, state) = (&outcome.snapshot.record, &outcome.cluster_state);
    if json {
        let line = json!({
            "snapshot": record.sequence,
            "snapshot_hash": outcome.snapshot.hash.to_string(),
            "partitions": outcome.partitions,
            "lagging": outcome.lagging,
            "cluster_state_of": {"snapshot": state.snapshot, "created_ms": state.created_ms},
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "snapshot {} {}", record.sequence, outcome.snapshot.hash)?;
    writeln!(
        out,
        "{} partitions as the archive has them, {} known to lag; the cluster's state is that of snapshot {} of {}",
        grouped(outcome.partitions as u64),
        grouped(outcome.lagging as u64),
        state.snapshot,
        time(state.created_ms)
    )?;
    Ok(())
}

fn print(outcome: &SnapshotOutcome, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let (record, lagging) = (&outcome.snapshot.record, &outcome.lagging);
    if json {
        let lagging: Vec<_> = lagging
            .iter()
            .map(|l| {
                json!({
                    "topic": l.topic,
                    "partition": l.partition,
                    "end_offset": l.archived_end,
                    "log_end_offset": l.log_end,
                })
            })
            .collect();
        let line = json!({
            "snapshot": record.sequence,
            "snapshot_hash": outcome.snapshot.hash.to_string(),
            "partitions": outcome.partitions,
            "lagging_partitions": lagging,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "snapshot {} {}", record.sequence, outcome.snapshot.hash)?;
    let all = grouped(outcome.partitions as u64);
    writeln!(out, "{all} partitions, {} of them lagging", grouped(lagging.len() as u64))?;
    for l in lagging {
        let (topic, partition, end, log_end) = (&l.topic, l.partition, l.archived_end, l.log_end);
        writeln!(out, "lagging  {topic}:{partition} ends at {end}, the log at {log_end}")?;
    }
    Ok(())
}
