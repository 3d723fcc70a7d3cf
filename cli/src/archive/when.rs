//! As of when an archive is looked at: a snapshot, or now.

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use varve_archive::record::state::PartitionState;
use varve_archive::{Archive, ArchivedLog, JournalView, LogReader, Snapshot};
use varve_format::Id;

use super::topics::Topic;
use crate::args::archive::AsOf;

const PARALLEL: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct When {
    /// What it is as of, or what saves listing what it names.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) now: bool,
}

impl When {
    /// `None` is the latest snapshot, or now if there is none.
    pub(crate) async fn of(archive: &Archive, as_of: Option<AsOf>) -> Result<Self> {
        let snapshot = match as_of {
            Some(AsOf::Snapshot(sequence)) => {
                let found = archive.snapshot(sequence).await?;
                Some(found.with_context(|| format!("the archive has no snapshot {sequence}"))?)
            }
            _ => archive.latest_snapshot(0).await?,
        };
        let now = match as_of {
            Some(AsOf::Now) => true,
            None => snapshot.is_none(),
            Some(AsOf::Latest) if snapshot.is_none() => bail!("the archive has no snapshot yet"),
            Some(_) => false,
        };
        Ok(Self { snapshot, now })
    }

    /// The state that the snapshot has of a partition.
    pub(crate) async fn state(
        &self,
        archive: &Archive,
        topic_id: Id,
        partition: i32,
    ) -> Result<Option<PartitionState>> {
        let root = self.snapshot.as_ref().and_then(|s| s.record.root.as_ref());
        Ok(archive.find(root, topic_id, partition).await?)
    }
}

/// One partition, as of then.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    pub(crate) partition: i32,
    pub(crate) log: ArchivedLog,
    pub(crate) state: Option<PartitionState>,
}

/// The partitions of a topic, in order, or the one that is asked for. Those without a state are left out.
pub(crate) async fn logs(
    reader: &LogReader,
    when: &When,
    topic: &Topic,
    only: Option<i32>,
    branch: Option<u32>,
) -> Result<Vec<PartitionLog>> {
    let archive = reader.archive();
    // Before the chains are looked at: what expires meanwhile is in them then.
    let wanted = |id, partition| id == topic.id && only.is_none_or(|p| p == partition);
    let journal = match &when.snapshot {
        _ if when.now => archive.journal(wanted).await?,
        Some(snapshot) => archive.journal_of(&snapshot.record, wanted).await?,
        None => JournalView::default(),
    };
    let partitions = match only {
        // Whether the snapshot has it shows below.
        Some(partition) if !when.now => vec![partition],
        _ => {
            let mut all = numbers(archive, topic, &journal).await?;
            all.retain(|partition| only.is_none_or(|p| p == *partition));
            all
        }
    };
    let (journal, reader) = (&journal, reader);
    let logs = stream::iter(partitions).map(|partition| async move {
        let state = when.state(archive, topic.id, partition).await?;
        let log = match &state {
            _ if when.now => reader.now(topic.id, partition, branch, journal, state.as_ref()).await?,
            Some(state) => reader.at(state, branch, journal)?,
            None => return Ok(None),
        };
        Ok::<_, anyhow::Error>(Some(PartitionLog { partition, log, state }))
    });
    let logs: Vec<_> = logs.buffered(PARALLEL).try_collect().await?;
    let logs: Vec<PartitionLog> = logs.into_iter().flatten().collect();
    if let (Some(partition), true) = (only, logs.is_empty()) {
        bail!("the archive has no partition {partition} of {} as of then", topic.name());
    }
    Ok(logs)
}

/// Those that have objects or are in the journal, and those that the topic was said to have.
async fn numbers(archive: &Archive, topic: &Topic, journal: &JournalView) -> Result<Vec<i32>> {
    let said = topic.record.as_ref().and_then(|r| r.partitions).unwrap_or(0);
    let mut numbers: Vec<i32> = (0..said).collect();
    numbers.extend(journal.partitions().filter(|(id, _)| *id == topic.id).map(|(_, partition)| partition));
    let mut last = None;
    while let Some(partition) = archive.next_partition(topic.id, last).await? {
        numbers.push(partition);
        last = Some(partition);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}
