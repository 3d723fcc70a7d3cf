//! `cargo xtask bench restore`: an archive restored into a real broker, against a real broker that copies the same
//! partitions from another real broker as a new replica. Prints the ratio of speeds, and of the command the processor
//! time for each GiB and the memory. Then the same of many small partitions.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use varve_tests::{ArchiveDir, Cluster, Produce, Scratch, plain_client, runtime, varve};

use crate::measure::{at_once, children_cpu_seconds, median, peak_mib};

const TOPIC: &str = "bench";
const LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Of record batches, in MiB
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Small partitions, of 16 KiB each
    #[arg(long, default_value_t = 1000)]
    small: u32,
    /// Of the command, in MiB
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let scratch = Scratch::new("bench-restore")?;
    let archive = filled(args, scratch.path())?;
    let gib = args.mib as f64 / 1024.0;
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        limit.push(replica(args)?);
        ours.push(restored(&archive, scratch.path(), &format!("run-{run}"), args.memory_mib)?);
    }
    let (seconds, copying) = (median(ours.iter().map(|r| r.seconds)), median(ours.iter().map(|r| r.copying)));
    let (cpu, peak) = (median(ours.iter().map(|r| r.cpu_seconds)), median(ours.iter().map(|r| r.peak_mib)));
    let limit = median(limit);
    let speed = |seconds: f64| args.mib as f64 / seconds;
    println!(
        "restore, {} MiB in {} partitions, one broker, median of {}",
        args.mib, args.partitions, args.runs
    );
    println!("  a replica catches up from a real broker at {:.0} MiB/s", speed(limit));
    println!(
        "  ours: {:.0} MiB/s while copying ({:.2}), {:.0} with all that is around it ({:.2})",
        speed(copying),
        limit / copying,
        speed(seconds),
        limit / seconds
    );
    println!("  {:.2} CPU-s/GiB, {peak:.0} MiB resident with a budget of {}", cpu / gib, args.memory_mib);
    if args.small > 0 {
        small(args, scratch.path())?;
    }
    Ok(())
}

fn filled(args: &Args, dir: &Path) -> Result<ArchiveDir> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    produce(args, &cluster)?;
    let archive = ArchiveDir::new(dir, &cluster.bootstrap(), &format!("topics: {{ include: [{TOPIC}] }}"))?;
    archive.run_once(&[])?;
    Ok(archive)
}

fn produce(args: &Args, cluster: &Cluster) -> Result<()> {
    let kafka = cluster.client();
    kafka.create_topic(TOPIC, args.partitions, 1, &[])?;
    let records = (args.mib << 20) / u64::from(args.partitions) / 1024;
    at_once(args.partitions, |partition| {
        let seed = u64::from(partition);
        let produce = Produce { partition, count: records, batch_bytes: 1 << 19, seed, ..Produce::default() };
        kafka.produce(TOPIC, &produce)
    })?;
    Ok(())
}

/// Seconds that a new replica needs on a second broker.
fn replica(args: &Args) -> Result<f64> {
    let cluster = Cluster::builder().nodes(2).heap_mib(1024).start()?;
    produce(args, &cluster)?;
    let client = plain_client(&cluster.bootstrap())?;
    runtime()?.block_on(async {
        let before = client.topic(TOPIC).await?;
        let partitions = before.partitions.iter().map(|p| {
            // To the one that has not got it.
            let other = if p.replicas.contains(&1) { 2 } else { 1 };
            ReassignablePartition::default()
                .with_partition_index(p.partition)
                .with_replicas(Some(vec![BrokerId(other)]))
        });
        let topic = ReassignableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(partitions.collect());
        let request =
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]).with_timeout_ms(60_000);
        let begun = Instant::now();
        let answer = client.any_connection().await?.call(request).await?;
        ensure!(answer.error_code == 0, "{answer:?}");
        while !client.list_reassignments().await?.is_empty() {
            ensure!(begun.elapsed() < LIMIT, "the replica does not catch up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(begun.elapsed().as_secs_f64())
    })
}

struct Restored {
    seconds: f64,
    /// Without registering, and without what comes behind it.
    copying: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

fn restored(archive: &ArchiveDir, dir: &Path, name: &str, memory_mib: u64) -> Result<Restored> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    let plan = dir.join(format!("{name}.plan"));
    let mut command = Command::new(varve()?);
    command.args(["restore", "--from", &archive.url(), "--to", &cluster.bootstrap()]);
    command
        .args(["--controller", &cluster.controllers(), "--yes", "--json", "--no-verify", "--plan"])
        .arg(&plan);
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
    ensure!(status.success() && status.signal().is_none(), "varve restore: {status}");
    let report = std::fs::read(dir.join(format!("{name}.plan.report.json")))?;
    let report: serde_json::Value = serde_json::from_slice(&report)?;
    let ms = |value: &serde_json::Value| value.as_f64().context("no time");
    Ok(Restored {
        seconds: ms(&report["rto_ms"])? / 1000.0,
        copying: ms(&report["applied"]["copying_ms"])? / 1000.0,
        cpu_seconds: children_cpu_seconds() - cpu,
        peak_mib: peak,
    })
}

fn small(args: &Args, dir: &Path) -> Result<()> {
    let dir = dir.join("small");
    std::fs::create_dir_all(&dir)?;
    let archive = {
        let cluster = Cluster::builder().heap_mib(1024).start()?;
        let kafka = cluster.client();
        kafka.create_topic(TOPIC, args.small, 1, &[])?;
        for partition in 0..args.small {
            let produce = Produce { partition, count: 16, ..Produce::default() };
            kafka.produce(TOPIC, &produce)?;
        }
        let archive =
            ArchiveDir::new(&dir, &cluster.bootstrap(), &format!("topics: {{ include: [{TOPIC}] }}"))?;
        archive.run_once(&[])?;
        archive
    };
    let restored = restored(&archive, &dir, "small", args.memory_mib)?;
    println!(
        "{} partitions of 16 KiB: {:.1} s, {:.0} MiB resident",
        args.small, restored.seconds, restored.peak_mib
    );
    Ok(())
}
