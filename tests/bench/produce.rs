//! `cargo xtask bench produce`: an archive restored by a producer into a real broker, against a lean loop that sends the
//! very same batches: other headers, checksums made anew, five under way for each partition, nothing looked at. Prints
//! the ratio of speeds, and of the command the processor time for each GiB and the memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use varve_kafka::client::{Client, ProduceLane};
use varve_kafka::protocol::{Batches, Sequence};
use varve_tests::{Cluster, Scratch, TestArchive, TopicLogs, plain_client, runtime};

use crate::measure::median;
use crate::restored::{By, Fill, Restored, TOPIC, archived};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The lean loop holds it in memory
    #[command(flatten)]
    fill: Fill,
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Of the command, in MiB
    #[arg(long, default_value_t = 256)]
    memory_mib: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let scratch = Scratch::new("bench-produce")?;
    let (archive, logs) = filled(args, scratch.path())?;
    let (mut ours, mut lean) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        lean.push(sent(args, &logs)?);
        ours.push(Restored::measure(&archive, scratch.path(), By::Producer, args.memory_mib)?);
    }
    let Fill { mib, partitions, batch_bytes } = args.fill;
    let speed = |seconds: f64| mib as f64 / seconds;
    let (lean, copying) = (median(lean), median(ours.iter().map(|r| r.copying)));
    let (cpu, peak) = (median(ours.iter().map(|r| r.cpu_seconds)), median(ours.iter().map(|r| r.peak_mib)));
    println!(
        "restore by a producer, {mib} MiB in {partitions} partitions, batches of up to {batch_bytes} bytes, one broker, \
         median of {}",
        args.runs
    );
    println!("  a lean loop sends them at {:.0} MiB/s", speed(lean));
    println!("  ours: {:.0} MiB/s while writing ({:.2})", speed(copying), lean / copying);
    println!(
        "  {:.2} CPU-s/GiB with its plan, {peak:.0} MiB resident with a budget of {}",
        cpu / (mib as f64 / 1024.0),
        args.memory_mib
    );
    Ok(())
}

fn filled(args: &Args, dir: &Path) -> Result<(TestArchive, TopicLogs)> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    args.fill.into(&cluster)?;
    let archive = archived(&cluster, dir)?;
    let logs = TopicLogs::read(&plain_client(&cluster.bootstrap())?, &[TOPIC])?;
    Ok((archive, logs.into_iter().next().context("no log")?))
}

/// Seconds of the lean loop.
fn sent(args: &Args, logs: &TopicLogs) -> Result<f64> {
    let cluster = Cluster::builder().heap_mib(1024).start()?;
    cluster.client().create_topic(TOPIC, args.fill.partitions, 1, &[])?;
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
        let base_offset = batch.header.base_offset;
        let base_sequence = i32::try_from(base_offset)?;
        lane.send(batch.to_send(Sequence { base_sequence, ..by }), base_offset).await?;
    }
    while lane.oldest().await?.is_some() {}
    Ok(())
}
