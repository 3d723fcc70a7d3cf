//! A snapshot: the groups' offsets first, then the logs' ends, then a wait until the archive has reached them,
//! or is named as lagging; then all of it in one record.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use varve_archive::record::snapshot::CLUSTER_STATE;
use varve_archive::{Document, NewSnapshot, Point, Record, Snapshot, Target};
use varve_kafka::client::OffsetSpec;
use varve_kafka::client::admin::{AdminError, TopicPartition};

use crate::clock;
use crate::discovery::Wanted;
use crate::error::{Error, Result};
use crate::metrics::SnapshotSeen;
use crate::service::{Archiver, WRITER};
use crate::tail::Key;
use varve_cluster::{ClusterState, CollectedGroups, EarlierState, collect_groups, collect_rest};

const UNREAD: &str = "the archiver that made the snapshot leaves its topic out";

/// A snapshot that waits for the archive.
pub(crate) struct Pending {
    groups: CollectedGroups,
    /// Their last stable offsets, read before `ends`: where both are one, no transaction was open.
    stable: HashMap<Key, i64>,
    /// The logs' ends, read after the groups.
    pub(crate) ends: HashMap<Key, i64>,
    begun: Instant,
    /// Logs whose ends could not be read, and why.
    unknown: HashMap<Key, String>,
    /// The ends of those that nobody here reads.
    unread: HashMap<Key, i64>,
    pub(crate) until: Instant,
}

impl Archiver {
    /// `unread` are not waited for.
    pub(crate) async fn begin_snapshot(&self, wanted: &[Wanted], unread: &[Wanted]) -> Result<Pending> {
        let begun = Instant::now();
        let groups = collect_groups(&self.client, &self.parts).await?;
        let (stable, _) = self.ends(wanted, OffsetSpec::LatestStable).await?;
        let (ends, unknown) = self.ends(wanted, OffsetSpec::Latest).await?;
        for (key, why) in &unknown {
            tracing::warn!(topic_id = %key.0, partition = key.1, why, "a log can't be waited for");
        }
        let (unread, _) = self.ends(unread, OffsetSpec::Latest).await?;
        let until = Instant::now() + self.config.snapshots.wait;
        Ok(Pending { groups, stable, ends, begun, unknown, unread, until })
    }

    /// The ends of those logs that have a leader; of the others, why not.
    pub(crate) async fn ends(
        &self,
        wanted: &[Wanted],
        which: OffsetSpec,
    ) -> Result<(HashMap<Key, i64>, HashMap<Key, String>)> {
        let partitions: Vec<TopicPartition> =
            wanted.iter().map(|w| TopicPartition::new(w.topic.name.clone(), w.partition)).collect();
        let found = self.client.list_offsets_of(&partitions, which).await?;
        let by_name: HashMap<(&str, i32), i64> =
            found.items.iter().filter_map(|o| Some(((o.topic.as_str(), o.partition), o.offset?))).collect();
        let end = |w: &Wanted| by_name.get(&(w.topic.name.as_str(), w.partition)).copied();
        let ends = wanted.iter().filter_map(|w| Some((w.key(), end(w)?))).collect();
        let missing = found.missing.iter().filter(|m| !m.error.is_gone());
        let missing: HashMap<&str, &AdminError> = missing.map(|m| (m.what.as_str(), &m.error)).collect();
        let why = |(w, partition): (&Wanted, &TopicPartition)| {
            let error = missing.get(partition.to_string().as_str())?;
            Some((w.key(), format!("the log's end is not known: {error}")))
        };
        Ok((ends, wanted.iter().zip(&partitions).filter_map(why).collect()))
    }

    /// Whether the archive, journal included, has all that `pending` waits for.
    pub(crate) fn is_reached(&self, pending: &Pending) -> bool {
        let reached = |(key, end): (&Key, &i64)| {
            self.progress.partition(*key).is_some_and(|progress| progress.safe_end() >= *end)
        };
        pending.ends.iter().all(reached)
    }

    /// `gone` are the last targets of topics that are gone: they count more than what was waited for.
    /// `cluster_id` is that of what is archived.
    pub(crate) async fn finish_snapshot(
        &self,
        pending: Pending,
        gone: Vec<Target>,
        cluster_id: Option<&str>,
    ) -> Result<Snapshot> {
        for (key, end) in pending.ends.iter().filter(|(key, end)| pending.stable.get(*key) == Some(*end)) {
            self.progress.nothing_open(*key, *end);
        }
        let known = pending.ends.iter().map(|(key, end)| self.target(*key, *end));
        let unknown = pending.unknown.into_iter().map(|(key, why)| Target {
            journal: self.progress.partition(key).unwrap_or_default().journal,
            problem: Some(why),
            ..Target::new(key.0, key.1)
        });
        let mut targets: Vec<Target> = known.chain(unknown).collect();
        let lagging =
            targets.iter().filter(|t| t.log_end_offset.is_none_or(|end| self.safe_end(t) < end)).count();
        targets.extend(gone);
        targets.extend(pending.unread.into_iter().map(|(key, end)| Target {
            log_end_offset: Some(end),
            problem: Some(UNREAD.to_owned()),
            is_unread: true,
            ..Target::new(key.0, key.1)
        }));
        let rest = collect_rest(&self.client, &self.parts, self.registry.as_ref(), pending.groups).await;
        let document: ClusterState = rest?;
        if let Some(expected) = cluster_id.filter(|ours| *ours != document.cluster_id) {
            let found = document.cluster_id;
            return Err(Error::AnotherCluster { expected: expected.to_owned(), found });
        }
        let bytes = document.encode().map_err(|source| {
            Error::Archive(varve_archive::Error::Record { object: "the cluster's state".to_owned(), source })
        })?;
        let document = Document {
            name: CLUSTER_STATE.to_owned(),
            format: "varve.cluster-state.v1".to_owned(),
            bytes: Bytes::from(bytes),
        };
        self.write(&targets, &[document], None, pending.begun, lagging).await
    }

    pub(crate) async fn write(
        &self,
        targets: &[Target],
        documents: &[Document],
        earlier: Option<&EarlierState>,
        begun: Instant,
        lagging: usize,
    ) -> Result<Snapshot> {
        let new = NewSnapshot {
            targets,
            documents,
            writer: WRITER,
            now_ms: clock::now_ms(),
            signer: self.signer.as_ref(),
            trusted: &[],
        };
        let snapshot = self.archive.write_snapshot(&new).await?;
        self.progress.tally.snapshot(SnapshotSeen {
            sequence: snapshot.record.sequence,
            created_ms: snapshot.record.created_ms,
            cluster_asked_ms: Some(earlier.map_or(snapshot.record.created_ms, |of| of.created_ms)),
            duration: Some(begun.elapsed()),
            lagging,
        });
        tracing::info!(
            sequence = snapshot.record.sequence, hash = %snapshot.hash, partitions = targets.len(), lagging,
            "snapshot"
        );
        Ok(snapshot)
    }

    fn safe_end(&self, target: &Target) -> i64 {
        self.progress.partition((target.topic_id, target.partition)).unwrap_or_default().safe_end()
    }

    pub(crate) fn target(&self, key: Key, log_end_offset: i64) -> Target {
        let Some(progress) = self.progress.partition(key) else {
            return Target { log_end_offset: Some(log_end_offset), ..Target::new(key.0, key.1) };
        };
        let end_offset = progress.safe_end();
        Target {
            point: Some(Point { branch: progress.branch, end_offset }),
            open_transactions: progress.open_transactions,
            journal: progress.journal,
            log_start_offset: progress.log_start_offset,
            log_end_offset: Some(log_end_offset),
            problem: progress.trouble,
            ..Target::new(key.0, key.1)
        }
    }
}
