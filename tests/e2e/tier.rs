//! What a broker can hold, tiered and read back: one broker for the whole file.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{
    At, Client, Cluster, Consume, Look, Produce, Scratch, SegmentState, Shared, Suite, Tier, Transactions,
    eventually, varve,
};

/// Base64 of 32 bytes that protect nothing.
const KEY_RING: &str =
    r#"{"active": "one", "keys": {"one": "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGU="}}"#;

const LIMIT: Duration = Duration::from_secs(120);

struct Setup {
    cluster: Cluster,
    tier: Tier,
    _store: Scratch,
}

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(setup);
    Suite::new()
        .test_with(&shared, "every_codec_reads_back", every_codec_reads_back)
        .test_with(
            &shared,
            "transactions_read_the_same_from_the_tier",
            transactions_read_the_same_from_the_tier,
        )
        .test_with(&shared, "one_record_segments", one_record_segments)
        .test_with(&shared, "headers_tombstones_and_missing_keys", headers_tombstones_and_missing_keys)
        .test_with(&shared, "an_empty_topic_leaves_nothing", an_empty_topic_leaves_nothing)
        .test_with(
            &shared,
            "a_raw_object_begins_with_the_brokers_log",
            a_raw_object_begins_with_the_brokers_log,
        )
        .test_with(&shared, "reads_from_any_offset_and_time", reads_from_any_offset_and_time)
        .test_with(&shared, "many_consumers_at_once", many_consumers_at_once)
        .test_with(&shared, "delete_records_in_the_tier", delete_records_in_the_tier)
        .test_with(&shared, "retention_empties_the_store", retention_empties_the_store)
        .test_with(&shared, "a_recreated_topic_is_another", a_recreated_topic_is_another)
        .test_with(
            &shared,
            "deletion_of_many_partitions_leaves_nothing",
            deletion_of_many_partitions_leaves_nothing,
        )
        .test_with(&shared, "compressed_objects_are_smaller", compressed_objects_are_smaller)
        .test_with(&shared, "encrypted_objects_hide_their_content", encrypted_objects_hide_their_content)
        .test_with(
            &shared,
            "objects_without_a_digest_and_with_sha256",
            objects_without_a_digest_and_with_sha256,
        )
}

fn setup() -> Result<Setup> {
    let store = Scratch::new("store")?;
    let ring = store.path().join("ring.json");
    fs::write(&ring, KEY_RING)?;
    let tier = Tier::chosen(&store.path().join("tier"))?;
    let cluster = Cluster::builder()
        .tier(&tier)
        .rsm("rules.zstd.topics", "zstd-.*")
        .rsm("rules.zstd.compression", "zstd")
        .rsm("rules.auto.topics", "auto-.*")
        .rsm("rules.auto.compression", "auto")
        .rsm("rules.secret.topics", "secret-.*")
        .rsm("rules.secret.encryption.enabled", "true")
        .rsm("encryption.key.ring.file", ring.display())
        .rsm("rules.bare.topics", "bare-.*")
        .rsm("rules.bare.digest", "none")
        .rsm("rules.sha.topics", "sha-.*")
        .rsm("rules.sha.digest", "sha256")
        // Small, so that a read touches many.
        .rsm("chunk.size.bytes", 256 << 10)
        .start()?;
    Ok(Setup { cluster, tier, _store: store })
}

/// Produces, waits until all but the active segment are only in the tier, and reads everything back.
fn round_trip(setup: &Setup, topic: &str, produce: &Produce) -> Result<()> {
    let kafka = setup.cluster.client();
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, produce)?;
    setup.cluster.wait_tiered(topic, 0)?;
    kafka.consume_all(topic).map(drop)
}

fn every_codec_reads_back(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let topic = format!("codec-{codec}");
        kafka.create_tiered_topic(&topic, 1, &[])?;
        let produce = Produce {
            count: 20_000,
            text: true,
            compression: codec,
            batch_bytes: 65_536,
            ..Produce::default()
        };
        kafka.produce(&topic, &produce)?;
    }
    for codec in codecs {
        let topic = format!("codec-{codec}");
        setup.cluster.wait_tiered(&topic, 0)?;
        ensure!(kafka.consume_all(&topic)?.count == 20_000);
    }
    setup.cluster.wait_settled(&setup.tier)?;
    codecs
        .iter()
        .try_for_each(|codec| setup.cluster.delete_topic_and_tier(&format!("codec-{codec}"), &setup.tier))
}

fn transactions_read_the_same_from_the_tier(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "transactions";
    kafka.create_tiered_topic(topic, 1, &[("local.retention.bytes", "1000000000")])?;
    for (producer, abort_every) in [("first", 3), ("second", 2)] {
        let transactions = Transactions {
            transactional_id: producer.to_owned(),
            transactions: 60,
            records_per_transaction: 50,
            abort_every,
            seed: u64::from(abort_every),
            value_bytes: 1000,
            partition: 0,
        };
        kafka.produce_transactions(topic, &transactions)?;
    }
    // A record after the last marker, so that the end isn't a marker that nobody can read.
    kafka.produce(topic, &Produce { count: 1, ..Produce::default() })?;
    let read = |committed_only| -> Result<_> {
        let consumed = kafka.consume(topic, &Consume { committed_only, ..Consume::default() })?;
        consumed.is_whole()?;
        Ok((consumed.count, consumed.digest))
    };
    let before = (read(false)?, read(true)?);
    ensure!(before.0.0 == 6001 && before.1.0 == 3501, "{before:?}");
    kafka.alter_topic(topic, &[("local.retention.bytes", "1")])?;
    let local_from = setup.cluster.wait_tiered(topic, 0)?;
    ensure!(local_from > 3000, "only {local_from} offsets left the disk");
    ensure!((read(false)?, read(true)?) == before);
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn one_record_segments(setup: &Setup) -> Result<()> {
    let topic = "singles";
    round_trip(setup, topic, &Produce { count: 9, value_bytes: 700_000, ..Produce::default() })?;
    let segments = setup.cluster.client().finished_segments(topic, 0)?;
    let ranges: Vec<_> = segments.iter().map(|segment| (segment.base, segment.end)).collect();
    ensure!(ranges == (0..8).map(|offset| (offset, offset)).collect::<Vec<_>>(), "{ranges:?}");
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn headers_tombstones_and_missing_keys(setup: &Setup) -> Result<()> {
    let topic = "headers";
    let produce = Produce { count: 5000, headers: 6, tombstone_every: 4, ..Produce::default() };
    round_trip(setup, topic, &produce)?;
    let kafka = setup.cluster.client();
    kafka.produce(topic, &Produce { count: 3000, seed: 2, key_bytes: 0, ..Produce::default() })?;
    kafka.produce(
        topic,
        &Produce { count: 3000, seed: 3, value_bytes: 0, headers: 9, ..Produce::default() },
    )?;
    setup.cluster.wait_tiered(topic, 0)?;
    ensure!(kafka.consume_all(topic)?.count == 11_000);
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn an_empty_topic_leaves_nothing(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let id = kafka.create_tiered_topic("empty", 1, &[])?;
    // A few turns of the copy and retention tasks.
    thread::sleep(Duration::from_secs(2));
    ensure!(kafka.consume_all("empty")?.count == 0);
    ensure!(kafka.offset("empty", 0, At::Latest)? == 0);
    let stored: Vec<_> = setup.tier.list()?.into_keys().filter(|key| key.contains(&id)).collect();
    ensure!(stored.is_empty(), "{stored:?}");
    setup.cluster.delete_topic_and_tier("empty", &setup.tier)
}

/// The promise that outlives the software: cut at the log's length, the object is a Kafka log file.
fn a_raw_object_begins_with_the_brokers_log(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "bytes";
    kafka.create_tiered_topic(topic, 1, &[("local.retention.bytes", "1000000000")])?;
    kafka.produce(topic, &Produce { count: 5000, compression: "lz4", headers: 1, ..Produce::default() })?;
    let closed = setup.cluster.broker().local_segments(topic, 0)?.len() - 1;
    let segments = eventually("every closed segment is in the tier", LIMIT, || {
        let found = kafka.finished_segments(topic, 0)?;
        Ok(Look::when(found.len() == closed, found.clone(), found))
    })?;
    for segment in &segments {
        let file = setup.cluster.broker().partition_dir(topic, 0).join(format!("{:020}.log", segment.base));
        let log = fs::read(&file).with_context(|| file.display().to_string())?;
        ensure!(log.len() as u64 == segment.size_bytes);
        let object = setup.tier.read(&segment.object_key(&setup.cluster.id))?;
        ensure!(
            object.get(..log.len()) == Some(&log[..]),
            "{} differs from {}",
            segment.base,
            file.display()
        );
    }
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn reads_from_any_offset_and_time(setup: &Setup) -> Result<()> {
    const FROM_MS: u64 = 1_700_000_000_000;
    let kafka = setup.cluster.client();
    let topic = "positions";
    kafka.create_tiered_topic(topic, 1, &[])?;
    let produce =
        Produce { count: 12_000, timestamp_from: Some(FROM_MS), timestamp_step_ms: 10, ..Produce::default() };
    kafka.produce(topic, &produce)?;
    let local_from = setup.cluster.wait_tiered(topic, 0)?;
    let segments = kafka.finished_segments(topic, 0)?;
    ensure!(segments.len() > 8, "{} segments", segments.len());

    let mut starts = vec![0, 1, 777, local_from - 1, local_from, 11_999];
    starts.extend(
        segments.iter().skip(1).step_by(3).flat_map(|segment| [segment.base - 1, segment.base, segment.end]),
    );
    for from in starts {
        // Two segments' worth, so that most reads cross a border.
        let consume = Consume { from: from.cast_signed(), max_records: Some(2500), ..Consume::default() };
        let consumed = kafka.consume(topic, &consume)?;
        consumed.is_true()?;
        let wanted = 2500.min(12_000 - from);
        ensure!(
            (consumed.first, consumed.count) == (from.cast_signed(), wanted),
            "from {from}: {consumed:?}"
        );
    }
    for fetch_bytes in [2_000, 64 << 10, 8 << 20] {
        let consume = Consume { from: 3_000, to: 6_000, fetch_bytes, ..Consume::default() };
        kafka
            .consume(topic, &consume)?
            .is_whole()
            .with_context(|| format!("fetching {fetch_bytes} bytes"))?;
    }
    for timestamp in [0, FROM_MS, FROM_MS + 33_333, FROM_MS + 77_770, FROM_MS + 119_990] {
        let expected = kafka.expected(topic, 0, Some(timestamp))?.offset_for_time;
        let found = kafka.offset(topic, 0, At::Timestamp(timestamp))?;
        ensure!(found == expected, "timestamp {timestamp}: offset {found}, expected {expected}");
    }
    ensure!(kafka.offset(topic, 0, At::Timestamp(FROM_MS + 120_000))? == -1);
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn many_consumers_at_once(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "crowd";
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 16_000, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    thread::scope(|scope| {
        let readers: Vec<_> = (0..8)
            .map(|reader| {
                let kafka = kafka.clone();
                scope.spawn(move || -> Result<()> {
                    let consume = Consume { from: reader % 4 * 3000, ..Consume::default() };
                    kafka.consume(topic, &consume)?.is_whole().map(drop)
                })
            })
            .collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().unwrap_or_else(|_| anyhow::bail!("a reader panicked")))
    })?;
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn delete_records_in_the_tier(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "trimmed";
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 8_000, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    let segments = kafka.finished_segments(topic, 0)?;
    let cut = (segments[3].base + segments[3].end) / 2;
    ensure!(kafka.delete_records(topic, 0, cut)? == cut);
    ensure!(kafka.offset(topic, 0, At::Earliest)? == cut.cast_signed());
    let consumed = kafka.consume_all(topic)?;
    ensure!(consumed.first == cut.cast_signed(), "{consumed:?}");
    // What lies wholly below the cut leaves the store; what it cuts through stays.
    eventually("segments below the cut are deleted", LIMIT, || {
        let left: Vec<_> = kafka.finished_segments(topic, 0)?.iter().map(|segment| segment.base).collect();
        Ok(Look::when(left.first() == Some(&segments[3].base), (), left))
    })?;
    setup.cluster.wait_settled(&setup.tier)?;
    kafka.consume_all(topic)?;
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn retention_empties_the_store(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "retained";
    kafka.create_tiered_topic(topic, 1, &[])?;
    kafka.produce(topic, &Produce { count: 8_000, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    let before = kafka.finished_segments(topic, 0)?.len();
    kafka.alter_topic(topic, &[("retention.bytes", "3500000")])?;
    let fewer = |kafka: &Client<'_>| -> Result<Look<()>> {
        let left = kafka.finished_segments(topic, 0)?.len();
        let earliest = kafka.offset(topic, 0, At::Earliest)?;
        Ok(Look::when(left > 0 && left < before - 3 && earliest > 0, (), (left, earliest)))
    };
    eventually("retention by size deletes the oldest", LIMIT, || fewer(&kafka))?;
    setup.cluster.wait_settled(&setup.tier)?;
    kafka.consume_all(topic)?;
    kafka.alter_topic(topic, &[("retention.ms", "1000"), ("local.retention.ms", "1000")])?;
    eventually("retention by time deletes all", LIMIT, || {
        let left = kafka.finished_segments(topic, 0)?;
        Ok(Look::when(left.is_empty(), (), left.len()))
    })?;
    setup.cluster.wait_settled(&setup.tier)?;
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn a_recreated_topic_is_another(setup: &Setup) -> Result<()> {
    let topic = "phoenix";
    round_trip(setup, topic, &Produce { count: 3_000, seed: 5, ..Produce::default() })?;
    setup.cluster.client().delete_topic(topic)?;
    let kafka = setup.cluster.client();
    eventually("the name is free", LIMIT, || {
        kafka.create_tiered_topic(topic, 1, &[])?;
        Ok(Look::Done(()))
    })?;
    kafka.produce(topic, &Produce { count: 3_000, seed: 6, ..Produce::default() })?;
    setup.cluster.wait_tiered(topic, 0)?;
    kafka.consume_all(topic)?;
    setup.cluster.wait_settled(&setup.tier)?;
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)
}

fn deletion_of_many_partitions_leaves_nothing(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    let topic = "wide";
    let configs =
        [("remote.storage.enable", "true"), ("segment.bytes", "1048576"), ("local.retention.bytes", "1")];
    kafka.create_topic(topic, 4, 1, &configs)?;
    for partition in 0..4 {
        kafka.produce(topic, &Produce { partition, count: 4_000, ..Produce::default() })?;
    }
    for partition in 0..4 {
        setup.cluster.wait_tiered(topic, partition)?;
        kafka.consume(topic, &Consume { partition, ..Consume::default() })?.is_whole()?;
    }
    setup.cluster.delete_topic_and_tier(topic, &setup.tier)?;
    setup.cluster.wait_settled(&setup.tier)
}

/// The size of a topic's finished segments, and that of their objects.
fn sizes(setup: &Setup, topic: &str) -> Result<(u64, u64)> {
    let stored = setup.tier.list()?;
    let mut sizes = (0, 0);
    for segment in setup.cluster.client().finished_segments(topic, 0)? {
        let key = segment.object_key(&setup.cluster.id);
        sizes.0 += segment.size_bytes;
        sizes.1 += stored.get(&key).with_context(|| format!("no object {key}"))?;
    }
    Ok(sizes)
}

fn compressed_objects_are_smaller(setup: &Setup) -> Result<()> {
    for (topic, text, shrinks) in
        [("zstd-text", true, true), ("auto-text", true, true), ("auto-noise", false, false)]
    {
        round_trip(setup, topic, &Produce { count: 6_000, text, ..Produce::default() })?;
        let (log, objects) = sizes(setup, topic)?;
        let shrunk = objects < log / 2;
        ensure!(shrunk == shrinks, "{topic}: {log} log bytes in {objects} stored bytes");
        setup.cluster.delete_topic_and_tier(topic, &setup.tier)?;
    }
    Ok(())
}

fn encrypted_objects_hide_their_content(setup: &Setup) -> Result<()> {
    let kafka = setup.cluster.client();
    for topic in ["open-text", "secret-text"] {
        round_trip(setup, topic, &Produce { count: 3_000, text: true, ..Produce::default() })?;
        let segments = kafka.finished_segments(topic, 0)?;
        let object = setup.tier.read(&segments[0].object_key(&setup.cluster.id))?;
        let readable = object.windows(8).any(|window| window == b"follower");
        ensure!(readable == (topic == "open-text"), "{topic}: readable is {readable}");
    }
    setup.cluster.broker().restart()?;
    for topic in ["open-text", "secret-text"] {
        kafka.consume_all(topic)?;
        setup.cluster.delete_topic_and_tier(topic, &setup.tier)?;
    }
    Ok(())
}

fn objects_without_a_digest_and_with_sha256(setup: &Setup) -> Result<()> {
    for (topic, digest) in [("bare-noise", "none"), ("sha-noise", "sha256")] {
        round_trip(setup, topic, &Produce { count: 4_000, ..Produce::default() })?;
        let segments = setup.cluster.client().finished_segments(topic, 0)?;
        let key = segments.first().context("no segment")?.object_key(&setup.cluster.id);
        let object = format!("{}/{key}", setup.tier.url());
        let told = varve()?.args(["segment", "inspect", "--json", &object]).output()?;
        let told: Value = serde_json::from_slice(&told.stdout).with_context(|| format!("{told:?}"))?;
        ensure!(told["digest"] == digest, "{topic}: {}", told["digest"]);
        let stuck: Vec<_> = setup.cluster.client().tier_segments()?;
        ensure!(
            stuck
                .iter()
                .all(|segment| segment.topic != topic || segment.state == SegmentState::CopySegmentFinished)
        );
        setup.cluster.delete_topic_and_tier(topic, &setup.tier)?;
    }
    Ok(())
}
