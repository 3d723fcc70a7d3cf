//! Doing what a plan of mode *produce* says.
//!
//! Order: the topics; their records; the map is kept beside the archive; ACLs, quotas, configs and users; groups, at the
//! mapped offsets. See [`crate::produce`] for what makes it exactly once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use varve_format::Id;
use varve_kafka::client::admin::{ConfigResource, ConfigSource};
use varve_kafka::client::{Client, OffsetSpec, ProduceLane, TopicMetadata};
use varve_kafka::replica::LeaderProgress;
use varve_store::Rate;

use super::journal::{self, Done, Journal};
use super::{Applied, Apply, Cleaned, LOOK, Stage, groups};
use crate::error::{Error, Result};
use crate::history::KeyCache;
use crate::plan::{Plan, PlannedGroup, PlannedTopic};
use crate::produce::{MapDir, Reading, Work, Writing, identity, keep, mapped, new_topic};
use crate::source::Source;
use crate::verify::Verified;

/// What one partition takes that is being written: what is read ahead, and what is under way.
const LANE_BYTES: u64 = 32 << 20;
const LANES_MAX: u64 = 16;
const WRITER: &str = concat!("varve ", env!("CARGO_PKG_VERSION"));

impl Apply<'_> {
    pub(super) async fn produce(
        &self,
        journal: &Journal,
        done: &Done,
        applied: &mut Applied,
        told: &(dyn Fn(Stage) + Sync),
    ) -> Result<()> {
        told(Stage::Creating);
        let maps = MapDir::of(self.plan_file);
        maps.make()?;
        let ids = self.topics(journal, done).await?;
        self.records(&maps, &ids, applied, told).await?;
        told(Stage::Rest);
        if let Err(error) = keep(self.plan, &maps, &self.source.archive, WRITER).await {
            let place = maps.path().display();
            applied
                .notes
                .push(format!("the map of offsets is not kept beside the archive, but in {place}: {error}"));
        }
        if !done.rest {
            self.plan.rest.apply(self.client, &self.options.passwords).await?;
            journal.rest()?;
        }
        told(Stage::Groups);
        let plan = Plan { groups: mapped(self.plan, &maps)?, ..self.plan.clone() };
        applied.groups = groups::commit(self.client, &plan, done, journal).await?;
        Ok(())
    }

    /// Ids, by name on the target.
    async fn topics(&self, journal: &Journal, done: &Done) -> Result<BTreeMap<String, Id>> {
        let known: BTreeMap<String, TopicMetadata> =
            self.client.metadata(None).await?.topics.into_iter().map(|t| (t.name.clone(), t)).collect();
        let mut ids = BTreeMap::new();
        for topic in &self.plan.topics {
            let found = known.get(&topic.target);
            let id = match (done.topics.get(&topic.target), found) {
                (Some(id), Some(found)) if found.topic_id == *id => *id,
                (Some(_), _) => {
                    let what = format!("topic {} was made by this restore, and is gone", topic.target);
                    let todo = "plan a new restore; varve restore cleanup removes what is left of this one";
                    return Err(Error::refused(what, todo));
                }
                (None, None) => self.client.create_topic(&new_topic(topic)).await?,
                (None, Some(found)) => self.made_and_not_noted(topic, found).await?,
            };
            if !done.topics.contains_key(&topic.target) {
                journal.topic(&topic.target, id)?;
            }
            ids.insert(topic.target.clone(), id);
        }
        Ok(ids)
    }

    /// A crash may have come between. Then it is as we make it, and nobody has written to it.
    async fn made_and_not_noted(&self, topic: &PlannedTopic, found: &TopicMetadata) -> Result<Id> {
        let resource = ConfigResource::Topic(topic.target.clone());
        let described = self.client.describe_configs(&[resource]).await?.whole()?;
        let own = described.into_iter().flat_map(|r| r.entries);
        let own = own.filter(|c| c.source == ConfigSource::DynamicTopicConfig);
        let own: BTreeMap<String, String> = own.filter_map(|c| Some((c.name, c.value?))).collect();
        let numbers: Vec<i32> = found.partitions.iter().map(|p| p.partition).collect();
        let ends = self.client.list_offsets(&topic.target, &numbers, OffsetSpec::Latest).await?;
        let is_empty = ends.values().all(|end| end.unwrap_or(0) == 0);
        if own == topic.configs && numbers.len() == topic.partitions.len() && is_empty {
            return Ok(found.topic_id);
        }
        let what = format!("the target has a topic {}, which this restore did not make", topic.target);
        Err(Error::refused(what, "delete it, or plan anew with --without or --rename"))
    }

    async fn records(
        &self,
        maps: &MapDir,
        ids: &BTreeMap<String, Id>,
        applied: &mut Applied,
        told: &(dyn Fn(Stage) + Sync),
    ) -> Result<()> {
        let (reader, journal) = self.source.reader().await?;
        let shared = Writing {
            reading: Reading { source: self.source, reader: &reader, journal: &journal, keys: self.keys },
            client: self.client,
            maps,
            producer: identity(maps, self.client).await?,
            rate: Rate::new(self.options.bytes_per_second.unwrap_or(0)),
            written_bytes: AtomicU64::new(0),
        };
        let works = works(self.plan, ids);
        let (mut left, partitions) = (Vec::new(), works.len());
        for work in works {
            match maps.is_whole(work.topic, work.planned)? {
                true => applied.done_before += 1,
                false => left.push(work),
            }
        }
        // The largest first: they would be the last to end.
        left.sort_by_key(|work| std::cmp::Reverse(work.planned.log_bytes));
        let (begun, over) = (Instant::now(), AtomicUsize::new(applied.done_before));
        let lanes = (self.options.memory_bytes / LANE_BYTES).clamp(1, LANES_MAX);
        let lanes = usize::try_from(lanes).unwrap_or(1).min(left.len().max(1));
        let queue = Mutex::new(left.into_iter());
        let writing = stream::iter(0..lanes).map(|_| async {
            let mut lane = ProduceLane::new(self.client.clone(), self.options.patience);
            loop {
                let Some(work) = queue.lock().next() else { return Ok::<_, Error>(()) };
                shared.write(&mut lane, &work).await?;
                over.fetch_add(1, Ordering::Relaxed);
            }
        });
        let writing = writing.buffer_unordered(lanes).try_collect::<Vec<()>>();
        tokio::pin!(writing);
        let outcome = loop {
            let served_bytes = shared.written_bytes.load(Ordering::Relaxed);
            let handed_over = over.load(Ordering::Relaxed);
            told(Stage::Copying(LeaderProgress { partitions, handed_over, served_bytes }));
            if let Ok(outcome) = tokio::time::timeout(LOOK, &mut writing).await {
                break outcome;
            }
        };
        applied.copying = begun.elapsed();
        applied.served_bytes = shared.written_bytes.load(Ordering::Relaxed);
        outcome.map(drop)
    }
}

fn works<'a>(plan: &'a Plan, ids: &BTreeMap<String, Id>) -> Vec<Work<'a>> {
    let of = plan.partitions().filter_map(|(topic, planned)| {
        let (topic_id, produce) = (*ids.get(&topic.target)?, planned.produce.as_ref()?);
        Some(Work { topic, topic_id, planned, produce })
    });
    of.collect()
}

/// Reads the target back. Its topics are those that are there under the plan's names. The groups are as they should be
/// there.
pub(crate) async fn verify(
    plan: &Plan,
    plan_file: &Path,
    source: &Source,
    keys: &Arc<KeyCache>,
    client: &Client,
    told: &(dyn Fn(u64) + Sync),
) -> Result<(Verified, Vec<PlannedGroup>)> {
    let (reader, journal) = source.reader().await?;
    let reading = Reading { source, reader: &reader, journal: &journal, keys };
    let metadata = client.metadata(None).await?;
    let ids = metadata.topics.iter().map(|t| (t.name.clone(), t.topic_id)).collect();
    let (partitions, mut findings) =
        crate::produce::verify((reading, client), &works(plan, &ids), told).await?;
    for topic in plan.topics.iter().filter(|topic| !ids.contains_key(&topic.target)) {
        findings.push(format!("topic {} is not there", topic.target));
    }
    let bytes = partitions.iter().map(|p| p.bytes).sum();
    let groups = mapped(plan, &MapDir::of(plan_file))?;
    Ok((Verified { partitions, groups: 0, bytes, findings }, groups))
}

/// Deletes topics that this restore has made and not finished. With `dry_run` it only says so.
pub(super) async fn cleanup(
    plan: &Plan,
    plan_file: &Path,
    client: &Client,
    dry_run: bool,
) -> Result<Cleaned> {
    let (maps, done) = (MapDir::of(plan_file), journal::done(plan_file)?);
    let metadata = client.metadata(None).await?;
    let mut cleaned = Cleaned { is_done: !dry_run, ..Cleaned::default() };
    for topic in &plan.topics {
        let ours = |t: &&TopicMetadata| done.topics.get(&t.name) == Some(&t.topic_id);
        let Some(found) = metadata.topics.iter().filter(|t| t.name == topic.target).find(ours) else {
            continue;
        };
        let mut is_whole = true;
        for planned in topic.partitions.iter().filter(|p| p.produce.as_ref().is_some_and(|p| p.records > 0)) {
            is_whole &= maps.is_whole(topic, planned)?;
        }
        if is_whole {
            cleaned.kept.push(topic.target.clone());
            continue;
        }
        if !dry_run {
            client.delete_topic(found.topic_id).await?;
        }
        cleaned.topics.push(topic.target.clone());
    }
    Ok(cleaned)
}
