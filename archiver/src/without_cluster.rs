//! A recovery point when the cluster can't be asked: of all that the archive has by now, with the state of the cluster
//! that an earlier snapshot has. Else what came since the last snapshot would be in the archive, and not be restored.
//!
//! It is not one archiver's share alone: whoever had the rest may be lost too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use varve_archive::record::snapshot::{CLUSTER_STATE, Signable, Signed};
use varve_archive::record::state::{JournalEntry, PartitionEntry};
use varve_archive::{Document, Record, Snapshot, Target, V1};
use varve_cluster::{ClusterState, EarlierState};
use varve_format::Id;

use crate::clock;
use crate::departed::is_closed;
use crate::error::{Error, Result};
use crate::journal;
use crate::service::{Archiver, Service, is_damage};
use crate::sharing::Share;
use crate::stored::Bases;
use crate::tail::Key;

/// Snapshots without a state of the cluster that are stepped over: imports make such.
const STEPS_MAX: u64 = 1000;
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
        let snapshot = self.write(&targets, &documents, begun, lagging).await?;
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

    /// The documents of the newest snapshot that has a state of the cluster, and whose that is. One that is damaged, not
    /// signed as ours are, or of another cluster is stepped over.
    async fn earlier_state(&self, cluster_id: Option<&str>) -> Result<(Vec<Document>, EarlierState)> {
        let newest = self.archive.latest_snapshot(0).await?.map_or(0, |s| s.record.sequence);
        for sequence in (newest.saturating_sub(STEPS_MAX)..=newest).rev() {
            match self.state_of(sequence, cluster_id).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) if is_damage(&error) => {
                    tracing::warn!(sequence, %error, "its state of the cluster can't be taken");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::unexpected("the archive", "a snapshot with a state of the cluster", "none"))
    }

    async fn state_of(
        &self,
        sequence: u64,
        cluster_id: Option<&str>,
    ) -> varve_archive::Result<Option<(Vec<Document>, EarlierState)>> {
        let Some(snapshot) = self.archive.snapshot(sequence).await? else { return Ok(None) };
        let record = &snapshot.record;
        let ours = self.signer.as_ref().map(|signer| signer.public_key());
        if ours.is_some_and(|key| record.signed(&[key]) != Signed::ByTrusted) {
            return Ok(None);
        }
        let place = |name: &str| format!("{name} of snapshot {sequence}");
        let flawed = |name: &str| {
            let object = place(name);
            move |source| varve_archive::Error::Record { object, source }
        };
        let mut documents = Vec::new();
        for named in &record.documents {
            let bytes = self.archive.document(named).await?;
            documents.push(Document { name: named.name.clone(), format: named.format.clone(), bytes });
        }
        let by_name = |name: &str| documents.iter().find(|d| d.name == name).map(|d| d.bytes.clone());
        let Some(state) = by_name(CLUSTER_STATE) else { return Ok(None) };
        let state = ClusterState::decode(&state).map_err(flawed(CLUSTER_STATE))?;
        if cluster_id.is_some_and(|ours| ours != state.cluster_id) {
            return Ok(None);
        }
        if let Some(told) = by_name(EarlierState::DOCUMENT) {
            let told = EarlierState::decode(&told).map_err(flawed(EarlierState::DOCUMENT))?;
            return Ok(Some((documents, told)));
        }
        let earlier =
            EarlierState { varve_earlier_state: V1, snapshot: sequence, created_ms: record.created_ms };
        documents.push(Document {
            name: EarlierState::DOCUMENT.to_owned(),
            format: EarlierState::FORMAT.to_owned(),
            bytes: earlier.encode().map_err(flawed(EarlierState::DOCUMENT))?.into(),
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
