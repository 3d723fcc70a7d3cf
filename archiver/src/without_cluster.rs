//! A recovery point when the cluster can't be asked: of all that the archive has by now, with the state of the cluster
//! that an earlier snapshot has. Else what came since the last snapshot would be in the archive, and not be restored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use varve_archive::record::snapshot::CLUSTER_STATE;
use varve_archive::record::state::PartitionEntry;
use varve_archive::{Document, Record, Snapshot, Target, V1};
use varve_cluster::EarlierState;

use crate::clock;
use crate::departed::is_settled;
use crate::error::{Error, Result};
use crate::journal;
use crate::service::{Archiver, Service};
use crate::tail::Key;

/// Snapshots without a state of the cluster that are stepped over: imports make such.
const STEPS_MAX: u64 = 1000;

/// See the module.
#[derive(Debug)]
pub struct StoredSnapshot {
    pub snapshot: Snapshot,
    /// Those that were looked at.
    pub partitions: usize,
    pub cluster_state: EarlierState,
}

impl Archiver {
    /// Makes a recovery point of the archive alone; no broker is asked for anything.
    ///
    /// # Errors
    /// Of the store; where no snapshot has a state of the cluster.
    pub async fn snapshot_without_cluster(&self) -> Result<StoredSnapshot> {
        let (journal, newest) =
            (journal::found(&self.archive).await?.0, self.archive.latest_snapshot(0).await?);
        let mut partitions: BTreeSet<Key> = journal.keys().copied().collect();
        let (mut last, mut known, mut settled) = (None, BTreeSet::new(), BTreeSet::new());
        let mut leaves = self.archive.leaves(newest.as_ref().and_then(|s| s.record.root.as_ref()));
        while let Some(leaf) = leaves.next().await? {
            for entry in leaf {
                let key = (entry.topic_id, entry.partition);
                known.insert(entry.topic_id);
                match entry.deleted_ms.is_some_and(|since| is_settled(since, clock::now_ms())) {
                    true => settled.insert(key),
                    false => partitions.insert(key),
                };
            }
        }
        while let Some(topic_id) = self.archive.next_topic(last).await? {
            if !known.contains(&topic_id) {
                partitions.extend(self.partitions_of(topic_id).await?);
            }
            last = Some(topic_id);
        }
        partitions.retain(|key| !settled.contains(key));
        self.snapshot_of_stored(partitions, "the cluster was not to be asked").await
    }

    /// Of these, and all others as they were.
    pub(crate) async fn snapshot_of_stored(
        &self,
        partitions: BTreeSet<Key>,
        why: &str,
    ) -> Result<StoredSnapshot> {
        let begun = Instant::now();
        let (documents, cluster_state) = self.earlier_state().await?;
        let journal = journal::found(&self.archive).await?.0;
        let newest = self.archive.latest_snapshot(0).await?;
        let mut base: BTreeMap<Key, PartitionEntry> = BTreeMap::new();
        let mut leaves = self.archive.leaves(newest.as_ref().and_then(|s| s.record.root.as_ref()));
        while let Some(leaf) = leaves.next().await? {
            let ours = leaf.into_iter().map(|entry| ((entry.topic_id, entry.partition), entry));
            base.extend(ours.filter(|(key, _)| partitions.contains(key)));
        }
        let based = partitions.iter().map(|key| (*key, base.remove(key))).collect();
        let targets: Vec<Target> = self.stored(based, &journal).await?;
        let snapshot = self.write(&targets, &documents, begun, 0).await?;
        tracing::warn!(
            why,
            sequence = snapshot.record.sequence,
            cluster_state_of = cluster_state.snapshot,
            "a snapshot of the archive alone: groups, configs and ACLs are those of an earlier one"
        );
        Ok(StoredSnapshot { snapshot, partitions: partitions.len(), cluster_state })
    }

    /// While the cluster is away: what came since the last snapshot is to be restorable.
    pub(crate) async fn without_cluster(&self, service: &mut Service, why: &Error) -> Result<()> {
        let reached = self.progress.reached();
        if reached == service.reached {
            tracing::warn!(error = %why, "no snapshot, and nothing new for one");
            return Ok(());
        }
        let keys = service.running.wanted.keys().copied().collect();
        self.snapshot_of_stored(keys, &why.to_string()).await?;
        service.reached = reached;
        Ok(())
    }

    /// The documents of the newest snapshot that has a state of the cluster, and whose that is.
    async fn earlier_state(&self) -> Result<(Vec<Document>, EarlierState)> {
        let newest = self.archive.latest_snapshot(0).await?.map_or(0, |s| s.record.sequence);
        for sequence in (newest.saturating_sub(STEPS_MAX)..=newest).rev() {
            let Some(snapshot) = self.archive.snapshot(sequence).await? else { continue };
            if snapshot.record.document(CLUSTER_STATE).is_none() {
                continue;
            }
            let mut documents = Vec::new();
            for named in &snapshot.record.documents {
                let bytes = self.archive.document(named).await?;
                documents.push(Document { name: named.name.clone(), format: named.format.clone(), bytes });
            }
            let record = |source| varve_archive::Error::Record {
                object: format!("{} of snapshot {sequence}", EarlierState::DOCUMENT),
                source,
            };
            if let Some(told) = documents.iter().find(|d| d.name == EarlierState::DOCUMENT) {
                let told = EarlierState::decode(&told.bytes).map_err(record)?;
                return Ok((documents, told));
            }
            let earlier = EarlierState {
                varve_earlier_state: V1,
                snapshot: sequence,
                created_ms: snapshot.record.created_ms,
            };
            documents.push(Document {
                name: EarlierState::DOCUMENT.to_owned(),
                format: EarlierState::FORMAT.to_owned(),
                bytes: earlier.encode().map_err(record)?.into(),
            });
            return Ok((documents, earlier));
        }
        Err(Error::unexpected("the archive", "a snapshot with a state of the cluster", "none"))
    }
}
