//! The Java client of `tests/driver`, in Rust's words.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{install, process};

type Waiting = Arc<Mutex<HashMap<u64, Sender<Value>>>>;

/// A JVM that takes one JSON command a line. Commands of several threads run side by side.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    requests: Mutex<ChildStdin>,
    waiting: Waiting,
    next_id: AtomicU64,
}

impl Driver {
    pub(crate) fn start(log: &Path) -> Result<Self> {
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        java.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        java.args(["-cp", &install::driver_class_path()?, "io.varve.driver.Driver"]);
        java.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
        let mut child = process::spawn(java).context("start the driver")?;
        let requests = Mutex::new(child.stdin.take().context("the driver's input")?);
        let answers = BufReader::new(child.stdout.take().context("the driver's output")?);
        let waiting = Waiting::default();
        let asked = Arc::clone(&waiting);
        thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
                let id = answer["id"].as_u64().unwrap_or_default();
                let asker = asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(asker) = asker {
                    // An asker that is gone doesn't care.
                    drop(asker.send(answer));
                }
            }
            // No more answers: whoever waits learns it from the closed channel.
            asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        let driver = Self { child, requests, waiting, next_id: AtomicU64::new(1) };
        driver.call::<Value>(json!({"op": "ping"}))?;
        Ok(driver)
    }

    pub(crate) fn call<T: DeserializeOwned>(&self, mut request: Value) -> Result<T> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request["id"] = id.into();
        let (answer, wait) = channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        writeln!(self.requests.lock().unwrap_or_else(PoisonError::into_inner), "{request}")?;
        let limit = Duration::from_secs(600);
        let mut answer =
            wait.recv_timeout(limit).with_context(|| format!("the driver gave no answer to {request}"))?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{error}");
        }
        Ok(serde_json::from_value(answer["ok"].take())?)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Which offset to ask for.
#[derive(Clone, Copy, Debug)]
pub enum At {
    Earliest,
    Latest,
    EarliestLocal,
    LatestTiered,
    Timestamp(u64),
}

/// Records to produce; their content follows from the seed.
#[derive(Clone, Debug, Serialize)]
pub struct Produce {
    pub partition: u32,
    /// To so many partitions in turn, `partition` first. What is reported of offsets is of no use then.
    pub across: u32,
    pub count: u64,
    pub seed: u64,
    pub key_bytes: u32,
    pub value_bytes: u32,
    /// Words instead of random bytes: something for a codec to do.
    pub text: bool,
    pub compression: &'static str,
    pub headers: u32,
    /// Every n-th record has no value; 0 is none.
    pub tombstone_every: u64,
    /// Explicit timestamps from here on, in steps; none is the producer's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_from: Option<u64>,
    pub timestamp_step_ms: u64,
    pub batch_bytes: u32,
    /// 0 is as fast as it goes.
    pub records_per_second: u64,
    /// Without it, batches have no producer id.
    pub idempotent: bool,
}

impl Default for Produce {
    fn default() -> Self {
        Self {
            partition: 0,
            across: 1,
            count: 1000,
            seed: 1,
            key_bytes: 16,
            value_bytes: 1000,
            text: false,
            compression: "none",
            headers: 0,
            tombstone_every: 0,
            timestamp_from: None,
            timestamp_step_ms: 1,
            batch_bytes: 16_384,
            records_per_second: 0,
            idempotent: true,
        }
    }
}

/// Transactions of one producer, one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct Transactions {
    pub transactional_id: String,
    pub transactions: u32,
    pub records_per_transaction: u32,
    /// Every n-th is aborted; 0 is none.
    pub abort_every: u32,
    pub seed: u64,
    pub value_bytes: u32,
    pub partition: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Produced {
    pub count: u64,
    pub bytes: u64,
    pub first: i64,
    pub last: i64,
}

/// A range to read, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Consume {
    pub partition: u32,
    /// -1: the earliest.
    pub from: i64,
    /// Exclusive; -1: the end as it is at the start.
    pub to: i64,
    pub committed_only: bool,
    pub timeout_ms: u64,
    /// Whether the client checks batch checksums, which would hide corruption from the ledger.
    pub check_crcs: bool,
    pub fetch_bytes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_records: Option<u64>,
}

impl Default for Consume {
    fn default() -> Self {
        Self {
            partition: 0,
            from: -1,
            to: -1,
            committed_only: false,
            timeout_ms: 120_000,
            check_crcs: true,
            fetch_bytes: 1 << 20,
            max_records: None,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct Consumed {
    pub count: u64,
    pub bytes: u64,
    pub first: i64,
    pub last: i64,
    pub position: i64,
    pub end: i64,
    /// Whether the end was reached in time.
    pub complete: bool,
    pub digest: String,
    /// The same without offsets.
    pub content: String,
    /// How what was read differs from what was acknowledged.
    pub mismatch: Option<String>,
    /// The last error of a fetch, which the consumer may have overcome.
    pub error: Option<String>,
    pub elapsed_ms: u64,
}

impl Consumed {
    /// All of it was read, and it is what was acknowledged.
    pub fn is_whole(&self) -> Result<&Self> {
        self.is_true()?;
        ensure!(self.complete, "stopped at {} of {}: {:?}", self.position, self.end, self.error);
        Ok(self)
    }

    /// What was read, if not all of it, is what was acknowledged.
    pub fn is_true(&self) -> Result<&Self> {
        match &self.mismatch {
            None => Ok(self),
            Some(mismatch) => bail!("{mismatch} ({self:?})"),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct Expected {
    pub count: u64,
    pub first: i64,
    pub last: i64,
    pub digest: String,
    /// The first offset with a timestamp at or after the one asked for.
    pub offset_for_time: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct TopicInfo {
    pub topic_id: String,
    pub partitions: Vec<PartitionInfo>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PartitionInfo {
    /// -1: none.
    pub leader: i32,
    pub replicas: Vec<u32>,
    pub isr: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SegmentState {
    CopySegmentStarted,
    CopySegmentFinished,
    DeleteSegmentStarted,
    DeleteSegmentFinished,
}

/// A segment as `__remote_log_metadata` has it.
#[derive(Clone, Debug, Deserialize)]
pub struct TierSegment {
    pub id: String,
    pub topic_id: String,
    pub topic: String,
    pub partition: u32,
    pub base: u64,
    /// Inclusive.
    pub end: u64,
    pub size_bytes: u64,
    pub state: SegmentState,
    pub broker: u32,
    pub max_timestamp: i64,
}

impl TierSegment {
    /// Where its object must be, below the store's prefix.
    pub fn object_key(&self, cluster_id: &str) -> String {
        format!("{cluster_id}/{}/{}/{:020}-{}.varve", self.topic_id, self.partition, self.base, self.id)
    }
}

/// The driver, talking to one cluster.
#[derive(Clone, Debug)]
pub struct Client<'a> {
    driver: &'a Driver,
    bootstrap: String,
}

impl<'a> Client<'a> {
    pub(crate) fn new(driver: &'a Driver, bootstrap: String) -> Self {
        Self { driver, bootstrap }
    }

    fn call<T: DeserializeOwned>(&self, op: &str, arguments: impl Serialize) -> Result<T> {
        let mut request = serde_json::to_value(arguments)?;
        request["op"] = op.into();
        request["bootstrap"] = self.bootstrap.as_str().into();
        self.driver.call(request)
    }

    fn call_for<T: DeserializeOwned>(&self, op: &str, topic: &str, arguments: impl Serialize) -> Result<T> {
        let mut request = serde_json::to_value(arguments)?;
        request["topic"] = topic.into();
        self.call(op, request).with_context(|| format!("topic {topic}"))
    }

    /// Returns the topic's id.
    pub fn create_topic(
        &self,
        topic: &str,
        partitions: u32,
        replicas: u32,
        configs: &[(&str, &str)],
    ) -> Result<String> {
        let configs = object(configs);
        let created: Value = self.call_for(
            "create_topic",
            topic,
            json!({"partitions": partitions, "replicas": replicas, "configs": configs}),
        )?;
        Ok(created["topic_id"].as_str().context("no topic id")?.to_owned())
    }

    /// A topic whose closed segments leave the disk as soon as they are in the tier.
    pub fn create_tiered_topic(
        &self,
        topic: &str,
        replicas: u32,
        configs: &[(&str, &str)],
    ) -> Result<String> {
        let mut all = vec![
            ("remote.storage.enable", "true"),
            ("segment.bytes", "1048576"),
            ("local.retention.bytes", "1"),
            ("retention.ms", "-1"),
            ("file.delete.delay.ms", "100"),
        ];
        all.extend(configs);
        self.create_topic(topic, 1, replicas, &all)
    }

    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        self.call_for::<Value>("delete_topic", topic, json!({})).map(drop)
    }

    pub fn alter_topic(&self, topic: &str, configs: &[(&str, &str)]) -> Result<()> {
        self.call_for::<Value>("alter_topic", topic, json!({"configs": object(configs)})).map(drop)
    }

    pub fn describe_topic(&self, topic: &str) -> Result<TopicInfo> {
        self.call_for("describe_topic", topic, json!({}))
    }

    pub fn brokers(&self) -> Result<Vec<u32>> {
        let mut cluster: Value = self.call("describe_cluster", json!({}))?;
        Ok(serde_json::from_value(cluster["nodes"].take())?)
    }

    /// Returns the new log start.
    pub fn delete_records(&self, topic: &str, partition: u32, before: u64) -> Result<u64> {
        let done: Value =
            self.call_for("delete_records", topic, json!({"partition": partition, "before": before}))?;
        done["low_watermark"].as_u64().context("no low watermark")
    }

    /// -1 where there is none.
    pub fn offset(&self, topic: &str, partition: u32, at: At) -> Result<i64> {
        let at = match at {
            At::Earliest => "earliest".to_owned(),
            At::Latest => "latest".to_owned(),
            At::EarliestLocal => "earliest_local".to_owned(),
            At::LatestTiered => "latest_tiered".to_owned(),
            At::Timestamp(ms) => ms.to_string(),
        };
        let found: Value = self.call_for("list_offset", topic, json!({"partition": partition, "at": at}))?;
        found["offset"].as_i64().context("no offset")
    }

    pub fn move_leader(&self, topic: &str, partition: u32, to: u32) -> Result<()> {
        self.call_for::<Value>("move_leader", topic, json!({"partition": partition, "to": to})).map(drop)
    }

    pub fn produce(&self, topic: &str, produce: &Produce) -> Result<Produced> {
        let produced: Produced = self.call_for("produce", topic, produce)?;
        ensure!(produced.count == produce.count, "{} of {} acknowledged", produced.count, produce.count);
        Ok(produced)
    }

    pub fn produce_transactions(&self, topic: &str, transactions: &Transactions) -> Result<Produced> {
        self.call_for("produce_transactions", topic, transactions)
    }

    /// One transaction that nobody ends: of `transactions`, the number and the aborts don't count.
    pub fn open_transaction(&self, topic: &str, transactions: &Transactions) -> Result<Produced> {
        let mut open = serde_json::to_value(transactions)?;
        // The longest that brokers allow, so that none aborts it meanwhile.
        open["transaction_timeout_ms"] = 900_000.into();
        self.call_for("open_transaction", topic, open)
    }

    pub fn consume(&self, topic: &str, consume: &Consume) -> Result<Consumed> {
        self.call_for("consume", topic, consume)
    }

    /// Reads everything, and fails unless it is what was acknowledged.
    pub fn consume_all(&self, topic: &str) -> Result<Consumed> {
        let consumed = self.consume(topic, &Consume::default())?;
        consumed.is_whole().with_context(|| topic.to_owned())?;
        Ok(consumed)
    }

    /// What was acknowledged from `from` on.
    pub fn expected(&self, topic: &str, from: u64, timestamp: Option<u64>) -> Result<Expected> {
        self.call_for("ledger", topic, json!({"from": from, "timestamp": timestamp.unwrap_or(0)}))
    }

    /// A SCRAM user with this password; `mechanism` in Kafka's words. One at a time: Kafka can't take two for one
    /// user at once.
    pub fn set_scram_user(&self, user: &str, mechanism: &str, password: &str) -> Result<()> {
        let arguments = json!({"user": user, "mechanism": mechanism, "password": password});
        self.call::<Value>("set_scram_user", arguments).map(drop)
    }

    pub fn tier_segments(&self) -> Result<Vec<TierSegment>> {
        let mut all: Value = self.call("tier_segments", json!({}))?;
        Ok(serde_json::from_value(all["segments"].take())?)
    }

    /// The finished segments of one partition, by base offset.
    pub fn finished_segments(&self, topic: &str, partition: u32) -> Result<Vec<TierSegment>> {
        let mut found = self.tier_segments()?;
        found.retain(|segment| {
            segment.topic == topic
                && segment.partition == partition
                && segment.state == SegmentState::CopySegmentFinished
        });
        found.sort_by_key(|segment| segment.base);
        Ok(found)
    }
}

fn object(pairs: &[(&str, &str)]) -> Value {
    let mut object = Map::new();
    for (key, value) in pairs {
        object.insert((*key).to_owned(), (*value).into());
    }
    object.into()
}
