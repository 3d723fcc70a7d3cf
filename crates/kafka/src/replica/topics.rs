//! Topics that we lead: made, found again, and given back where they are others'.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, CreateTopicsResponse};
use parking_lot::Mutex;
use varve_format::Id;

use super::leader::{Leader, RestoredPartition, RestoredTopic, TIMEOUT_MS};
use super::led::{Led, LedState};
use super::log::EmptyLog;
use crate::client::alter::creatable;
use crate::client::{ClientError, ClusterMetadata, PartitionMetadata, Result};

/// Of one request: the controller takes it as one record batch.
const PARTITIONS_AT_ONCE: usize = 2000;

impl Leader {
    /// Creates topics that we lead alone. Real brokers come in later: one that is there while we are empty would count
    /// as in sync. Their ids, by name.
    ///
    /// # Errors
    /// Of the controller, for the first topic that it refuses.
    pub async fn create(&self, topics: Vec<RestoredTopic>) -> Result<BTreeMap<String, Id>> {
        let mut ids = BTreeMap::new();
        let mut left = topics.into_iter().peekable();
        while left.peek().is_some() {
            let (mut some, mut partitions) = (Vec::new(), 0_usize);
            while let Some(topic) = left.next_if(|topic| some_fit(partitions, topic.partitions.len())) {
                partitions += topic.partitions.len();
                some.push(topic);
            }
            self.create_some(some, &mut ids).await?;
        }
        Ok(ids)
    }

    async fn create_some(&self, topics: Vec<RestoredTopic>, ids: &mut BTreeMap<String, Id>) -> Result<()> {
        let us = BrokerId(self.broker_id());
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(|topic| led_by_us(topic, us)).collect())
            .with_timeout_ms(TIMEOUT_MS);
        let answer = self.controller().call("creating topics", request, moved).await?;
        for made in answer.topics {
            if let Some(code) = ResponseError::try_from_code(made.error_code) {
                let why = made.error_message.unwrap_or_default();
                let what = format!("creating topic {:?} ({why})", made.name.0.as_str());
                return Err(ClientError::kafka(what, code));
            }
            ids.insert(made.name.0.to_string(), Id(*made.topic_id.as_bytes()));
        }
        for topic in topics {
            let Some(topic_id) = ids.get(&topic.name) else {
                return Err(ClientError::NoSuchTopic { topic: topic.name });
            };
            for (partition, restored) in (0_i32..).zip(topic.partitions) {
                self.lead(&topic.name, *topic_id, partition, restored, 0, Origin::New);
            }
        }
        Ok(())
    }

    /// Takes up again what an earlier registration of ours began: those partitions of which we are a replica still.
    /// The others were handed over. How many were.
    ///
    /// # Errors
    /// Of the cluster; a topic that is not there, or is another than the one with the id that is given.
    pub async fn adopt(&self, topic: RestoredTopic, topic_id: Id) -> Result<usize> {
        let found = self.client.topic(&topic.name).await?;
        if found.topic_id != topic_id {
            return Err(ClientError::NoSuchTopic { topic: format!("{} with id {topic_id}", topic.name) });
        }
        if found.partitions.len() != topic.partitions.len() {
            let what = format!("topic {}", topic.name);
            let detail =
                format!("expected {} partitions, found {}", topic.partitions.len(), found.partitions.len());
            return Err(ClientError::Log { what, detail });
        }
        let mut done = 0;
        for ((partition, restored), known) in (0_i32..).zip(topic.partitions).zip(&found.partitions) {
            if known.replicas.contains(&self.broker_id()) {
                self.lead(&topic.name, topic_id, partition, restored, known.leader_epoch, Origin::Adopted);
            } else {
                done += 1;
            }
        }
        Ok(done)
    }

    fn lead(
        &self,
        topic: &str,
        topic_id: Id,
        partition: i32,
        restored: RestoredPartition,
        leader_epoch: i32,
        origin: Origin,
    ) {
        self.partitions.add(Led {
            topic: topic.to_owned(),
            topic_id,
            partition,
            log: restored.log,
            replicas: restored.replicas,
            is_new: origin == Origin::New,
            is_foreign: origin == Origin::Foreign,
            state: Mutex::new(LedState {
                leader_epoch,
                // It never falls behind the leader epoch.
                partition_epoch: leader_epoch,
                followers: BTreeMap::new(),
                handed_over: false,
            }),
        });
    }

    /// Leader epochs as the cluster has them now, of all that we lead.
    pub(super) async fn read_epochs(&self) -> Result<()> {
        let metadata = self.client.metadata(None).await?;
        for topic in &metadata.topics {
            for found in &topic.partitions {
                let Some(led) = self.partitions.find(topic.topic_id, found.partition) else { continue };
                let mut state = led.state.lock();
                let raised = found.leader_epoch.saturating_sub(state.leader_epoch);
                if raised > 0 {
                    state.leader_epoch = found.leader_epoch;
                    state.partition_epoch += raised;
                }
            }
        }
        Ok(())
    }

    /// Partitions that others have made meanwhile, and that the controller placed on us: they go to brokers that can
    /// keep them. How many were not known before.
    ///
    /// # Errors
    /// Of the cluster. A partition that can't be moved now is tried again the next time.
    pub(super) async fn give_back(&self) -> Result<usize> {
        let (metadata, us) = (self.client.metadata(None).await?, self.broker_id());
        let mut on_us = HashSet::new();
        let mut new = 0;
        for topic in &metadata.topics {
            for partition in topic.partitions.iter().filter(|p| p.replicas.contains(&us)) {
                on_us.insert((topic.topic_id, partition.partition));
                if self.partitions.find(topic.topic_id, partition.partition).is_some() {
                    continue;
                }
                let replicas = without_us(&metadata, partition, us);
                if replicas.is_empty() {
                    continue;
                }
                new += 1;
                let name = format!("{}-{}", topic.name, partition.partition);
                let moved = vec![(topic.name.clone(), partition.partition, replicas.clone())];
                match self.reassign_some(moved).await {
                    Ok(()) => {
                        tracing::warn!(
                            partition = name,
                            "somebody's new topic was placed on us: it goes to others"
                        );
                    }
                    Err(error) => {
                        tracing::warn!(partition = name, %error, "placed on us, and can't be moved yet");
                        continue;
                    }
                }
                let restored = RestoredPartition { log: Arc::new(EmptyLog::default()), replicas };
                let epoch = partition.leader_epoch;
                self.lead(&topic.name, topic.topic_id, partition.partition, restored, epoch, Origin::Foreign);
            }
        }
        for led in self.partitions.all().into_iter().filter(|led| led.is_foreign) {
            if !on_us.contains(&(led.topic_id, led.partition)) {
                led.state.lock().handed_over = true;
            }
        }
        Ok(new)
    }
}

/// Whose a partition is that we lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    New,
    /// Of an earlier registration of ours.
    Adopted,
    Foreign,
}

/// Each topic's answer has a code of its own: this one means that none was looked at.
fn moved(answer: &CreateTopicsResponse) -> i16 {
    let moved = ResponseError::NotController.code();
    if answer.topics.iter().any(|topic| topic.error_code == moved) { moved } else { 0 }
}

fn some_fit(held: usize, more: usize) -> bool {
    held == 0 || held.saturating_add(more) <= PARTITIONS_AT_ONCE
}

fn led_by_us(topic: &RestoredTopic, us: BrokerId) -> CreatableTopic {
    let assign = |(number, _)| {
        CreatableReplicaAssignment::default().with_partition_index(number).with_broker_ids(vec![us])
    };
    creatable(&topic.name, &topic.configs)
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments((0_i32..).zip(&topic.partitions).map(assign).collect())
}

/// As many replicas as it has, on others: those that it has already first.
fn without_us(metadata: &ClusterMetadata, partition: &PartitionMetadata, us: i32) -> Vec<i32> {
    let wanted = partition.replicas.len();
    let mut replicas: Vec<i32> = partition.replicas.iter().copied().filter(|id| *id != us).collect();
    let known: BTreeSet<i32> = metadata.brokers.iter().map(|b| b.node_id).filter(|id| *id != us).collect();
    let others: Vec<i32> = known.into_iter().filter(|id| !replicas.contains(id)).collect();
    // Not always the same ones.
    let from = (partition.partition.unsigned_abs() as usize).checked_rem(others.len()).unwrap_or(0);
    replicas.extend(others.iter().cycle().skip(from).take(others.len()));
    replicas.truncate(wanted);
    replicas
}
