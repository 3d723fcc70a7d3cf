//! The broker that we are while we restore.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, BrokerId, CreateTopicsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use uuid::Uuid;
use varve_format::Id;

use super::controller::Controller;
use super::heartbeat::{Registration, Want};
use super::led::{Led, LedState, Partitions};
use super::log::ReplicaLog;
use super::producer_ids;
use super::server::Server;
use crate::client::{Client, ClientError, HostPort, Result};

const BEAT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(200);
/// Partition epochs that are tried upward from the one that was counted.
const EPOCH_TRIES: u32 = 100;
const TIMEOUT_MS: i32 = 60_000;

/// Who we are to the cluster.
#[derive(Clone, Debug)]
pub struct LeaderOptions {
    /// One that no broker has.
    pub broker_id: i32,
    /// Of the same restore always the same: partitions remember it.
    pub log_dir: Id,
    /// The brokers' `inter.broker.listener.name`.
    pub listener_name: String,
    pub listen: SocketAddr,
    /// The host under which brokers reach us.
    pub advertised_host: String,
    /// Without any follower's progress.
    pub patience: Duration,
}

/// A topic that does not exist yet.
#[derive(Clone, Debug)]
pub struct RestoredTopic {
    pub name: String,
    pub configs: BTreeMap<String, String>,
    /// Of all numbers from 0 on.
    pub partitions: Vec<RestoredPartition>,
}

#[derive(Clone, Debug)]
pub struct RestoredPartition {
    pub log: Arc<dyn ReplicaLog>,
    /// Brokers that shall have it, the preferred leader first.
    pub replicas: Vec<i32>,
}

/// See the module. It must be told to [leave](Leader::leave): dropped, it stops answering, and the cluster has a broker
/// that is fenced after its session.
#[derive(Debug)]
pub struct Leader {
    registration: Arc<Registration>,
    client: Client,
    partitions: Arc<Partitions>,
    patience: Duration,
    /// Why the controller does not know us any more.
    lost: Arc<Mutex<Option<String>>>,
    beating: AbortHandle,
    _server: Server,
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

impl Leader {
    /// Registers, and waits until we count as alive.
    ///
    /// # Errors
    /// An id that is taken; a controller that can't be reached or refuses; a port that is taken.
    pub async fn register(client: Client, controller: Controller, options: LeaderOptions) -> Result<Self> {
        let metadata = client.metadata(Some(&[])).await?;
        if metadata.brokers.iter().any(|broker| broker.node_id == options.broker_id) {
            let what = format!("registering as broker {}, which there is", options.broker_id);
            return Err(ClientError::kafka(what, ResponseError::DuplicateBrokerRegistration));
        }
        let partitions = Arc::new(Partitions::default());
        let listening = Server::start(options.listen, Arc::clone(&partitions)).await;
        let (server, port) = listening
            .map_err(|source| ClientError::Connect { broker: options.listen.to_string(), source })?;
        let address = HostPort { host: options.advertised_host, port };
        let listener = (options.listener_name.as_str(), &address);
        let cluster_id = metadata.cluster_id.unwrap_or_default();
        let registering =
            Registration::register(controller, &cluster_id, options.broker_id, options.log_dir, listener);
        let registration = Arc::new(registering.await?);
        let lost = Arc::new(Mutex::new(None));
        let beating = tokio::spawn(beat(Arc::clone(&registration), Arc::clone(&lost))).abort_handle();
        let leader = Self {
            registration,
            client,
            partitions,
            patience: options.patience,
            lost,
            beating,
            _server: server,
        };
        let begun = Instant::now();
        while leader.registration.beat(Want::Live).await?.is_fenced {
            leader.check(begun, "it stays fenced")?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(leader)
    }

    /// Of record batches, to all followers.
    pub fn served_bytes(&self) -> u64 {
        self.partitions.served_bytes()
    }

    fn check(&self, since: Instant, what: &str) -> Result<()> {
        let what = match self.lost.lock().clone() {
            Some(lost) => lost,
            None if since.elapsed() > self.patience => what.to_owned(),
            None => return Ok(()),
        };
        Err(ClientError::NoLeader { what: format!("broker {}: {what}", self.registration.broker_id) })
    }

    /// Creates topics that we lead alone. Real brokers come in later: one that is there while we are empty would count
    /// as in sync.
    ///
    /// # Errors
    /// Of the controller, for the first topic that it refuses.
    pub async fn create(&self, topics: Vec<RestoredTopic>) -> Result<()> {
        let us = BrokerId(self.registration.broker_id);
        let creatable = |topic: &RestoredTopic| {
            let numbers = (0_i32..).zip(&topic.partitions);
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
                .with_assignments(numbers.map(assign).collect())
                .with_configs(topic.configs.iter().map(config).collect())
        };
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(creatable).collect())
            .with_timeout_ms(TIMEOUT_MS);
        let answer = self.registration.controller().call("creating topics", request, |_| 0).await?;
        let ids: BTreeMap<String, Uuid> =
            answer.topics.iter().map(|t| (t.name.0.to_string(), t.topic_id)).collect();
        for refused in answer.topics {
            if let Some(code) = ResponseError::try_from_code(refused.error_code) {
                let why = refused.error_message.unwrap_or_default();
                let what = format!("creating topic {:?} ({why})", refused.name.0.as_str());
                return Err(ClientError::kafka(what, code));
            }
        }
        for topic in topics {
            let Some(topic_id) = ids.get(&topic.name) else {
                return Err(ClientError::NoSuchTopic { topic: topic.name });
            };
            for (partition, restored) in (0_i32..).zip(topic.partitions) {
                self.partitions.add(Led {
                    topic: topic.name.clone(),
                    topic_id: Id(*topic_id.as_bytes()),
                    partition,
                    log: restored.log,
                    replicas: restored.replicas,
                    state: Mutex::new(LedState {
                        leader_epoch: 0,
                        partition_epoch: 0,
                        followers: BTreeMap::new(),
                        handed_over: false,
                    }),
                });
            }
        }
        Ok(())
    }

    /// Raises the leader epochs of all partitions that we lead to at least those of their logs: a follower drops batches
    /// of an epoch that its leader has not had (KAFKA-18723). How many times we went out and in for it.
    ///
    /// # Errors
    /// Of the controller.
    pub async fn raise_epochs(&self) -> Result<u32> {
        let led = self.partitions.all();
        let missing = |led: &Arc<Led>| {
            let last = led.log.leader_epochs().entries().last().map_or(0, |entry| entry.epoch);
            last.saturating_sub(led.state.lock().leader_epoch)
        };
        let cycles =
            u32::try_from(led.iter().map(missing).max().unwrap_or(0).max(0)).unwrap_or(0).div_ceil(2);
        for _ in 0..cycles {
            self.registration.cycle().await?;
            for led in &led {
                let mut state = led.state.lock();
                state.leader_epoch += 2;
                state.partition_epoch += 2;
            }
        }
        Ok(cycles)
    }

    /// Producer ids up to `last` are given out by no broker any more. How many blocks that took.
    ///
    /// # Errors
    /// Of the controller, or a broker.
    pub async fn pass_producer_ids(&self, last: i64) -> Result<u64> {
        producer_ids::pass(&self.registration, &self.client, last).await
    }

    /// Has the real brokers copy all partitions, and gives each over to them when they have all of it.
    ///
    /// # Errors
    /// Of the controller; followers that don't come further; when the controller has given us up.
    pub async fn hand_over(&self) -> Result<()> {
        self.reassign().await?;
        let (mut left, mut since) = (self.partitions.all(), Instant::now());
        let mut seen = self.standing(&left);
        loop {
            let mut ready = Vec::new();
            left.retain(|led| match led.caught_up() {
                Some(followers) => {
                    ready.push((Arc::clone(led), followers));
                    false
                }
                None => true,
            });
            for (led, followers) in ready {
                self.give(&led, &followers).await?;
                since = Instant::now();
            }
            let Some(first) = left.first() else { return Ok(()) };
            let now = self.standing(&left);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            self.check(since, &format!("no follower of {}-{} comes further", first.topic, first.partition))?;
            // A timeout means the same as a notification.
            let _ = tokio::time::timeout(LOOK, self.partitions.progress.notified()).await;
        }
    }

    fn standing(&self, led: &[Arc<Led>]) -> i64 {
        let of = |led: &Arc<Led>| led.state.lock().followers.values().map(|f| f.offset).sum::<i64>();
        led.iter().map(of).sum()
    }

    async fn reassign(&self) -> Result<()> {
        let mut topics: BTreeMap<String, Vec<ReassignablePartition>> = BTreeMap::new();
        let all = self.partitions.all();
        for led in &all {
            let replicas = led.replicas.iter().copied().map(BrokerId).collect();
            let partition = ReassignablePartition::default().with_partition_index(led.partition);
            topics.entry(led.topic.clone()).or_default().push(partition.with_replicas(Some(replicas)));
        }
        let topic = |(name, partitions): (String, Vec<ReassignablePartition>)| {
            ReassignableTopic::default().with_name(named(&name)).with_partitions(partitions)
        };
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(topics.into_iter().map(topic).collect());
        let controller = self.registration.controller();
        let answer = controller.call("reassigning partitions", request, |answer| answer.error_code).await?;
        for topic in &answer.responses {
            for partition in &topic.partitions {
                if let Some(code) = ResponseError::try_from_code(partition.error_code) {
                    let (name, number) = (topic.name.0.as_str(), partition.partition_index);
                    return Err(ClientError::kafka(format!("reassigning {name}-{number}"), code));
                }
            }
        }
        all.iter().for_each(|led| led.state.lock().partition_epoch += 1);
        Ok(())
    }

    /// Takes the followers into the ISR. The controller ends the reassignment with that, and one of them leads.
    async fn give(&self, led: &Led, followers: &[(i32, i64)]) -> Result<()> {
        let us = (self.registration.broker_id, self.registration.broker_epoch);
        let in_sync = |(id, epoch): (i32, i64)| {
            BrokerState::default().with_broker_id(BrokerId(id)).with_broker_epoch(epoch)
        };
        let what = format!("handing over {}-{}", led.topic, led.partition);
        for _ in 0..EPOCH_TRIES {
            let (leader_epoch, partition_epoch) = {
                let state = led.state.lock();
                (state.leader_epoch, state.partition_epoch)
            };
            let partition = PartitionData::default()
                .with_partition_index(led.partition)
                .with_leader_epoch(leader_epoch)
                .with_partition_epoch(partition_epoch)
                .with_new_isr_with_epochs(followers.iter().copied().chain([us]).map(in_sync).collect());
            let topic = TopicData::default()
                .with_topic_id(Uuid::from_bytes(led.topic_id.0))
                .with_partitions(vec![partition]);
            let request = AlterPartitionRequest::default()
                .with_broker_id(BrokerId(us.0))
                .with_broker_epoch(us.1)
                .with_topics(vec![topic]);
            let controller = self.registration.controller();
            let answer = controller.call(&what, request, |answer| answer.error_code).await?;
            let code = answer.topics.first().and_then(|t| t.partitions.first()).map_or(0, |p| p.error_code);
            match ResponseError::try_from_code(code) {
                None | Some(ResponseError::NewLeaderElected) => {
                    led.state.lock().handed_over = true;
                    return Ok(());
                }
                Some(ResponseError::InvalidUpdateVersion) => led.state.lock().partition_epoch += 1,
                Some(code) => return Err(ClientError::kafka(what, code)),
            }
        }
        Err(ClientError::kafka(what, ResponseError::InvalidUpdateVersion))
    }

    /// The cluster forgets us.
    ///
    /// # Errors
    /// Of the controller: then an administrator has to unregister our id.
    pub async fn leave(self) -> Result<()> {
        self.beating.abort();
        self.registration.unregister().await
    }
}

/// Keeps our session. It ends when the controller does not know us any more.
async fn beat(registration: Arc<Registration>, lost: Arc<Mutex<Option<String>>>) {
    loop {
        tokio::time::sleep(BEAT).await;
        match registration.beat(Want::Live).await {
            Ok(answer) if answer.is_fenced => tracing::warn!("the controller has us fenced"),
            Ok(_) => {}
            Err(error @ ClientError::Kafka { .. }) => {
                lost.lock().get_or_insert(error.to_string());
                return;
            }
            Err(error) => tracing::warn!(%error, "no heartbeat reached the controller"),
        }
    }
}

fn named(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
