//! Tiering to a real S3 server, and what it costs in requests.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use varve_tests::{
    Cluster, Consume, Look, Minio, Produce, Shared, Suite, Throttle, Tier, Transactions, eventually,
};

struct Setup {
    cluster: Cluster,
    tier: Tier,
    /// Counts what passes; throttles nothing here.
    counter: Throttle,
    _minio: Minio,
}

fn main() -> ExitCode {
    let shared = Shared::new(setup);
    Suite::new()
        .test_with(&shared, "s3_tiers_and_reads_back", s3_tiers_and_reads_back)
        .test_with(&shared, "a_small_segment_is_one_put", a_small_segment_is_one_put)
        .test_with(&shared, "large_segments_go_up_in_parts", large_segments_go_up_in_parts)
        .test_with(&shared, "transactions_on_s3", transactions_on_s3)
        .run()
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

fn a_small_segment_is_one_put(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "counted";
    kafka.create_tiered_topic(topic, 1, &[])?;
    let before = setup.counter.passed();
    kafka.produce(topic, &Produce { count: 10_000, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    let after = setup.counter.passed();
    let segments = kafka.finished_segments(topic, 0)?.len() as u64;
    let grown = |kind: &str| after.get(kind).unwrap_or(&0) - before.get(kind).unwrap_or(&0);
    ensure!(grown("PUT object") == segments, "{segments} segments, {before:?} to {after:?}");
    ensure!(grown("POST upload") == 0 && grown("PUT part") == 0, "{before:?} to {after:?}");
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
    eventually("the bucket is empty", Duration::from_secs(60), || {
        let left = setup.tier.list()?;
        Ok(Look::when(left.is_empty(), (), left))
    })
}
