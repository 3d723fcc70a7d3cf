//! What holds of topics that were brought into another cluster.

use anyhow::{Result, ensure};
use varve_kafka::client::OffsetSpec;

use crate::archive::{RawLog, TopicLogs, plain_client, runtime};
use crate::cluster::Cluster;
use crate::driver::{Produce, Transactions};

/// Offsets and batches are the very same.
pub fn same_logs(source: &[TopicLogs], copy: &[TopicLogs]) -> Result<()> {
    // Topics may have other names.
    let partitions = |all: &[TopicLogs]| -> Vec<Vec<i32>> {
        all.iter().map(|logs| logs.logs.keys().copied().collect()).collect()
    };
    ensure!(partitions(source) == partitions(copy), "{:?}, not {:?}", partitions(copy), partitions(source));
    for (expected, found) in source.iter().zip(copy) {
        for (number, raw) in &expected.logs {
            let copied = &found.logs[number];
            let told = |log: &RawLog| (log.start_offset, log.end_offset, log.batches.len());
            ensure!(copied == raw, "{}-{number}: {:?}, not {:?}", expected.topic, told(copied), told(raw));
        }
    }
    Ok(())
}

/// Whoever writes goes on behind them: a producer into each partition of `plain`, and one with a transactional id that
/// the logs know into the first of `transactional`.
pub fn writers_go_on(
    cluster: &Cluster,
    source: &[TopicLogs],
    plain: &[&str],
    transactional: &str,
) -> Result<()> {
    let kafka = cluster.client();
    for logs in source.iter().filter(|logs| plain.contains(&logs.topic.as_str())) {
        for (number, raw) in &logs.logs {
            let records = Produce { partition: number.unsigned_abs(), count: 10, ..Produce::default() };
            let written = kafka.produce(&logs.topic, &records)?;
            ensure!(written.first == raw.end_offset, "{}-{number}: {written:?}", logs.topic);
        }
    }
    let transactions = Transactions {
        transactional_id: "t-0".to_owned(),
        transactions: 2,
        records_per_transaction: 5,
        abort_every: 2,
        seed: 9,
        value_bytes: 100,
        partition: 0,
    };
    kafka.produce_transactions(transactional, &transactions)?;
    let client = plain_client(&cluster.bootstrap())?;
    let ends = runtime()?.block_on(client.list_offsets(transactional, &[0], OffsetSpec::Latest))?;
    let end = ends.get(&0).copied().flatten().unwrap_or(-1);
    for logs in source.iter().filter(|logs| logs.topic == transactional) {
        ensure!(end > logs.logs[&0].end_offset, "no transaction came through");
    }
    Ok(())
}
