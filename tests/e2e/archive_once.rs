//! `varve archive run --once` on real brokers: what is archived is what the brokers have, byte for byte, whatever
//! kind of data it is, and however often it is run.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use varve_tests::{
    At, Cluster, KAFKA_VERSIONS, Look, Produce, Scratch, Suite, TestArchive, Transactions, copy, ended,
    eventually, plain_client, restore_from, runtime, varve,
};

const TOPICS: &str = "topics: { include: [\"*\"] }";

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        suite = suite.test(&format!("kafka_{version}_byte_for_byte"), move || every_kind(version));
    }
    suite
        .test("again_and_again_only_what_is_new", again)
        .test("segments_by_size_in_many_parts", large)
        .test("a_restored_volume_begins_anew", restored)
        .test("a_snapshot_tells_what_is_open", open)
        .test("a_gap_tells_the_leaders_epoch", gap)
        .test("a_name_that_no_topic_has_is_told", misnamed)
        .test("what_nobody_reads_any_more_is_told_to_lag", left_out)
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
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
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
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
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

fn misnamed() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("orders", 1, 1, &[])?;
    kafka.produce("orders", &Produce { count: 5, ..Produce::default() })?;
    let scratch = Scratch::new("archive-misnamed")?;
    let topics = "topics: { include: [orders, ordres, \"none-*\"] }";
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), topics)?;
    let once = |expected: &[&str]| {
        let ended = archive.try_once(&[])?;
        let told: Value = serde_json::from_str(&ended.out)?;
        let code = if expected.is_empty() { 0 } else { 1 };
        ensure!(ended.code == Some(code) && told["missing"] == serde_json::json!(expected), "{ended:?}");
        Ok(())
    };
    once(&["ordres"])?;
    // One that is archived was there.
    kafka.create_topic("ordres", 1, 1, &[])?;
    kafka.produce("ordres", &Produce { count: 5, ..Produce::default() })?;
    once(&[])?;
    kafka.delete_topic("ordres")?;
    once(&[])
}

fn large() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[])?;
    kafka.produce("t", &Produce { count: 150_000, batch_bytes: 200_000, ..Produce::default() })?;
    let scratch = Scratch::new("archive-large")?;
    let extra = format!("{TOPICS}\nsegments: {{ bytes: 32MiB }}\nlimits: {{ memory.bytes: 64MiB }}");
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), &extra)?;
    archive.run_once(&[])?;
    let client = plain_client(&cluster.bootstrap())?;
    let compared = archive.compare(&client, &["t"])?;
    ensure!((4..=6).contains(&compared.objects), "{compared:?}");
    Ok(())
}

/// The broker's volume is put back to what it was: its epochs come again, with other records.
fn restored() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[])?;
    kafka.produce("t", &Produce { seed: 1, ..Produce::default() })?;
    let scratch = Scratch::new("archive-restored")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    let topic_id = kafka.describe_topic("t")?.topic_id;
    let node = cluster.broker();
    node.stop()?;
    let volume = scratch.path().join("volume");
    copy(&node.log_dir(), &volume)?;

    node.start()?;
    kafka.produce("t", &Produce { seed: 2, ..Produce::default() })?;
    archive.run_once(&[])?;
    // A new process, and nothing to be found.
    archive.run_once(&[])?;
    ensure!(archive.branches(&topic_id, 0)? == [0], "{:?}", archive.branches(&topic_id, 0)?);
    let first = archive.chain(&topic_id, 0, 0)?;

    node.stop()?;
    fs::remove_dir_all(node.log_dir())?;
    copy(&volume, &node.log_dir())?;
    node.start()?;
    kafka.produce("t", &Produce { seed: 3, count: 3000, ..Produce::default() })?;
    archive.run_once(&[])?;
    ensure!(archive.branches(&topic_id, 0)? == [0, 1], "{:?}", archive.branches(&topic_id, 0)?);
    let record = archive.tier().read(&format!("topics/{topic_id}/0/branches/0000000001.json"))?;
    let record: Value = serde_json::from_slice(&record)?;
    ensure!(record["reason"] == "restored" && record.get("parent").is_none(), "{record}");
    archive.compare(&plain_client(&cluster.bootstrap())?, &["t"])?;
    let kept = archive.chain(&topic_id, 0, 0)?;
    ensure!(
        kept.len() == first.len() && kept.iter().zip(&first).all(|(a, b)| a.log == b.log),
        "the old branch"
    );
    Ok(())
}

fn snapshot(archive: &TestArchive) -> Result<Value> {
    let run = |more: &[&str]| -> Result<Value> {
        let output = varve()?.args(["snapshots", &archive.url(), "--json"]).args(more).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let newest = run(&["--max", "1"])?["sequence"].to_string();
    run(&[&newest])
}

fn open() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[])?;
    let transactions = |id: &str| Transactions {
        transactional_id: id.to_owned(),
        transactions: 1,
        records_per_transaction: 10,
        abort_every: 0,
        seed: 7,
        value_bytes: 100,
        partition: 0,
    };
    kafka.produce("t", &Produce { count: 100, ..Produce::default() })?;
    kafka.produce_transactions("t", &transactions("done"))?;
    // 100 records, 10 and their marker, which comes a moment after the producer's end.
    eventually("the marker is in the log", Duration::from_secs(60), || {
        let end = kafka.offset("t", 0, At::Latest)?;
        Ok(Look::when(end == 111, (), end))
    })?;
    kafka.open_transaction("t", &transactions("open"))?;
    let scratch = Scratch::new("archive-open")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    // Also where nothing was read: what the archive has tells.
    for _ in 0..2 {
        archive.run_once(&[])?;
        let shown = snapshot(&archive)?;
        let open = shown["open"].as_array().context("no list")?;
        ensure!(open.len() == 1 && open[0]["first_offset"] == 111, "{shown}");
        ensure!(shown["problems"].as_array().is_some_and(Vec::is_empty), "{shown}");
    }
    Ok(())
}

fn gap() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    kafka.create_topic("t", 1, 1, &[])?;
    for _ in 0..2 {
        kafka.produce("t", &Produce { count: 100, ..Produce::default() })?;
        cluster.broker().stop()?;
        cluster.broker().start()?;
    }
    kafka.produce("t", &Produce { count: 100, ..Produce::default() })?;
    let client = plain_client(&cluster.bootstrap())?;
    let epoch = runtime()?.block_on(client.topic("t"))?.partitions[0].leader_epoch;
    kafka.delete_records("t", 0, 300)?;
    let scratch = Scratch::new("archive-gap")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    archive.run_once(&[])?;
    let topic_id = kafka.describe_topic("t")?.topic_id;
    let chain = archive.chain(&topic_id, 0, 0)?;
    let [only] = &chain[..] else { bail!("{} objects", chain.len()) };
    let epochs: Vec<i32> = only.footer.info.leader_epochs.iter().map(|e| e.epoch).collect();
    ensure!(only.gap.is_some() && epochs == [epoch] && epoch >= 2, "{epochs:?}, the leader's is {epoch}");
    Ok(())
}

/// Snapshots that somebody else makes say what is missing of it, and so does a plan.
fn left_out() -> Result<()> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    for topic in ["read", "left"] {
        kafka.create_topic(topic, 1, 1, &[])?;
        kafka.produce(topic, &Produce { count: 100, ..Produce::default() })?;
    }
    let scratch = Scratch::new("archive-left-out")?;
    let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), TOPICS)?;
    archive.run_once(&[])?;
    kafka.produce("left", &Produce { count: 23, seed: 1, ..Produce::default() })?;
    let other = ["--set", "topics.include=[read]"];
    archive.run_once(&other)?;
    let lags = snapshot(&archive)?;
    let expected =
        serde_json::json!([{ "topic": "left", "partition": 0, "end_offset": 100, "log_end_offset": 123 }]);
    ensure!(lags["lagging_partitions"] == expected, "{lags}");
    ensure!(lags["problems"][0]["topic"] == "left", "{lags}");
    let target = Cluster::builder().start()?;
    let plan = restore_from(&archive.url(), &target, &scratch.path().join("plan"), &["--dry-run"])?;
    let shown = ended(plan, 0)?.0;
    ensure!(
        shown.contains("left-0: the archive had offsets up to 99 only, the log went on to 122"),
        "{shown}"
    );
    // Who makes a snapshot for others says it too; and whoever reads it takes it back.
    let mut command = varve()?;
    command.args(["archive", "snapshot", "-c"]).arg(archive.config()).args(other);
    ended(command, 0)?;
    ensure!(snapshot(&archive)?["lagging_partitions"] == expected, "it is not told by hand");
    archive.run_once(&[])?;
    let whole = snapshot(&archive)?;
    ensure!(whole["lagging_partitions"] == serde_json::json!([]), "{whole}");
    ensure!(whole["problems"] == serde_json::json!([]), "{whole}");
    archive.verify()
}
