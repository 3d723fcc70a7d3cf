//! A recovery point when the cluster can't be asked: of all that the archive has by now, with the state of the cluster
//! that an earlier snapshot has. Else what came since the last snapshot would be in the archive, and not be restored.
//!
//! It is not one archiver's share alone: whoever had the rest may be lost too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use varve_archive::record::state::{JournalEntry, PartitionEntry};
use varve_archive::{Document, Record, Snapshot, Target, V1};
use varve_cluster::{ClusterState, EarlierState};
use varve_format::Id;

use crate::clock;
use crate::departed::is_closed;
use crate::error::{Error, Result};
use crate::journal;
use crate::service::{Archiver, Service};
use crate::sharing::Share;
use crate::stored::Bases;
use crate::tail::Key;

/// For looking through the store at the end.
const GOODBYE: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug)]
pub struct StoredSnapshot {
    pub snapshot: Snapshot,
    /// Those that were looked at.
    pub partitions: usize,
    /// Those that the archive has not to the ends that their logs were known to have.
    pub lagging: usize,
    pub cluster_state: EarlierState,
}

/// What the service knows beside the store.
#[derive(Default)]
struct Around {
    cluster_id: Option<String>,
    /// Of topics that the cluster had at last.
    ours: HashSet<Key>,
    /// Whether these are all that there are.
    is_all: bool,
    gone: HashMap<Id, i64>,
}

impl Archiver {
    /// Makes a recovery point of the archive alone; no broker is asked for anything.
    ///
    /// # Errors
    /// Of the store; where no snapshot has a state of the cluster.
    pub async fn snapshot_without_cluster(&self) -> Result<StoredSnapshot> {
        let made =
            self.snapshot_of_store(&Around::default(), false, "the cluster was not to be asked").await?;
        made.ok_or_else(|| Error::unexpected("the archive", "a partition", "none"))
    }

    /// While the cluster is away: what came since the last snapshot is to be restorable.
    pub(crate) async fn without_cluster(&self, service: &mut Service, why: &Error) -> Result<()> {
        let reached = self.progress.reached();
        if service.reached == Some(reached) {
            return Ok(());
        }
        if self.snapshot_of_store(&Around::of(service), true, &why.to_string()).await?.is_none() {
            tracing::warn!(error = %why, "no snapshot, and nothing new for one");
        }
        service.reached = Some(reached);
        Ok(())
    }

    /// The last one, where the cluster was asked in vain.
    pub(crate) async fn last_without_cluster(&self, service: &Service, why: &str) -> Result<()> {
        match tokio::time::timeout(GOODBYE, self.snapshot_of_store(&Around::of(service), true, why)).await {
            Ok(made) => made.map(drop),
            Err(_) => {
                let found = format!("none within {} s; before that: {why}", GOODBYE.as_secs());
                Err(Error::unexpected("the last snapshot", "an answer of the store", found))
            }
        }
    }

    /// `None` if `only_new` and there is nothing that the newest snapshot has not.
    async fn snapshot_of_store(
        &self,
        around: &Around,
        only_new: bool,
        why: &str,
    ) -> Result<Option<StoredSnapshot>> {
        let begun = Instant::now();
        let (journal, bases) = (journal::found(&self.archive).await?.0, self.bases(|_| true).await?);
        let keys = self.open_partitions(around, &journal, &bases).await?;
        let mut targets = self.stored(keys, &bases, &journal).await?;
        for target in &mut targets {
            let key = (target.topic_id, target.partition);
            match around.gone.get(&key.0) {
                Some(since) => target.deleted_ms = Some(*since),
                None if around.ours.contains(&key) => target.deleted_ms = None,
                None => {}
            }
        }
        let is_new = |t: &Target| is_new(t, bases.get(&(t.topic_id, t.partition)));
        if targets.is_empty() || (only_new && !targets.iter().any(is_new)) {
            return Ok(None);
        }
        let (documents, cluster_state) = self.earlier_state(around.cluster_id.as_deref()).await?;
        let lagging = targets.iter().filter(|t| t.log_end_offset.is_some()).count();
        let snapshot = self.write(&targets, &documents, Some(&cluster_state), begun, lagging).await?;
        tracing::warn!(
            why,
            sequence = snapshot.record.sequence,
            cluster_state_of = cluster_state.snapshot,
            "a snapshot of the archive alone: groups, configs and ACLs are those of an earlier one"
        );
        Ok(Some(StoredSnapshot { snapshot, partitions: targets.len(), lagging, cluster_state }))
    }

    /// All that may have something new.
    async fn open_partitions(
        &self,
        around: &Around,
        journal: &HashMap<Key, Vec<JournalEntry>>,
        bases: &Bases,
    ) -> Result<BTreeSet<Key>> {
        let now_ms = clock::now_ms();
        let (mut keys, mut closed) = (BTreeSet::new(), BTreeSet::new());
        for (key, base) in bases {
            match is_closed(base, journal, now_ms) {
                true => closed.insert(*key),
                false => keys.insert(*key),
            };
        }
        keys.extend(journal.keys().chain(&around.ours).filter(|key| !closed.contains(*key)));
        // Who has read all himself knows of those that are new.
        if !around.is_all {
            let (mut topics, mut last) = (Vec::new(), None);
            while let Some(topic_id) = self.archive.next_topic(last).await? {
                topics.push(topic_id);
                last = Some(topic_id);
            }
            let found = self.partitions_of(topics.into_iter()).await?;
            keys.extend(found.into_iter().filter(|key| !closed.contains(key)));
        }
        Ok(keys)
    }

    /// The documents of the newest snapshot that has a state of the cluster, and whose that is. One of another cluster is
    /// passed over.
    async fn earlier_state(&self, cluster_id: Option<&str>) -> Result<(Vec<Document>, EarlierState)> {
        let found = self.newest_that(async |snapshot| self.state_of(&snapshot, cluster_id).await).await?;
        found
            .ok_or_else(|| Error::unexpected("the archive", "a snapshot with a state of the cluster", "none"))
    }

    async fn state_of(
        &self,
        snapshot: &Snapshot,
        cluster_id: Option<&str>,
    ) -> varve_archive::Result<Option<(Vec<Document>, EarlierState)>> {
        let record = &snapshot.record;
        let Some(state) = ClusterState::of(&self.archive, snapshot).await? else { return Ok(None) };
        if cluster_id.is_some_and(|ours| ours != state.cluster_id) {
            return Ok(None);
        }
        let mut documents = Vec::new();
        for named in &record.documents {
            let bytes = self.archive.document(named).await?;
            documents.push(Document { name: named.name.clone(), format: named.format.clone(), bytes });
        }
        if let Some(told) = EarlierState::of(&self.archive, snapshot).await? {
            return Ok(Some((documents, told)));
        }
        let (snapshot, created_ms) = (record.sequence, record.created_ms);
        let earlier = EarlierState { varve_earlier_state: V1, snapshot, created_ms };
        let object = EarlierState::DOCUMENT.to_owned();
        let encoded = earlier
            .encode()
            .map_err(|source| varve_archive::Error::Record { object: object.clone(), source })?;
        documents.push(Document {
            name: object,
            format: EarlierState::FORMAT.to_owned(),
            bytes: encoded.into(),
        });
        Ok(Some((documents, earlier)))
    }
}

impl Around {
    fn of(service: &Service) -> Self {
        Self {
            cluster_id: service.discovery.cluster_id().map(str::to_owned),
            ours: service.running.wanted.keys().chain(&service.last_ours).copied().collect(),
            is_all: service.share == Share::All
                && !(service.running.wanted.is_empty() && service.last_ours.is_empty()),
            gone: service.discovery.departed.all().collect(),
        }
    }
}

fn is_new(target: &Target, base: Option<&PartitionEntry>) -> bool {
    let Some(base) = base else { return target.point.is_some_and(|point| point.end_offset > 0) };
    let is_further = |point| (base.branch(), base.end()) < point;
    target.point.is_some_and(|point| is_further((point.branch, point.end_offset)))
        || target.deleted_ms != base.deleted_ms
}
