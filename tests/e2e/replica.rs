//! Stock brokers copy partitions that we lead: byte for byte, offsets, epochs and log starts included; and go on by
//! themselves once we have left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use varve_kafka::Id;
use varve_kafka::client::alter::NewTopic;
use varve_kafka::client::{Client, ClientConfig};
use varve_kafka::protocol::{Batches, LeaderEpochs};
use varve_kafka::replica::{
    Controller, Leader, LeaderOptions, ListenerSecurity, ReadError, ReplicaLog, RestoredPartition,
    RestoredTopic,
};
use varve_tests::{
    Cluster, KAFKA_VERSION, KAFKA_VERSIONS, Look, Produce, RawLog, Shared, Suite, TopicLogs, Transactions,
    eventually, plain_client, runtime, same_logs, writers_go_on,
};

const US: i32 = 999;
const TOPICS: [&str; 4] = ["plain", "transactional", "trimmed", "empty"];
/// Before, others' topics are placed on us, and are given back.
const CORDONED_FROM: &str = "4.3";
const OTHERS: &str = "of-others";
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn suite() -> Suite {
    let source = Shared::new(source);
    let mut suite = Suite::new();
    for version in KAFKA_VERSIONS {
        let name = format!("kafka_{version}_copies_byte_for_byte");
        suite = suite.test_with(&source, &name, move |logs| copied(logs, version, 1));
    }
    suite
        .test_with(&source, "three_brokers_copy_and_one_of_them_leads", |logs| copied(logs, KAFKA_VERSION, 3))
}

/// What a cluster had: several leader epochs, codecs, markers, aborted records, a log start within a batch.
fn source() -> Result<Vec<TopicLogs>> {
    let cluster = Cluster::builder().start()?;
    let kafka = cluster.client();
    for topic in TOPICS {
        kafka.create_topic(topic, 2, 1, &[("retention.ms", "-1")])?;
    }
    for (round, compression) in (0..).zip(["none", "zstd", "lz4"]) {
        if round > 0 {
            cluster.broker().restart()?;
        }
        for partition in 0..2 {
            let seed = round * 2 + u64::from(partition);
            let records =
                Produce { partition, seed, compression, count: 3000, headers: 2, ..Produce::default() };
            kafka.produce("plain", &records)?;
            kafka.produce("trimmed", &Produce { count: 500, ..records })?;
        }
        kafka.produce_transactions(
            "transactional",
            &Transactions {
                transactional_id: format!("t-{round}"),
                transactions: 20,
                records_per_transaction: 30,
                abort_every: 3,
                seed: round,
                value_bytes: 300,
                partition: 0,
            },
        )?;
    }
    kafka.delete_records("trimmed", 0, 333)?;
    kafka.delete_records("trimmed", 1, 1500)?;
    TopicLogs::read(&plain_client(&cluster.bootstrap())?, &TOPICS)
}

/// A log in memory.
#[derive(Debug)]
struct MemoryLog {
    raw: RawLog,
    base_offset: i64,
    /// Last offset of each batch, and where it ends.
    ends: Vec<(i64, usize)>,
    epochs: LeaderEpochs,
    last_producer_id: i64,
}

impl MemoryLog {
    fn new(raw: &RawLog) -> Result<Self> {
        let first = Batches::new(raw.batches.clone().into(), 0).next().transpose()?;
        let mut log = Self {
            raw: raw.clone(),
            base_offset: first.map_or(raw.start_offset, |batch| batch.header.base_offset),
            ends: Vec::new(),
            epochs: LeaderEpochs::default(),
            last_producer_id: -1,
        };
        let mut end = 0;
        for batch in Batches::new(raw.batches.clone().into(), 0) {
            let batch = batch?;
            end += batch.bytes.len();
            log.ends.push((batch.header.last_offset(), end));
            log.epochs.note(batch.header.partition_leader_epoch, batch.header.base_offset);
            log.last_producer_id = log.last_producer_id.max(batch.header.producer_id);
        }
        Ok(log)
    }
}

#[async_trait]
impl ReplicaLog for MemoryLog {
    fn start_offset(&self) -> i64 {
        self.raw.start_offset
    }

    fn base_offset(&self) -> i64 {
        self.base_offset
    }

    fn end_offset(&self) -> i64 {
        self.raw.end_offset
    }

    fn leader_epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    fn last_producer_id(&self) -> i64 {
        self.last_producer_id
    }

    async fn done(&self) {}

    async fn read(&self, offset: i64, max_bytes: usize) -> Result<Option<Vec<Bytes>>, ReadError> {
        let first = self.ends.partition_point(|(last, _)| *last < offset);
        let from = if first == 0 { 0 } else { self.ends[first - 1].1 };
        let fits = self.ends[first..].partition_point(|(_, end)| end - from <= max_bytes).max(1);
        let to = self.ends.get(first + fits - 1).map_or(from, |(_, end)| *end);
        Ok(Some(vec![Bytes::copy_from_slice(&self.raw.batches[from..to])]))
    }
}

/// A topic that somebody else makes: how many of its partitions are placed on us.
async fn others(client: &Client) -> Result<usize> {
    let topic =
        NewTopic { name: OTHERS.to_owned(), partitions: 16, replication_factor: 1, configs: BTreeMap::new() };
    client.create_topic(&topic).await?;
    let made = client.topic(OTHERS).await?;
    Ok(made.partitions.iter().filter(|p| p.replicas.contains(&US)).count())
}

fn copied(source: &[TopicLogs], version: &str, nodes: u32) -> Result<()> {
    let cluster = Cluster::builder().version(version).nodes(nodes).start()?;
    let ids: Vec<i32> = (1..=nodes.cast_signed()).collect();
    let mut topics = Vec::new();
    for logs in source {
        let mut partitions = Vec::new();
        for (number, raw) in &logs.logs {
            let log = MemoryLog::new(raw)?;
            // Each broker leads something.
            let mut replicas = ids.clone();
            replicas.rotate_left(*number as usize % ids.len());
            partitions.push(RestoredPartition { log: Arc::new(log), replicas });
        }
        let configs = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        topics.push(RestoredTopic { name: logs.topic.clone(), configs, partitions });
    }
    let client = plain_client(&cluster.bootstrap())?;
    let restored = runtime()?.block_on(async {
        let controllers = ClientConfig::from_pairs([("bootstrap.servers", cluster.controllers())])?;
        let options = LeaderOptions {
            broker_id: US,
            log_dir: Id(*b"varve replica 01"),
            listener_name: "PLAINTEXT".to_owned(),
            security: ListenerSecurity::plaintext(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertised_host: "127.0.0.1".to_owned(),
            patience: LIMIT,
            bytes_per_second: None,
            is_resumed: false,
        };
        let leader = Leader::register(client.clone(), Controller::new(controllers)?, options).await?;
        let copying = async {
            leader.create(topics).await?;
            leader.cordon().await?;
            let on_us = others(&client).await?;
            ensure!((on_us > 0) == (version < CORDONED_FROM), "{on_us} partitions of others are on us");
            let cycles = leader.raise_epochs().await?;
            leader.hand_over().await?;
            Ok::<_, anyhow::Error>((cycles, leader.progress().served_bytes))
        };
        let outcome = copying.await;
        leader.leave().await?;
        outcome
    });
    let (cycles, bytes) = restored.with_context(|| format!("see {:?}", cluster.logs()))?;
    ensure!(cycles > 0, "the source had several leader epochs");
    let expected: usize = source.iter().flat_map(|t| t.logs.values()).map(|log| log.batches.len()).sum();
    ensure!(bytes >= (expected * nodes as usize) as u64, "{bytes} bytes of {expected}");
    eventually("we are gone, and all have leaders", LIMIT, || {
        let metadata = runtime()?.block_on(client.metadata(None))?;
        let gone = metadata.brokers.iter().all(|broker| broker.node_id != US);
        let partitions = metadata.topics.iter().filter(|t| TOPICS.contains(&t.name.as_str()));
        let led = partitions.flat_map(|t| &t.partitions).all(|p| {
            let (mut replicas, mut isr) = (p.replicas.clone(), p.isr.clone());
            replicas.sort_unstable();
            isr.sort_unstable();
            p.leader_id.is_some_and(|id| id != US) && replicas == ids && isr == ids
        });
        Ok(Look::when(gone && led, (), format!("{metadata:?}")))
    })?;
    same_logs(source, &TopicLogs::read(&client, &TOPICS)?)?;
    writers_go_on(&cluster, source, &["plain", "trimmed", "empty"], "transactional")?;
    // What was copied stays, on whatever disk it is.
    if nodes == 1 {
        cluster.broker().restart()?;
    }
    let kept = TopicLogs::read(&client, &TOPICS)?;
    for (before, after) in source.iter().zip(&kept) {
        for (number, raw) in &before.logs {
            let after = &after.logs[number];
            ensure!(after.batches.starts_with(&raw.batches), "{}-{number} changed", before.topic);
        }
    }
    Ok(())
}
