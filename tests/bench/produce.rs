//! `cargo xtask bench produce`: an archive restored by a producer into a real broker, against a lean loop that sends the
//! very same batches: other headers, checksums made anew, five under way for each partition, nothing looked at. Prints
//! the ratio of speeds, and of the command the processor time for each GiB and the memory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use varve_kafka::client::{Client, ProduceLane};
use varve_kafka::protocol::{Batches, Sequence};
use varve_tests::{ArchiveDir, Cluster, Produce, Scratch, TopicLogs, plain_client, runtime, varve};

use crate::measure::{at_once, children_cpu_seconds, median, peak_mib};

const TOPIC: &str = "bench";
const LIMIT: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of record batches, in MiB: the lean loop holds them in memory
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The largest batch of the producer that fills the source
    #[arg(long, default_value_t = 1 << 19)]
    batch_bytes: u32,
    /// Of the command, in MiB
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let scratch = Scratch::new("bench-produce")?;
    let (archive, logs) = filled(args, scratch.path())?;
    let (mut ours, mut lean) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        lean.push(sent(args, &logs)?);
        ours.push(restored(&archive, scratch.path(), &format!("run-{run}"), args.memory_mib)?);
    }
    let speed = |seconds: f64| args.mib as f64 / seconds;
    let (lean, copying) = (median(lean), median(ours.iter().map(|r| r.copying)));
    let (cpu, peak) = (median(ours.iter().map(|r| r.cpu_seconds)), median(ours.iter().map(|r| r.peak_mib)));
    println!(
        "restore by a producer, {} MiB in {} partitions, batches of up to {} bytes, one broker, median of {}",
        args.mib, args.partitions, args.batch_bytes, args.runs
    );
    println!("  a lean loop sends them at {:.0} MiB/s", speed(lean));
    println!("  ours: {:.0} MiB/s while writing ({:.2})", speed(copying), lean / copying);
    println!(
        "  {:.2} CPU-s/GiB with its plan, {peak:.0} MiB resident with a budget of {}",
        cpu / (args.mib as f64 / 1024.0),
        args.memory_mib
    );
    Ok(())
}

fn filled(args: &Args, dir: &Path) -> Result<(ArchiveDir, TopicLogs)> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    let kafka = cluster.client();
    kafka.create_topic(TOPIC, args.partitions, 1, &[])?;
    let records = (args.mib << 20) / u64::from(args.partitions) / 1024;
    at_once(args.partitions, |partition| {
        let seed = u64::from(partition);
        let batch_bytes = args.batch_bytes;
        let produce = Produce { partition, count: records, batch_bytes, seed, ..Produce::default() };
        kafka.produce(TOPIC, &produce)
    })?;
    let archive = ArchiveDir::new(dir, &cluster.bootstrap(), &format!("topics: {{ include: [{TOPIC}] }}"))?;
    archive.run_once(&[])?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &[TOPIC])?;
    Ok((archive, logs.into_iter().next().context("no log")?))
}

/// Seconds of the lean loop.
fn sent(args: &Args, logs: &TopicLogs) -> Result<f64> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    cluster.client().create_topic(TOPIC, args.partitions, 1, &[])?;
    let client = plain_client(&cluster.bootstrap())?;
    runtime()?.block_on(async {
        let (producer_id, producer_epoch) = client.new_producer_id().await?;
        let lanes = logs.logs.iter().map(|(partition, log)| {
            let by = Sequence { producer_id, producer_epoch, base_sequence: 0 };
            lane(client.clone(), *partition, Bytes::from(log.batches.clone()), by)
        });
        let lanes: Vec<_> = lanes.collect();
        let begun = Instant::now();
        futures::future::try_join_all(lanes).await?;
        Ok(begun.elapsed().as_secs_f64())
    })
}

async fn lane(client: Client, partition: i32, log: Bytes, by: Sequence) -> Result<()> {
    let mut lane = ProduceLane::new(client.clone(), PATIENCE);
    lane.turn_to(TOPIC, client.topic(TOPIC).await?.topic_id, partition).await?;
    for batch in Batches::new(log, 0) {
        let batch = batch?;
        let base_sequence = i32::try_from(batch.header.base_offset)?;
        lane.send(batch.to_send(Sequence { base_sequence, ..by })).await?;
    }
    while lane.oldest().await?.is_some() {}
    Ok(())
}

struct Restored {
    /// From the first batch to the last.
    copying: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

fn restored(archive: &ArchiveDir, dir: &Path, name: &str, memory_mib: u64) -> Result<Restored> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    let plan = dir.join(format!("{name}.plan"));
    let mut command = Command::new(varve()?);
    command.args(["restore", "--from", &archive.url(), "--to", &cluster.bootstrap()]);
    command.args(["--yes", "--json", "--no-verify", "--plan"]).arg(&plan);
    command.args(["--memory", &format!("{memory_mib}MiB")]).stdout(Stdio::null());
    let cpu = children_cpu_seconds();
    let mut child = command.spawn()?;
    let (mut peak, begun) = (0.0_f64, Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        ensure!(begun.elapsed() < LIMIT, "the restore does not end");
        peak = peak.max(peak_mib(child.id()).unwrap_or(0.0));
        std::thread::sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "varve restore: {status}");
    let report = std::fs::read(dir.join(format!("{name}.plan.report.json")))?;
    let report: serde_json::Value = serde_json::from_slice(&report)?;
    let copying = report["applied"]["copying_ms"].as_f64().context("no time")? / 1000.0;
    Ok(Restored { copying, cpu_seconds: children_cpu_seconds() - cpu, peak_mib: peak })
}
