//! The files beside a segment's log, built from the log alone, against those that brokers have: byte for byte
//! what a broker's recovery makes, and what a living broker made, up to differences that are as valid.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use varve_kafka::protocol::{
    BatchHeader, Batches, BuiltSegment, LeaderEpochs, LogState, ProducerExpiry, SegmentBuilder, SegmentRules,
    parse_offset_index, parse_producer_snapshot, parse_time_index,
};
use varve_tests::{Client, Cluster, KAFKA_VERSION, Node, Produce, Suite, Transactions};

const INTERVAL_BYTES: u32 = 500;
/// Kafka's default.
const EXPIRATION_MS: i64 = 86_400_000;
/// Each with one partition.
const TOPICS: [&str; 6] = ["plain", "idempotent", "transactional", "zstd", "old-times", "compacted"];

pub(crate) fn suite() -> Suite {
    let mut suite = Suite::new();
    for version in [KAFKA_VERSION, "3.9.2", "4.3.0"] {
        suite =
            suite.test(&format!("kafka_{version}_has_the_files_that_its_logs_give"), move || one(version));
    }
    suite.test("followers_have_the_same_files", followers)
}

fn one(version: &str) -> Result<()> {
    let cluster = Cluster::builder().version(version).property("log.cleaner.backoff.ms", 500).start()?;
    let node = cluster.broker();
    for topic in TOPICS {
        let policy = if topic == "compacted" { "compact" } else { "delete" };
        let configs = [
            ("segment.bytes", "1048576"),
            ("index.interval.bytes", "500"),
            ("cleanup.policy", policy),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("retention.ms", "-1"),
        ];
        cluster.client().create_topic(topic, 1, 1, &configs)?;
    }
    // Three lives: leader epochs, and ids of producers a thousand apart, which meet in buckets.
    for life in 0..3 {
        produce(&cluster.client(), life)?;
        if life == 2 {
            open_and_abort(&cluster.client())?;
            cluster.wait_compacted("compacted", 0)?;
        }
        node.stop()?;
        if life < 2 {
            node.start()?;
        }
    }
    let keep = SegmentRules { index_interval_bytes: INTERVAL_BYTES, producer_expiry: None };
    let mut rolled = 0;
    for topic in TOPICS {
        let built = Built::new(node, topic, keep)?;
        rolled += built.segments.len();
        println!("{version} {topic}, live: {} segments, {:?}", built.segments.len(), built.differing()?);
        built.live_files_are_valid(topic).with_context(|| format!("{topic}, live"))?;
    }
    ensure!(rolled > 12, "only {rolled} segments");

    TOPICS.iter().try_for_each(|topic| lose_files(&node.partition_dir(topic, 0)))?;
    fs::remove_file(node.log_dir().join(".kafka_cleanshutdown"))?;
    fs::write(node.log_dir().join("recovery-point-offset-checkpoint"), "0\n0\n")?;
    // What it would rewrite now has other files than a recovery makes.
    node.set("log.cleaner.enable", "false");
    node.start()?;
    node.stop()?;
    let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let expiry = ProducerExpiry { now_ms, after_ms: EXPIRATION_MS };
    let forget = SegmentRules { producer_expiry: Some(expiry), ..keep };
    for topic in TOPICS {
        let built = Built::new(node, topic, forget)?;
        let differing = built.differing()?;
        ensure!(differing.is_empty(), "{topic}, recovered: {differing:?}");
        built.is_what_was_produced(topic)?;
    }
    Ok(())
}

fn transactions(id: &str, seed: u64) -> Transactions {
    Transactions {
        transactional_id: id.to_owned(),
        transactions: 12,
        records_per_transaction: 40,
        abort_every: 3,
        seed,
        value_bytes: 1000,
        partition: 0,
    }
}

fn produce(kafka: &Client<'_>, life: u32) -> Result<()> {
    let seed = u64::from(life);
    let of = |base: u64| Produce { count: 500, seed: base + seed, headers: 1, ..Produce::default() };
    kafka.produce("plain", &Produce { idempotent: false, count: 1200, ..of(10) })?;
    for producer in 0..9 {
        // The driver has a producer for each size of a batch.
        let batch_bytes = 1000 + 600 * producer + life;
        kafka.produce("idempotent", &Produce { batch_bytes, count: 150, ..of(20) })?;
    }
    for (compression, text) in [("zstd", true), ("lz4", false), ("gzip", true), ("snappy", true)] {
        kafka.produce("zstd", &Produce { compression, text, ..of(30) })?;
    }
    kafka.produce_transactions("transactional", &transactions("one", seed))?;
    kafka.produce("transactional", &of(40))?;
    // Years ago, and not in order: such a producer has expired once its segment is recovered.
    for (from, step, more) in [(1_600_000_000_000, 1, 0), (1_500_000_000_000, 1_000, 1)] {
        let batch_bytes = 8000 + 2 * life + more;
        let times = Produce { timestamp_from: Some(from), timestamp_step_ms: step, batch_bytes, ..of(50) };
        kafka.produce("old-times", &times)?;
    }
    kafka.produce("compacted", &Produce { key_bytes: 1, count: 1500, ..of(60) })?;
    kafka.produce_transactions("compacted", &transactions("two", seed))?;
    Ok(())
}

/// Aborts under a transaction that stays open: the last stable offset is behind.
fn open_and_abort(kafka: &Client<'_>) -> Result<()> {
    kafka.open_transaction("transactional", &transactions("open", 7))?;
    kafka.produce_transactions("transactional", &transactions("two", 8))?;
    kafka.produce_transactions("transactional", &transactions("one", 9))?;
    Ok(())
}

fn lose_files(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let lost = ["index", "timeindex", "txnindex", "snapshot"];
        if path.extension().is_some_and(|e| lost.iter().any(|lost| e == *lost)) {
            fs::remove_file(path)?;
        }
    }
    Ok(fs::remove_file(dir.join("leader-epoch-checkpoint"))?)
}

/// Base offsets and paths of the logs of a partition, ascending.
fn logs(dir: &Path) -> Result<Vec<(i64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "log") {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).context("a log's name")?;
            found.push((stem.parse()?, path.clone()));
        }
    }
    found.sort();
    Ok(found)
}

/// A partition's directory, and what its logs give.
struct Built {
    dir: PathBuf,
    segments: Vec<BuiltSegment>,
}

impl Built {
    fn new(node: &Node, topic: &str, rules: SegmentRules) -> Result<Self> {
        let dir = node.partition_dir(topic, 0);
        let mut state = LogState::default();
        let mut segments = Vec::new();
        for (base_offset, log) in logs(&dir)? {
            let mut builder = SegmentBuilder::new(base_offset, state, rules)?;
            for piece in fs::read(&log)?.chunks(70_001) {
                builder.feed(piece).with_context(|| log.display().to_string())?;
            }
            let built = builder.finish()?;
            state = built.state.clone();
            segments.push(built);
        }
        Ok(Self { dir, segments })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.dir.join(name)).with_context(|| format!("{}/{name}", self.dir.display()))
    }

    /// The names of the broker's files whose bytes are others. Each file that must be there is looked for.
    fn differing(&self) -> Result<BTreeSet<String>> {
        let mut differing = BTreeSet::new();
        let mut compare = |name: String, built: &[u8]| -> Result<()> {
            if self.read(&name)? != built {
                differing.insert(name);
            }
            Ok(())
        };
        let mut bases = self.segments.iter().map(|built| built.summary.base_offset).skip(1);
        for built in &self.segments {
            let name = |extension: &str| format!("{:020}.{extension}", built.summary.base_offset);
            compare(name("index"), &built.files.offset_index)?;
            compare(name("timeindex"), &built.files.time_index)?;
            if self.dir.join(name("txnindex")).exists() || !built.files.transaction_index.is_empty() {
                compare(name("txnindex"), &built.files.transaction_index)?;
            }
            // After compaction, the next segment may begin later than this one ends.
            let at = bases.next().unwrap_or(built.summary.next_offset);
            compare(format!("{at:020}.snapshot"), &built.files.producer_snapshot)?;
        }
        let last = self.segments.last().context("no segment")?;
        // A leader notes its epoch as soon as it leads, at the log's end.
        let mut epochs = last.state.leader_epochs.clone();
        for entry in LeaderEpochs::parse(&self.read("leader-epoch-checkpoint")?)?.entries() {
            if entry.start_offset >= last.state.next_offset {
                epochs.note(entry.epoch, entry.start_offset);
            }
        }
        compare("leader-epoch-checkpoint".to_owned(), epochs.to_string().as_bytes())?;
        Ok(differing)
    }

    /// What a living broker has instead of what recovery would make leads readers as well to where they want.
    fn live_files_are_valid(&self, topic: &str) -> Result<()> {
        let compacted = topic == "compacted";
        for name in self.differing()? {
            let (stem, extension) = name.split_once('.').unwrap_or((&name, ""));
            let bytes = self.read(&name)?;
            let base_offset = stem.parse().unwrap_or_default();
            match extension {
                "index" => offset_index_is_valid(&bytes, &self.batches(base_offset)?, base_offset),
                "timeindex" => time_index_is_valid(&bytes, &self.batches(base_offset)?, base_offset),
                // Aborted transactions stay there when their data is gone; epochs too.
                "txnindex" | "" if compacted => Ok(()),
                "snapshot" if compacted => parse_producer_snapshot(&bytes).map(drop).map_err(Into::into),
                "snapshot" if topic == "old-times" => self.some_have_expired(&bytes, base_offset),
                _ => bail!("a living broker has other bytes"),
            }
            .with_context(|| name.clone())?;
        }
        Ok(())
    }

    /// The producers that are left are as they were.
    fn some_have_expired(&self, bytes: &[u8], offset: i64) -> Result<()> {
        let built = self.segments.iter().find(|built| built.summary.next_offset == offset);
        let all = &built.context("no segment ends there")?.state.producers;
        for entry in parse_producer_snapshot(bytes)? {
            ensure!(all.contains(&entry), "{entry:?} is not among {all:?}");
        }
        Ok(())
    }

    fn batches(&self, base_offset: i64) -> Result<Vec<(u64, BatchHeader)>> {
        let log = Bytes::from(self.read(&format!("{base_offset:020}.log"))?);
        Batches::new(log, 0).map(|batch| batch.map(|b| (b.position, b.header)).map_err(Into::into)).collect()
    }

    /// That the logs held what this test is about.
    fn is_what_was_produced(&self, topic: &str) -> Result<()> {
        let sum = |of: fn(&BuiltSegment) -> u64| self.segments.iter().map(of).sum::<u64>();
        let records = sum(|s| s.summary.records_count);
        let aborted = sum(|s| s.summary.aborted_transactions_count);
        let gaps = sum(|s| s.summary.missing_between_batches + s.summary.missing_within_batches);
        let last = self.segments.last().context("no segment")?;
        let seen = (records, aborted, gaps, last.state.producers.len(), last.summary.open_transactions.len());
        let epochs = last.state.leader_epochs.entries().len();
        let holds = match topic {
            "plain" => matches!(seen, (3600, 0, 0, 0, 0)),
            // Each life has producers of its own.
            "idempotent" => matches!(seen, (4050, 0, 0, 27, 0)),
            "transactional" => aborted == 20 && gaps == 0 && seen.4 == 1,
            "zstd" => records == 6000,
            "old-times" => records == 3000 && seen.3 < 6,
            "compacted" => gaps > 1000 && aborted == 4,
            _ => false,
        };
        println!("{topic}: {} segments, {seen:?}, {epochs} epochs", self.segments.len());
        ensure!(holds && epochs >= 3, "{topic}: {seen:?}, {epochs} epochs");
        Ok(())
    }
}

/// Each entry names a batch's begin, and the last offset of that batch or of a later one.
fn offset_index_is_valid(bytes: &[u8], batches: &[(u64, BatchHeader)], base_offset: i64) -> Result<()> {
    for entry in parse_offset_index(bytes, base_offset)? {
        let at = batches.iter().position(|(position, _)| *position == u64::from(entry.position));
        let at = at.with_context(|| format!("no batch at {entry:?}"))?;
        let later = batches.get(at..).unwrap_or_default();
        ensure!(later.iter().any(|(_, header)| header.last_offset() == entry.offset), "{entry:?}");
    }
    Ok(())
}

/// Each entry is the greatest timestamp up to its offset; the last one, of all.
fn time_index_is_valid(bytes: &[u8], batches: &[(u64, BatchHeader)], base_offset: i64) -> Result<()> {
    let greatest = |up_to: i64| {
        let before = batches.iter().filter(|(_, header)| header.last_offset() <= up_to);
        before.map(|(_, header)| header.max_timestamp_ms).max()
    };
    let entries = parse_time_index(bytes, base_offset)?;
    for entry in &entries {
        ensure!(greatest(entry.offset) == Some(entry.timestamp_ms), "{entry:?}");
    }
    let last = entries.last().map(|entry| entry.timestamp_ms);
    ensure!(last == greatest(i64::MAX), "{last:?} is not the greatest");
    Ok(())
}

/// Followers append all batches of a fetch at once, and yet index each.
fn followers() -> Result<()> {
    let cluster = Cluster::builder().version("3.9.2").nodes(3).start()?;
    let configs = [("segment.bytes", "1048576"), ("index.interval.bytes", "500")];
    cluster.client().create_topic("t", 1, 3, &configs)?;
    let produce = Produce { count: 6000, batch_bytes: 2000, idempotent: false, ..Produce::default() };
    cluster.client().produce("t", &produce)?;
    cluster.client().produce_transactions("t", &transactions("one", 1))?;
    cluster.stop_all()?;
    let rules = SegmentRules { index_interval_bytes: INTERVAL_BYTES, producer_expiry: None };
    for node in &cluster.nodes {
        let built = Built::new(node, "t", rules)?;
        ensure!(built.segments.len() > 3, "{} segments", built.segments.len());
        let differing = built.differing()?;
        ensure!(differing.is_empty(), "broker {}: {differing:?}", node.id);
    }
    Ok(())
}
