//! `varve archive run --once` on real brokers: what is archived is what the brokers have, byte for byte, whatever
//! kind of data it is, and however often it is run.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use varve_tests::{
    ArchiveDir, Cluster, KAFKA_VERSIONS, Produce, Scratch, Suite, Transactions, plain_client, runtime,
};

const TOPICS: &str = "topics: { include: [\"*\"] }";

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        suite = suite.test(&format!("kafka_{version}_byte_for_byte"), move || every_kind(version));
    }
    suite.test("again_and_again_only_what_is_new", again).test("segments_by_size_in_many_parts", large).run()
}

/// Data of every kind: codecs, headers, tombstones, transactions, compaction, a moved log start, nothing at all.
fn every_kind(version: &str) -> Result<()> {
    let cluster = Cluster::builder().version(version).start()?;
    let kafka = cluster.client();
    kafka.create_topic("plain", 6, 1, &[("segment.bytes", "1048576")])?;
    for (partition, compression) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let produce = Produce {
            partition,
            compression,
            count: 3000,
            headers: 2,
            tombstone_every: 7,
            text: true,
            seed: u64::from(partition),
            ..Produce::default()
        };
        kafka.produce("plain", &produce)?;
    }
    kafka.create_topic("transactions", 1, 1, &[("segment.bytes", "1048576")])?;
    let transactions = Transactions {
        transactional_id: "tx".to_owned(),
        transactions: 40,
        records_per_transaction: 50,
        abort_every: 3,
        seed: 7,
        value_bytes: 500,
        partition: 0,
    };
    kafka.produce_transactions("transactions", &transactions)?;
    kafka.create_topic("cut", 1, 1, &[])?;
    kafka.produce("cut", &Produce { count: 2000, ..Produce::default() })?;
    // In the midst of a batch.
    kafka.delete_records("cut", 0, 777)?;
    kafka.create_topic("one", 1, 1, &[])?;
    kafka.produce("one", &Produce { count: 1, ..Produce::default() })?;
    kafka.create_topic("empty", 3, 1, &[])?;

    let scratch = Scratch::new("archive-once")?;
    let archive = ArchiveDir::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    archive.run_once(&[])?;
    let client = plain_client(&cluster.bootstrap())?;
    let compared = archive.compare(&client, &["plain", "transactions", "cut", "one", "empty"])?;
    ensure!(compared.partitions >= 8 && compared.bytes > 7 << 20 && compared.gaps == 1, "{compared:?}");
    Ok(())
}

fn again() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 2, 1, &[])?;
    let scratch = Scratch::new("archive-again")?;
    let archive = ArchiveDir::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    let client = plain_client(&cluster.bootstrap())?;
    let topic_id = runtime()?.block_on(client.topic("t"))?.topic_id.to_string();
    for round in 0..3_u64 {
        kafka.produce("t", &Produce { seed: round, ..Produce::default() })?;
        archive.run_once(&[])?;
        // Nothing new: nothing is written.
        let before = archive.chain(&topic_id, 0, 0)?.len();
        archive.run_once(&[])?;
        ensure!(archive.chain(&topic_id, 0, 0)?.len() == before && before as u64 == round + 1, "{before}");
        ensure!(archive.compare(&client, &["t"])?.bytes > 1_000_000 * round, "too few bytes");
    }
    // A topic that is made again under its name is another.
    kafka.delete_topic("t")?;
    kafka.create_topic("t", 1, 1, &[])?;
    kafka.produce("t", &Produce { count: 5, ..Produce::default() })?;
    archive.run_once(&[])?;
    ensure!(archive.compare(&client, &["t"])?.objects == 1, "the new topic's one object");
    ensure!(archive.chain(&topic_id, 0, 0)?.len() == 3, "the old topic's objects are gone");
    Ok(())
}

fn large() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[])?;
    kafka.produce("t", &Produce { count: 150_000, batch_bytes: 200_000, ..Produce::default() })?;
    let scratch = Scratch::new("archive-large")?;
    let extra = format!("{TOPICS}\nsegments: {{ bytes: 32MiB }}\nlimits: {{ memory.bytes: 64MiB }}");
    let archive = ArchiveDir::new(scratch.path(), &cluster.bootstrap(), &extra)?;
    archive.run_once(&[])?;
    let client = plain_client(&cluster.bootstrap())?;
    let compared = archive.compare(&client, &["t"])?;
    ensure!((4..=6).contains(&compared.objects), "{compared:?}");
    Ok(())
}
