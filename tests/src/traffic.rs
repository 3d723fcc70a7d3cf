//! Something that is produced to while a test does its work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::cluster::Cluster;
use crate::driver::Produce;

/// Runs `work` while records are produced to `partitions` of a topic, one after the other.
pub fn while_producing<T>(
    cluster: &Cluster,
    topic: &str,
    partitions: u32,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let producer = scope.spawn(|| produce_until(cluster, topic, partitions, &stop));
        let outcome = work();
        stop.store(true, Ordering::Relaxed);
        producer.join().map_err(|_| anyhow!("the producer panicked"))??;
        outcome
    })
}

fn produce_until(cluster: &Cluster, topic: &str, partitions: u32, stop: &AtomicBool) -> Result<()> {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let produce = Produce {
            partition: u32::try_from(rounds % u64::from(partitions))?,
            count: 300,
            seed: rounds,
            value_bytes: 500,
            ..Produce::default()
        };
        cluster.client().produce(topic, &produce)?;
        rounds += 1;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
