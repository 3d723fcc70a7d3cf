//! `varve archive import`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use varve_archiver::config::Config;
use varve_archiver::import::{ImportOptions, ImportOutcome, ImportedPartition, Importer};

use crate::output::grouped;
use crate::{Verdict, logging, progress};

#[derive(Debug, Args)]
pub(crate) struct ArchiveImportArgs {
    /// Data directories of brokers (entries of log.dirs), copies or snapshots of them, or tars (.tar, .tar.gz, .tar.zst).
    #[arg(value_name = "DIR", required = true)]
    pub(crate) directories: Vec<PathBuf>,
    /// The YAML file; docs/CONFIG.md has all of its keys. No broker is asked, so that source may be left out.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// A key that counts more than in the file. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = crate::args::key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// The cluster's id, where no meta.properties tells it.
    #[arg(long, value_name = "ID")]
    pub(crate) cluster_id: Option<String>,
    /// A broker is writing to the directories.
    #[arg(long, visible_alias = "hot")]
    pub(crate) online: bool,
    /// Also what is in the segments that brokers append to, up to the high watermark.
    #[arg(long)]
    pub(crate) include_active: bool,
    /// Record batches that fail their checks as a gap, and go on behind them. Without it, such a partition stops there.
    #[arg(long)]
    pub(crate) gap_corrupt: bool,
    /// Record what only the brokers' tier has as a gap, for ever. Without it, such a partition stops there.
    #[arg(long)]
    pub(crate) gap_tiered: bool,
    /// Say what would be archived, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// JSON: a line for each partition and each directory that is passed over, then one for the sums.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) async fn run(args: ArchiveImportArgs) -> anyhow::Result<Verdict> {
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load_without_source(&args.config, &args.set, &env)?;
    logging::start(&config.log);
    let options = ImportOptions {
        sources: args.directories,
        cluster_id: args.cluster_id,
        online: args.online,
        include_active: args.include_active,
        gap_corrupt: args.gap_corrupt,
        gap_tiered: args.gap_tiered,
        dry_run: args.dry_run,
    };
    let importer = Importer::open(config, options).await.context("the archive")?;
    let bar = progress::bytes("importing", 0);
    let (watched, shown) = (Arc::clone(importer.progress()), bar.clone());
    let watch = tokio::spawn(async move {
        loop {
            shown.set_length(watched.total_bytes());
            shown.set_position(watched.read_bytes());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let outcome = importer.run().await;
    watch.abort();
    bar.finish_and_clear();
    let outcome = outcome?;
    if outcome.partitions.is_empty() && outcome.passed_over.is_empty() {
        bail!("none of the directories holds a partition of a topic that topics.include wants");
    }
    if args.json {
        print_json(&outcome);
    } else {
        print_text(&outcome, args.dry_run);
    }
    Ok(if outcome.is_clean() { Verdict::Clean } else { Verdict::Findings })
}

fn print_json(outcome: &ImportOutcome) {
    for p in &outcome.partitions {
        let ranges: Vec<_> = p
            .ranges
            .iter()
            .map(|r| json!({"branch": r.branch, "first_offset": r.first_offset, "end_offset": r.end_offset}))
            .collect();
        println!(
            "{}",
            json!({
                "topic": p.topic,
                "topic_id": p.topic_id,
                "partition": p.partition,
                "ranges": ranges,
                "objects": p.objects,
                "bytes": p.bytes,
                "read_bytes": p.read_bytes,
                "high_watermark": p.high_watermark,
                "archived_end": p.archived_end,
                "copies": p.copies,
                "remarks": p.remarks,
                "findings": p.findings,
                "error": p.error,
            })
        );
    }
    for passed in &outcome.passed_over {
        println!("{}", json!({"passed_over": passed.directory, "why": passed.why}));
    }
    let sum = |of: fn(&ImportedPartition) -> u64| outcome.partitions.iter().map(of).sum::<u64>();
    println!(
        "{}",
        json!({
            "partitions": outcome.partitions.len(),
            "objects": sum(|p| p.objects),
            "bytes": sum(|p| p.bytes),
            "read_bytes": sum(|p| p.read_bytes),
            "clean": outcome.is_clean(),
            "snapshot": outcome.snapshot.as_ref().map(|s| s.record.sequence),
            "snapshot_hash": outcome.snapshot.as_ref().map(|s| s.hash.to_string()),
        })
    );
}

fn print_text(outcome: &ImportOutcome, dry_run: bool) {
    let verb = if dry_run { "would archive" } else { "archived" };
    for p in &outcome.partitions {
        let name = format!("{}-{}", p.topic, p.partition);
        for r in &p.ranges {
            let branch = if r.branch == 0 { String::new() } else { format!(" in branch {}", r.branch) };
            println!("{name}: {verb} offsets {} to {}{branch}", r.first_offset, r.end_offset - 1);
        }
        for remark in &p.remarks {
            println!("{name}: {remark}");
        }
        for finding in &p.findings {
            println!("{name}: found: {finding}");
        }
        if let Some(error) = &p.error {
            println!("{name}: stopped at offset {}: {error}", p.archived_end);
        }
    }
    for passed in &outcome.passed_over {
        println!("passed over: {} {}", passed.directory, passed.why);
    }
    let bytes: u64 = outcome.partitions.iter().map(|p| p.bytes).sum();
    let about = if dry_run { "at most " } else { "" };
    println!(
        "{} partitions, {verb} {about}{} bytes of record batches",
        outcome.partitions.len(),
        grouped(bytes)
    );
    if let Some(snapshot) = &outcome.snapshot {
        println!("snapshot {} {}", snapshot.record.sequence, snapshot.hash);
    }
}
