//! Topics that we lead: made, found again, and given back where they are others'.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use varve_format::Id;

use super::leader::{Leader, RestoredPartition, RestoredTopic, TIMEOUT_MS, named};
use super::led::{Led, LedState};
use super::log::EmptyLog;
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
            .with_topics(topics.iter().map(|topic| creatable(topic, us)).collect())
            .with_timeout_ms(TIMEOUT_MS);
        let answer = self.controller().call("creating topics", request, |_| 0).await?;
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
                self.lead(&topic.name, *topic_id, partition, restored, 0, true);
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
        let mut done = 0;
        for (partition, restored) in (0_i32..).zip(topic.partitions) {
            let known = found.partitions.iter().find(|p| p.partition == partition);
            match known.filter(|known| known.replicas.contains(&self.broker_id())) {
                Some(known) => {
                    self.lead(&topic.name, topic_id, partition, restored, known.leader_epoch, false);
                }
                None => done += 1,
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
        is_new: bool,
    ) {
        self.partitions.add(Led {
            topic: topic.to_owned(),
            topic_id,
            partition,
            log: restored.log,
            replicas: restored.replicas,
            is_new,
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
    /// keep them. Their names.
    ///
    /// # Errors
    /// Of the controller.
    pub async fn give_back(&self) -> Result<Vec<String>> {
        let metadata = self.client.metadata(None).await?;
        let foreign: Vec<(String, Id, &PartitionMetadata)> = metadata
            .topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| (t.name.clone(), t.topic_id, p)))
            .filter(|(_, id, p)| {
                p.replicas.contains(&self.broker_id()) && self.partitions.find(*id, p.partition).is_none()
            })
            .collect();
        let mut names = Vec::new();
        for (topic, topic_id, partition) in foreign {
            let replicas = without_us(&metadata, partition, self.broker_id());
            if replicas.is_empty() {
                continue;
            }
            names.push(format!("{topic}-{}", partition.partition));
            let log = Arc::new(EmptyLog::default());
            let restored = RestoredPartition { log, replicas: replicas.clone() };
            self.lead(&topic, topic_id, partition.partition, restored, partition.leader_epoch, false);
            self.reassign_some(vec![(topic, partition.partition, replicas)]).await?;
        }
        Ok(names)
    }
}

fn some_fit(held: usize, more: usize) -> bool {
    held == 0 || held.saturating_add(more) <= PARTITIONS_AT_ONCE
}

fn creatable(topic: &RestoredTopic, us: BrokerId) -> CreatableTopic {
    let assign = |(number, _)| {
        CreatableReplicaAssignment::default().with_partition_index(number).with_broker_ids(vec![us])
    };
    let config = |(name, value): (&String, &String)| {
        let name = StrBytes::from_string(name.clone());
        let value = Some(StrBytes::from_string(value.clone()));
        CreatableTopicConfig::default().with_name(name).with_value(value)
    };
    CreatableTopic::default()
        .with_name(named(&topic.name))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments((0_i32..).zip(&topic.partitions).map(assign).collect())
        .with_configs(topic.configs.iter().map(config).collect())
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
