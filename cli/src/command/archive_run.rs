//! `varve archive run`

use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use varve_archiver::Archiver;
use varve_archiver::config::Config;

use crate::args::ArchiveRunArgs;
use crate::process::stopped;
use crate::{Verdict, logging, progress};

pub(crate) async fn run(args: ArchiveRunArgs) -> anyhow::Result<Verdict> {
    let env = |name: &str| std::env::var(name).ok();
    let config = Config::load(&args.config, &args.set, &env)?;
    logging::start(&config.log);
    let archiver = Archiver::open(config).await.context("the archive")?;
    if !args.once {
        archiver.run(stopped()).await?;
        return Ok(Verdict::Clean);
    }
    let bar = progress::unknown("archiving");
    let watched = std::sync::Arc::clone(archiver.progress());
    let shown = bar.clone();
    let watch = tokio::spawn(async move {
        loop {
            shown.set_position(watched.read_bytes());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let outcome = archiver.run_once().await;
    watch.abort();
    bar.finish_and_clear();
    let outcome = outcome?;
    let read = archiver.progress().read_bytes();
    let snapshot = &outcome.snapshot;
    if args.json {
        let unfinished: Vec<_> = outcome
            .unfinished
            .iter()
            .map(|(topic, partition, why)| json!({"topic": topic, "partition": partition, "why": why}))
            .collect();
        println!(
            "{}",
            json!({
                "partitions": outcome.partitions,
                "read_bytes": read,
                "unfinished": unfinished,
                "missing": outcome.missing,
                "snapshot": snapshot.record.sequence,
                "snapshot_hash": snapshot.hash.to_string(),
            })
        );
    } else {
        println!("{} partitions archived, {read} bytes of record batches read", outcome.partitions);
        println!("snapshot {} {}", snapshot.record.sequence, snapshot.hash);
        for topic in &outcome.missing {
            println!(
                "not there: topics.include names {topic}, and the brokers have no such topic, or don't show it for want of \
                 the ACL Describe"
            );
        }
        for (topic, partition, why) in &outcome.unfinished {
            println!("not to its end: {topic}-{partition}: {why}");
        }
    }
    Ok(if outcome.is_whole() { Verdict::Clean } else { Verdict::Findings })
}
