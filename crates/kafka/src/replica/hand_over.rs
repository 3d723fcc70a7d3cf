//! How partitions get from us to the real brokers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionRequest, BrokerId};
use uuid::Uuid;

use super::leader::{Leader, TIMEOUT_MS, named};
use super::led::Led;
use super::producer_ids;
use crate::client::{ClientError, Result};

const LOOK: Duration = Duration::from_millis(200);
/// What others have on us at the end is waited for so long.
const FOREIGN: Duration = Duration::from_secs(30);
/// The same where something went wrong, or somebody waits.
const BACK: Duration = Duration::from_secs(10);
/// Topics of others are looked for so often.
const WATCH: Duration = Duration::from_secs(2);
/// Partition epochs that are tried upward from the one that was counted.
const EPOCH_TRIES: u32 = 100;
const REASSIGNED_AT_ONCE: usize = 2000;

impl Leader {
    /// Has the real brokers copy all partitions, and gives each over to them when they have all of it. Producer ids of
    /// the logs are used up before.
    ///
    /// # Errors
    /// Of the controller; followers that don't come further; when the controller has given us up; a log that does not
    /// hold.
    pub async fn hand_over(&self) -> Result<()> {
        let all = self.partitions.all();
        self.partitions.entrance.open();
        let targets = all.iter().map(|led| (led.topic.clone(), led.partition, led.replicas.clone()));
        self.reassign_some(targets.collect()).await?;
        all.iter().filter(|led| led.is_new).for_each(|led| led.state.lock().partition_epoch += 1);
        let begun = Instant::now();
        loop {
            self.follow().await?;
            if self.is_left_alone().await? {
                return Ok(());
            }
            if begun.elapsed() >= self.patience {
                tracing::warn!("topics of others are placed on us again and again: some may stay");
                return Ok(());
            }
        }
    }

    /// Until the followers have all of what we lead, and it is theirs.
    async fn follow(&self) -> Result<()> {
        let (mut since, mut seen) = (Instant::now(), 0);
        let mut watched = Instant::now();
        loop {
            if let Some(failure) = self.partitions.failure.lock().clone() {
                return Err(failure.into());
            }
            if self.partitions.stale.swap(false, Ordering::Relaxed) {
                self.read_epochs().await?;
            }
            if watched.elapsed() >= WATCH {
                self.give_back().await?;
                watched = Instant::now();
            }
            let (mut left, mut ready) = (Vec::new(), Vec::new());
            for led in self.partitions.all().into_iter().filter(|led| !led.state.lock().handed_over) {
                match led.caught_up() {
                    Some(followers) => ready.push((led, followers)),
                    None => left.push(led),
                }
            }
            let last_id = ready.iter().map(|(led, _)| led.log.last_producer_id()).max();
            self.pass_producer_ids(last_id.unwrap_or(-1)).await?;
            for (led, followers) in ready {
                self.give(&led, &followers).await?;
                led.log.done().await;
                since = Instant::now();
            }
            let Some(first) = left.iter().find(|led| !led.is_foreign) else {
                // Ours are done: what others have on us meanwhile must not stay.
                let is_new = self.give_back().await? > 0;
                if (left.is_empty() && !is_new) || since.elapsed() >= FOREIGN {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let now = standing(&left);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if let Some(detail) = self.partitions.entrance.is_shut(Instant::now()) {
                return Err(ClientError::NotReached { detail });
            }
            let refused = self.partitions.entrance.last_refused();
            let refused = refused.map_or_else(String::new, |why| format!(" (not let in: {why})"));
            let what = format!("no follower of {}-{} comes further{refused}", first.topic, first.partition);
            self.check(since, &what)?;
            // A timeout means the same as a notification.
            let _ = tokio::time::timeout(LOOK, self.partitions.progress.notified()).await;
        }
    }

    /// For an end before the end: what others have on us goes to brokers that stay. It takes some seconds at most.
    ///
    /// # Errors
    /// Of the controller.
    pub async fn hand_back(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.partitions.stale.swap(false, Ordering::Relaxed) {
                self.read_epochs().await?;
            }
            let is_new = self.give_back().await? > 0;
            let mut left = self.partitions.all();
            left.retain(|led| led.is_foreign && !led.state.lock().handed_over);
            if (left.is_empty() && !is_new) || begun.elapsed() >= BACK {
                return Ok(());
            }
            for led in &left {
                if let Some(followers) = led.caught_up() {
                    self.give(led, &followers).await?;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Fenced, we are given no topics of others any more. Whether none is on us then; if one is, we are alive again.
    async fn is_left_alone(&self) -> Result<bool> {
        self.registration.rest(true).await?;
        let (begun, us) = (Instant::now(), self.broker_id());
        // A broker that knows us fenced knows of all that was placed on us before.
        let metadata = loop {
            match self.client.metadata_without(us).await? {
                Some(metadata) => break metadata,
                None if begun.elapsed() >= FOREIGN => break self.client.metadata(None).await?,
                None => tokio::time::sleep(LOOK / 4).await,
            }
        };
        let mut partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        if !partitions.any(|partition| partition.replicas.contains(&us)) {
            return Ok(true);
        }
        self.registration.rest(false).await?;
        self.partitions.stale.store(true, Ordering::Relaxed);
        Ok(false)
    }

    /// Producer ids up to `last` are given out by no broker any more.
    async fn pass_producer_ids(&self, last: i64) -> Result<()> {
        if last <= self.passed_producer_id.load(Ordering::Relaxed) {
            return Ok(());
        }
        producer_ids::pass(&self.registration, &self.client, last).await?;
        self.passed_producer_id.store(last, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn reassign_some(&self, all: Vec<(String, i32, Vec<i32>)>) -> Result<()> {
        for some in all.chunks(REASSIGNED_AT_ONCE) {
            let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
            for (topic, partition, replicas) in some {
                let replicas = replicas.iter().copied().map(BrokerId).collect();
                let partition = ReassignablePartition::default().with_partition_index(*partition);
                topics.entry(topic).or_default().push(partition.with_replicas(Some(replicas)));
            }
            let topic = |(name, partitions): (&str, Vec<ReassignablePartition>)| {
                ReassignableTopic::default().with_name(named(name)).with_partitions(partitions)
            };
            let request = AlterPartitionReassignmentsRequest::default()
                .with_timeout_ms(TIMEOUT_MS)
                .with_topics(topics.into_iter().map(topic).collect());
            let answer =
                self.controller().call("reassigning partitions", request, |answer| answer.error_code).await?;
            for topic in &answer.responses {
                for partition in &topic.partitions {
                    if let Some(code) = ResponseError::try_from_code(partition.error_code) {
                        let (name, number) = (topic.name.0.as_str(), partition.partition_index);
                        return Err(ClientError::kafka(format!("reassigning {name}-{number}"), code));
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the followers into the ISR. The controller ends the reassignment with that, and one of them leads.
    async fn give(&self, led: &Arc<Led>, followers: &[(i32, i64)]) -> Result<()> {
        let us = (self.broker_id(), self.registration.broker_epoch());
        let in_sync = |(id, epoch): (i32, i64)| {
            BrokerState::default().with_broker_id(BrokerId(id)).with_broker_epoch(epoch)
        };
        let what = format!("handing over {}-{}", led.topic, led.partition);
        let mut last = ResponseError::InvalidUpdateVersion;
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
            let answer = self.controller().call(&what, request, |answer| answer.error_code).await?;
            let code = answer.topics.first().and_then(|t| t.partitions.first()).map_or(0, |p| p.error_code);
            match ResponseError::try_from_code(code) {
                None | Some(ResponseError::NewLeaderElected) => {
                    led.state.lock().handed_over = true;
                    return Ok(());
                }
                Some(ResponseError::InvalidUpdateVersion) => led.state.lock().partition_epoch += 1,
                // It was raised by others: a broker that came or went.
                Some(ResponseError::FencedLeaderEpoch) => {
                    tokio::time::sleep(LOOK).await;
                    self.read_epochs().await?;
                }
                // It was done, and the answer was lost. Brokers may hear of it a moment later.
                Some(ResponseError::InvalidRequest) => {
                    if self.is_given(led).await? {
                        led.state.lock().handed_over = true;
                        return Ok(());
                    }
                    last = ResponseError::InvalidRequest;
                    tokio::time::sleep(LOOK).await;
                }
                // A follower was fenced, or registered anew: it fetches again.
                Some(ResponseError::IneligibleReplica) => {
                    led.state.lock().followers.clear();
                    return Ok(());
                }
                Some(code) => return Err(ClientError::kafka(what, code)),
            }
        }
        Err(ClientError::kafka(what, last))
    }

    /// Whether the cluster says that we have nothing to do with it any more.
    async fn is_given(&self, led: &Led) -> Result<bool> {
        let found = self.client.topic(&led.topic).await?;
        let partition = found.partitions.iter().find(|p| p.partition == led.partition);
        Ok(found.topic_id == led.topic_id
            && partition.is_some_and(|p| p.leader_id.is_some() && !p.replicas.contains(&self.broker_id())))
    }
}

fn standing(led: &[Arc<Led>]) -> i64 {
    let of = |led: &Arc<Led>| led.state.lock().followers.values().map(|f| f.offset).sum::<i64>();
    led.iter().map(of).fold(0, i64::wrapping_add)
}
