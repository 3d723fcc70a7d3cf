//! Doing what a plan says.
//!
//! Order: the Schema Registry; the internal topics; we register as a broker; the topics, led by us alone; leader epochs; the real brokers
//! copy, and each partition is handed over when they have all of it; we leave; ACLs, quotas, configs and users are
//! added; transactions that are open at the cut are aborted; groups are committed and read back. Whatever ends it
//! early, we leave the cluster too.
//!
//! What was done stands beside the plan. An apply of the same plan goes on behind it, also after a crash: topics that
//! are there are known by their ids, partitions that we are still a replica of are led again, the others are done.

mod cleanup;
mod groups;
mod journal;
pub(crate) mod produce;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use varve_archive::{JournalView, LogReader};
use varve_cluster::SchemaRegistry;
use varve_format::Id;
use varve_kafka::client::admin::TopicPartition;
use varve_kafka::client::alter::OpenProducer;
use varve_kafka::client::{Client, ClientConfig, ClientError, Secret};
use varve_kafka::protocol::LeaderEpochs;
use varve_kafka::replica::{
    Controller, Leader, LeaderOptions, LeaderProgress, RestoredPartition, RestoredTopic, unregister,
};

use crate::error::{Error, Result};
use crate::history::KeyCache;
use crate::log::{ArchiveLog, Budget, Facts, ProducerIds};
use crate::plan::{Plan, PlannedPartition, PlannedTopic, Reach};
use crate::schemas::Restored;
use crate::source::Source;
use journal::{Done, Journal};

pub use cleanup::{Cleaned, cleanup};
pub use groups::GroupOutcome;
pub(crate) use groups::differs as groups_differ;
pub use schemas::{put_modes_back, schemas};

/// Topics that are made together, before it is written down.
const CREATED_AT_ONCE: usize = 50;
const LOOK: Duration = Duration::from_millis(500);
/// For the real brokers to lead what was handed over.
const LED: Duration = Duration::from_secs(60);

/// How it is done.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// Where brokers connect to us: the address that we listen at, and what they are told.
    pub listen: SocketAddr,
    pub reach: Reach,
    /// For what is read of the archive.
    pub memory_bytes: u64,
    /// To all brokers together.
    pub bytes_per_second: Option<u64>,
    /// Of SCRAM users, by name: those of the plan that have none here are not made.
    pub passwords: BTreeMap<String, Secret>,
    /// Without any broker's progress.
    pub patience: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Apply<'a> {
    pub plan: &'a Plan,
    /// Its file: beside it stands what was done.
    pub plan_file: &'a Path,
    pub source: &'a Source,
    pub keys: &'a Arc<KeyCache>,
    pub client: &'a Client,
    pub controllers: ClientConfig,
    pub options: ApplyOptions,
    /// The target's, of a plan with schemas.
    pub registry: Option<&'a SchemaRegistry>,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Schemas,
    Creating,
    RaisingEpochs,
    Copying(LeaderProgress),
    /// ACLs, quotas, configs.
    Rest,
    Groups,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub is_resumed: bool,
    pub served_bytes: u64,
    pub epoch_cycles: u32,
    /// From the reassignment until all was handed over.
    pub copying: Duration,
    /// Partitions that an earlier apply had handed over.
    pub done_before: usize,
    pub aborted_transactions: usize,
    pub groups: Vec<GroupOutcome>,
    /// Of a plan with schemas.
    pub schemas: Option<Restored>,
    /// What should be known of it.
    pub notes: Vec<String>,
}

impl Apply<'_> {
    /// Until all is done, or `stop` is. Then it is an error, and the cluster is left all the same.
    ///
    /// # Errors
    /// Of archive, target and plan.
    pub async fn run(
        &self,
        stop: impl Future<Output = ()>,
        told: &(dyn Fn(Stage) + Sync),
    ) -> Result<Applied> {
        self.check().await?;
        let (journal, done) = Journal::open(Journal::path(self.plan_file))?;
        let journal = Arc::new(journal);
        let mut applied = Applied { is_resumed: !done.topics.is_empty(), ..Applied::default() };
        tokio::pin!(stop);
        applied.schemas = self.schemas(&journal, &done, stop.as_mut(), told).await?;
        if self.plan.is_produced() {
            until(stop.as_mut(), self.produce(&journal, &done, &mut applied, told)).await?;
            return Ok(applied);
        }
        let leader = tokio::select! {
            leader = self.leader(&done, &mut applied) => leader?,
            () = &mut stop => {
                // It may have come as far as registering.
                self.unregister().await?;
                return Err(stopped());
            }
        };
        if let Some(leader) = leader {
            let leading = self.lead(&leader, &journal, &done, &mut applied, told);
            let outcome = until(stop.as_mut(), leading).await;
            applied.served_bytes = leader.progress().served_bytes;
            leave(leader, outcome).await?;
            until(stop.as_mut(), self.led()).await?;
        }
        until(stop.as_mut(), self.behind(&journal, &done, &mut applied, told)).await?;
        Ok(applied)
    }

    /// `None` if all was handed over before.
    async fn leader(&self, done: &Done, applied: &mut Applied) -> Result<Option<Leader>> {
        if !self.left(done).await? {
            applied.done_before = self.plan.partitions().count();
            // An earlier apply may have ended just before.
            self.unregister().await?;
            return Ok(None);
        }
        self.options.reach.check(self.client, &self.plan.target).await?;
        self.client.make_internal_topics().await?;
        Ok(Some(self.register(done).await?))
    }

    /// What comes when the logs are there.
    async fn behind(
        &self,
        journal: &Journal,
        done: &Done,
        applied: &mut Applied,
        told: &(dyn Fn(Stage) + Sync),
    ) -> Result<()> {
        told(Stage::Rest);
        if !done.rest {
            self.plan.rest.apply(self.client, &self.options.passwords).await?;
            journal.rest()?;
        }
        told(Stage::Groups);
        for (topic, partition) in self.plan.partitions() {
            applied.aborted_transactions += self.abort(topic, partition, done, journal).await?;
        }
        applied.groups = groups::commit(self.client, self.plan, done, journal).await?;
        Ok(())
    }

    /// Of an id that the cluster does not know this is nothing.
    async fn unregister(&self) -> Result<()> {
        let controller = Controller::new(self.controllers.clone())?;
        Ok(unregister(&controller, self.plan.target.broker_id).await?)
    }

    /// That the plan is of this archive and this target.
    async fn check(&self) -> Result<()> {
        let (plan, source) = (self.plan, self.source);
        if let Some(refusal) = plan.refusals.first() {
            return Err(Error::refused(&refusal.what, &refusal.todo));
        }
        let found = (source.archive.id().to_string(), source.snapshot.hash.to_string());
        if found != (plan.archive.archive_id.clone(), plan.archive.snapshot_hash.clone()) {
            let expected = format!("archive {}, {}", plan.archive.archive_id, plan.archive.snapshot_hash);
            return Err(Error::unexpected(
                "the plan's archive",
                expected,
                format!("{}, {}", found.0, found.1),
            ));
        }
        let cluster_id = self.client.describe_cluster().await?.cluster_id;
        if cluster_id != plan.target.cluster_id {
            return Err(Error::unexpected("the plan's target", &plan.target.cluster_id, cluster_id));
        }
        Ok(())
    }

    fn restore_id(&self) -> Result<Id> {
        Id::parse(&self.plan.restore_id)
            .map_err(|_| Error::unexpected("the plan's restore_id", "an id", &self.plan.restore_id))
    }

    /// Whether any partition is not handed over yet.
    async fn left(&self, done: &Done) -> Result<bool> {
        if self.plan.topics.iter().any(|topic| !done.topics.contains_key(&topic.target)) {
            return Ok(true);
        }
        let us = self.plan.target.broker_id;
        let metadata = self.client.metadata(None).await?;
        let ours = metadata.topics.iter().filter(|t| done.topics.get(&t.name) == Some(&t.topic_id));
        let ours: Vec<_> = ours.collect();
        if ours.len() < self.plan.topics.len() {
            let missing = self.plan.topics.iter().find(|t| !ours.iter().any(|o| o.name == t.target));
            let what =
                format!("topic {} was made by this restore, and is gone", missing.map_or("", |t| &t.target));
            return Err(Error::refused(
                what,
                "plan a new restore; varve restore cleanup removes what is left of this one",
            ));
        }
        Ok(ours.iter().flat_map(|t| &t.partitions).any(|p| p.replicas.contains(&us)))
    }

    async fn register(&self, done: &Done) -> Result<Leader> {
        let options = LeaderOptions {
            broker_id: self.plan.target.broker_id,
            log_dir: self.restore_id()?,
            listener_name: self.plan.target.listener_name.clone(),
            security: self.options.reach.security(&self.plan.target)?,
            listen: self.options.listen,
            advertised_host: self.options.reach.advertised_host.clone(),
            patience: self.options.patience,
            bytes_per_second: self.options.bytes_per_second,
            // A crash may have come before the first line was written.
            is_resumed: !done.topics.is_empty() || self.ours_is_there().await?,
        };
        let controller = Controller::new(self.controllers.clone())?;
        Ok(Leader::register(self.client.clone(), controller, options).await?)
    }

    async fn ours_is_there(&self) -> Result<bool> {
        let metadata = self.client.metadata(None).await?;
        let planned = |name: &str| self.plan.topics.iter().any(|t| t.target == name);
        let mut partitions = metadata.topics.iter().filter(|t| planned(&t.name)).flat_map(|t| &t.partitions);
        Ok(partitions.any(|p| p.replicas.contains(&self.plan.target.broker_id)))
    }

    async fn lead(
        &self,
        leader: &Leader,
        journal: &Arc<Journal>,
        done: &Done,
        applied: &mut Applied,
        told: &(dyn Fn(Stage) + Sync),
    ) -> Result<()> {
        told(Stage::Creating);
        let (reader, view) = self.source.reader().await?;
        let budget = Budget::new(self.options.memory_bytes);
        let kept = Arc::clone(journal);
        let ids = Arc::new(ProducerIds::new(done.last_producer_id, move |last| kept.producer_ids(last)));
        let logs = Logs { apply: self, reader: &reader, journal: &view, budget: &budget, ids: &ids };
        let unknown = self.made_before_a_crash(done).await?;
        let mut new = Vec::new();
        for topic in &self.plan.topics {
            let restored = logs.topic(topic)?;
            match done.topics.get(&topic.target).or_else(|| unknown.get(&topic.target)) {
                Some(id) => {
                    applied.done_before += leader.adopt(restored, *id).await?;
                    if !done.topics.contains_key(&topic.target) {
                        journal.topic(&topic.target, *id)?;
                    }
                }
                None => new.push(restored),
            }
            if new.len() == CREATED_AT_ONCE {
                create(leader, std::mem::take(&mut new), journal).await?;
            }
        }
        create(leader, new, journal).await?;
        leader.cordon().await?;
        told(Stage::RaisingEpochs);
        applied.epoch_cycles = leader.raise_epochs().await?;
        let begun = Instant::now();
        let copying = leader.hand_over();
        tokio::pin!(copying);
        loop {
            told(Stage::Copying(leader.progress()));
            match tokio::time::timeout(LOOK, &mut copying).await {
                Ok(outcome) => {
                    applied.copying = begun.elapsed();
                    return Ok(outcome?);
                }
                Err(_) => continue,
            }
        }
    }

    /// Topics that were made and not written down: all of their partitions are on us alone.
    async fn made_before_a_crash(&self, done: &Done) -> Result<BTreeMap<String, Id>> {
        let us = self.plan.target.broker_id;
        let wanted: BTreeMap<&str, usize> =
            self.plan.topics.iter().map(|t| (t.target.as_str(), t.partitions.len())).collect();
        let metadata = self.client.metadata(None).await?;
        let ours = metadata.topics.into_iter().filter(|t| {
            wanted.get(t.name.as_str()) == Some(&t.partitions.len())
                && !done.topics.contains_key(&t.name)
                && t.partitions.iter().all(|p| p.replicas == [us])
        });
        Ok(ours.map(|t| (t.name, t.topic_id)).collect())
    }

    /// Waits until the real brokers lead all of it.
    async fn led(&self) -> Result<()> {
        let us = self.plan.target.broker_id;
        let wanted: BTreeSet<&str> = self.plan.topics.iter().map(|t| t.target.as_str()).collect();
        let begun = Instant::now();
        loop {
            let metadata = self.client.metadata(None).await?;
            let topics = metadata.topics.iter().filter(|t| wanted.contains(t.name.as_str()));
            let mut partitions = topics.flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
            let without =
                partitions.find(|(_, p)| p.leader_id.is_none_or(|id| id == us) || p.replicas.contains(&us));
            match without {
                None => return Ok(()),
                Some((topic, p)) if begun.elapsed() >= LED => {
                    let what = format!("{topic}-{} has no leader among the real brokers", p.partition);
                    return Err(ClientError::NoLeader { what }.into());
                }
                Some(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn abort(
        &self,
        topic: &PlannedTopic,
        partition: &PlannedPartition,
        done: &Done,
        journal: &Journal,
    ) -> Result<usize> {
        let mut aborted = 0;
        for open in &partition.open_transactions {
            let key = (topic.target.clone(), partition.partition, open.producer_id);
            if done.aborted.contains(&key) {
                continue;
            }
            let place = TopicPartition::new(topic.target.clone(), partition.partition);
            let producer =
                OpenProducer { producer_id: open.producer_id, producer_epoch: open.producer_epoch };
            self.client.abort_open(&place, producer).await?;
            journal.aborted(&topic.target, partition.partition, open.producer_id)?;
            aborted += 1;
        }
        Ok(aborted)
    }
}

/// The outcome, or that it was stopped.
async fn until<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        () = stop => Err(stopped()),
    }
}

fn stopped() -> Error {
    Error::refused("stopped", "varve restore apply goes on, varve restore cleanup takes back")
}

/// Whatever came of it, the cluster forgets us.
async fn leave(leader: Leader, outcome: Result<()>) -> Result<()> {
    if outcome.is_err()
        && let Err(error) = leader.hand_back().await
    {
        tracing::warn!(%error, "topics of others that were placed on us may stay without a leader: reassign them");
    }
    let left = leader.leave().await;
    if let (Err(_), Err(error)) = (&outcome, &left) {
        tracing::error!(%error, "our registration could not be taken back: varve restore cleanup does it");
    }
    outcome?;
    Ok(left?)
}

async fn create(leader: &Leader, topics: Vec<RestoredTopic>, journal: &Journal) -> Result<()> {
    for (target, id) in leader.create(topics).await? {
        journal.topic(&target, id)?;
    }
    Ok(())
}

/// The archive's logs, as what is led.
struct Logs<'a> {
    apply: &'a Apply<'a>,
    reader: &'a LogReader,
    journal: &'a JournalView,
    budget: &'a Arc<Budget>,
    ids: &'a Arc<ProducerIds>,
}

impl Logs<'_> {
    fn topic(&self, topic: &PlannedTopic) -> Result<RestoredTopic> {
        let source = self.apply.source.topic(&topic.topic_id);
        let source =
            source.ok_or_else(|| Error::unexpected("the plan's archive", &topic.topic, "no such topic"))?;
        let partitions = topic.partitions.iter().map(|planned| {
            let log: Arc<dyn varve_kafka::replica::ReplicaLog> =
                match source.partitions.get(&planned.partition) {
                    Some(state) => ArchiveLog::new(
                        self.reader.at(state, None, self.journal)?,
                        Arc::clone(self.apply.keys),
                        facts(planned),
                        planned.replicas.len(),
                        Arc::clone(self.budget),
                        Arc::clone(self.ids),
                    ),
                    None => Arc::new(varve_kafka::replica::EmptyLog::default()),
                };
            Ok(RestoredPartition { log, replicas: planned.replicas.clone() })
        });
        Ok(RestoredTopic {
            name: topic.target.clone(),
            configs: topic.configs.clone(),
            partitions: partitions.collect::<Result<_>>()?,
        })
    }
}

/// As the plan has them.
pub(crate) fn facts(planned: &PlannedPartition) -> Facts {
    let mut leader_epochs = LeaderEpochs::default();
    for (epoch, start_offset) in &planned.leader_epochs {
        leader_epochs.note(*epoch, *start_offset);
    }
    Facts {
        start_offset: planned.start_offset,
        base_offset: planned.base_offset,
        end_offset: planned.end_offset,
        log_bytes: planned.log_bytes,
        stored_bytes: planned.stored_bytes,
        objects: planned.objects,
        leader_epochs,
        holes: Vec::new(),
        observed: Vec::new(),
        skipped: planned.skipped.clone(),
    }
}
