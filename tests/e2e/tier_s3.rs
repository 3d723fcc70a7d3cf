//! Tiering to a real S3 server, and what it costs in requests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use varve_tests::{
    Cluster, Consume, Look, Minio, Produce, Shared, StoreKind, Suite, Throttle, Tier, Transactions,
    eventually,
};

struct Setup {
    cluster: Cluster,
    tier: Tier,
    /// Counts what passes; throttles nothing here.
    counter: Throttle,
    _minio: Minio,
}

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(setup);
    Suite::new()
        .only_on(&[StoreKind::File, StoreKind::S3], "it is about S3")
        .test_with(&shared, "s3_tiers_and_reads_back", s3_tiers_and_reads_back)
        .test_with(
            &shared,
            "a_small_segment_is_one_put_and_two_gets",
            a_small_segment_is_one_put_and_two_gets,
        )
        .test_with(&shared, "large_segments_go_up_in_parts", large_segments_go_up_in_parts)
        .test_with(&shared, "transactions_on_s3", transactions_on_s3)
}

fn setup() -> Result<Setup> {
    let minio = Minio::start()?;
    let counter = Throttle::start(minio.port)?;
    let tier = Tier::s3(&minio, "tier", "some/prefix")?.through(counter.port);
    let cluster = Cluster::builder().tier(&tier).start()?;
    Ok(Setup { cluster, tier, counter, _minio: minio })
}

fn s3_tiers_and_reads_back(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "s3";
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka
        .produce(topic, &Produce { count: 12_000, headers: 1, tombstone_every: 50, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    setup.cluster.wait_settled(&setup.tier)?;
    let consumed = kafka.consume_all(topic)?;
    kafka.consume(topic, &Consume { from: 5_432, ..Consume::default() })?.is_whole()?;
    setup.cluster.broker().restart()?;
    ensure!(kafka.consume_all(topic)?.digest == consumed.digest);
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

/// Requests of a kind between two counts.
fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, kind: &str) -> u64 {
    after.get(kind).unwrap_or(&0) - before.get(kind).unwrap_or(&0)
}

fn a_small_segment_is_one_put_and_two_gets(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "counted";
    kafka.create_tiered_topic(topic, 1, &[])?;
    let before = setup.counter.passed();
    kafka.produce(topic, &Produce { count: 10_000, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    let written = setup.counter.passed();
    let segments = kafka.finished_segments(topic, 0)?.len() as u64;
    ensure!(
        grown(&before, &written, "PUT object") == segments,
        "{segments} segments, {before:?} to {written:?}"
    );
    for other in ["POST upload", "PUT part", "GET range", "GET object"] {
        ensure!(grown(&before, &written, other) == 0, "{before:?} to {written:?}");
    }

    // One request for footer and indexes, one for the only chunk, and at most one listing for what comes next.
    kafka.consume_all(topic)?;
    let read = setup.counter.passed();
    let gets = grown(&written, &read, "GET range") + grown(&written, &read, "GET object");
    ensure!(gets <= 2 * segments, "{segments} segments, {written:?} to {read:?}");
    ensure!(grown(&written, &read, "GET list") <= segments, "{segments} segments, {written:?} to {read:?}");
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn large_segments_go_up_in_parts(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "large";
    kafka.create_tiered_topic(topic, 1, &[("segment.bytes", "41943040")])?;
    let produce = Produce { count: 10_000, value_bytes: 9_000, batch_bytes: 262_144, ..Produce::default() };
    kafka.produce(topic, &produce)?;
    setup.cluster.wait_tiered(topic, 0)?;
    let passed = setup.counter.passed();
    ensure!(passed.get("PUT part").is_some_and(|parts| *parts >= 4), "{passed:?}");
    kafka.consume(topic, &Consume { fetch_bytes: 4 << 20, ..Consume::default() })?.is_whole()?;
    for segment in kafka.finished_segments(topic, 0)? {
        let key = segment.object_key(&setup.cluster.id);
        let stored = *setup.tier.list()?.get(&key).with_context(|| format!("no object {key}"))?;
        ensure!(
            stored > segment.size_bytes && stored < segment.size_bytes + (1 << 20),
            "{stored} bytes in {key}"
        );
    }
    setup.cluster.wait_settled(&setup.tier)?;
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn transactions_on_s3(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "s3-transactions";
    kafka.create_tiered_topic(topic, 1, &[])?;
    let transactions = Transactions {
        transactional_id: "s3".to_owned(),
        transactions: 50,
        records_per_transaction: 100,
        abort_every: 3,
        seed: 1,
        value_bytes: 1000,
        partition: 0,
    };
    kafka.produce_transactions(topic, &transactions)?;
    kafka.produce(topic, &Produce { count: 1, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    for committed_only in [false, true] {
        kafka.consume(topic, &Consume { committed_only, ..Consume::default() })?.is_whole()?;
    }
    setup.cluster.client().delete_topic(topic)?;
    eventually("the bucket is empty", Duration::from_secs(120), || {
        let left = setup.tier.list()?;
        Ok(Look::when(left.is_empty(), (), left))
    })
}
