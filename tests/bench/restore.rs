//! `cargo xtask bench restore`: an archive restored into a real broker, against a real broker that copies the same
//! partitions from another real broker as a new replica. Prints the ratio of speeds, and of the command the processor
//! time for each GiB and the memory. Then the same of many small partitions. The archive is in the page cache: what is
//! measured is not the disk.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use varve_format::DigestAlgorithm;
use varve_tests::{Cluster, Produce, Scratch, plain_client, runtime};

use crate::lean::send;
use crate::measure::median;
use crate::restored::{By, Fill, LIMIT, Restored, TOPIC, archived, segments};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    fill: Fill,
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
    let archive = {
        let cluster = Cluster::builder().heap_mib(1024).start()?;
        args.fill.into(&cluster)?;
        archived(&cluster, scratch.path())?
    };
    let Fill { mib, partitions, .. } = args.fill;
    let files = segments(&archive)?;
    let (mut ours, mut limit, mut lean) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs {
        limit.push(replica(args)?);
        ours.push(Restored::measure(&archive, scratch.path(), By::Leader, args.memory_mib)?);
        lean.push(send(&files, DigestAlgorithm::Blake3)?);
    }
    let (seconds, copying) = (median(ours.iter().map(|r| r.seconds)), median(ours.iter().map(|r| r.copying)));
    let (cpu, peak) = (median(ours.iter().map(|r| r.cpu_seconds)), median(ours.iter().map(|r| r.peak_mib)));
    let limit = median(limit);
    let speed = |seconds: f64| mib as f64 / seconds;
    println!("restore, {mib} MiB in {partitions} partitions, one broker, median of {}", args.runs);
    println!("  a replica catches up from a real broker at {:.0} MiB/s", speed(limit));
    println!(
        "  ours: {:.0} MiB/s while copying ({:.2}), {:.0} with all that is around it ({:.2})",
        speed(copying),
        limit / copying,
        speed(seconds),
        limit / seconds
    );
    let gib = mib as f64 / 1024.0;
    println!(
        "  {:.2} CPU-s/GiB, where a loop that reads, hashes and sends the same files takes {:.2}",
        cpu / gib,
        median(lean) / gib
    );
    println!("  {peak:.0} MiB resident with a budget of {}", args.memory_mib);
    if args.small > 0 {
        small(args, scratch.path())?;
    }
    Ok(())
}

/// Seconds that a new replica needs on a second broker.
fn replica(args: &Args) -> Result<f64> {
    let cluster = Cluster::builder().nodes(2).heap_mib(1024).start()?;
    args.fill.into(&cluster)?;
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
        archived(&cluster, &dir)?
    };
    let restored = Restored::measure(&archive, &dir, By::Leader, args.memory_mib)?;
    println!(
        "{} partitions of 16 KiB: {:.1} s, {:.0} MiB resident",
        args.small, restored.seconds, restored.peak_mib
    );
    Ok(())
}
