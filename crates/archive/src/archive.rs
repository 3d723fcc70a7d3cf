//! An archive: created once, opened by anybody.
//!
//! Two that create it at once are of one archive: the first one's. A crash leaves it created or not.

use bytes::Bytes;
use varve_format::Id;
use varve_store::SharedStore;

use crate::canonical::{Record, V1};
use crate::error::{Error, Result};
use crate::hash::HashAlgorithm;
use crate::names::{self, TopicName};
use crate::oldest::Displaced;
use crate::partition::Partition;
use crate::record::archive::ArchiveRecord;
use crate::record::restore::RestoreRecord;
use crate::record::topic::TopicRecord;
use crate::record::upgrade::UpgradeRecord;
use crate::shelf::{Created, Shelf};

/// An archive that was opened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive {
    pub(crate) shelf: Shelf,
    record: ArchiveRecord,
}

impl Archive {
    /// Opens the archive to write to it, or creates it where there is none. `id` is random: also where it is not
    /// the archive's, it names what the store is tried with, for all depends on create-if-absent.
    ///
    /// # Errors
    /// Of the store; [`Error::Invalid`] for a store that creates what exists; [`Error::Record`] and
    /// [`Error::Requires`] for an archive that this build can't read.
    pub async fn create(
        store: SharedStore,
        root: &str,
        id: Id,
        hash: HashAlgorithm,
        writer: &str,
        now_ms: i64,
    ) -> Result<Self> {
        Shelf::open(store.clone(), root).await?.probe(&names::probe(id)).await?;
        // Asked again: that versions are kept may show only in answers to what was written.
        let shelf = Shelf::open(store, root).await?;
        if let Some(found) = shelf.get_first(names::ARCHIVE, ArchiveRecord::MAX_BYTES).await? {
            return Self::opened(shelf, &found).await;
        }
        let record = ArchiveRecord {
            varve_archive: V1,
            id,
            hash,
            requires: Vec::new(),
            writer: writer.to_owned(),
            created_ms: now_ms,
            more: Vec::new(),
        };
        let bytes = record.encode().map_err(shelf.damaged(names::ARCHIVE))?;
        match shelf.create(names::ARCHIVE, Bytes::from(bytes)).await? {
            Created::Ours => Ok(Self { shelf, record }),
            Created::Other(found) => Self::opened(shelf, &found).await,
        }
    }

    /// # Errors
    /// [`Error::Missing`] where there is none, else as [`Archive::create`].
    pub async fn open(store: SharedStore, root: &str) -> Result<Self> {
        let shelf = Shelf::open(store, root).await?;
        match shelf.get_first(names::ARCHIVE, ArchiveRecord::MAX_BYTES).await? {
            Some(found) => Self::opened(shelf, &found).await,
            None => Err(Error::Missing { object: shelf.place(names::ARCHIVE) }),
        }
    }

    async fn opened(shelf: Shelf, bytes: &[u8]) -> Result<Self> {
        let record = ArchiveRecord::decode(bytes).map_err(shelf.damaged(names::ARCHIVE))?;
        let archive = Self { shelf, record };
        archive.required(names::ARCHIVE, &archive.record.requires)?;
        archive.check_upgrades().await?;
        Ok(archive)
    }

    /// Version 1 knows nothing that an archive may require.
    fn required(&self, name: &str, requires: &[String]) -> Result<()> {
        if requires.is_empty() {
            return Ok(());
        }
        Err(Error::Requires { object: self.shelf.place(name), names: requires.join(", ") })
    }

    /// What the archive requires since it was created. Whoever opens it looks, and whoever writes looks again with
    /// each snapshot.
    ///
    /// # Errors
    /// [`Error::Requires`]; of the store; what is no upgrade, for it may have been one.
    pub async fn check_upgrades(&self) -> Result<()> {
        let name = names::upgrade(1);
        match self.shelf.record::<UpgradeRecord>(&name).await? {
            Some((upgrade, _)) => self.required(&name, &upgrade.requires),
            None => Ok(()),
        }
    }

    pub fn id(&self) -> Id {
        self.record.id
    }

    pub fn hash(&self) -> HashAlgorithm {
        self.record.hash
    }

    pub fn record(&self) -> &ArchiveRecord {
        &self.record
    }

    /// Objects that were found hidden under delete markers or overwritten so far, by the names that were looked at, and
    /// whether there may be more than are remembered. They were read by their versions all the same.
    ///
    /// # Errors
    /// As [`Archive::pruned`]: what is declared there is hidden on purpose.
    pub async fn displaced(&self) -> Result<(Vec<Displaced>, bool)> {
        let (mut found, more) = self.shelf.oldest().displaced();
        let object = |d: &Displaced| names::parse_object(self.shelf.name(&d.key)).filter(|_| d.hidden);
        if found.iter().any(|d| object(d).is_some()) {
            let pruned = self.pruned(0, &[]).await?;
            found.retain(|d| object(d).is_none_or(|(t, p, b, first)| !pruned.holds(t, p, b, first)));
        }
        Ok((found, more))
    }

    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    pub fn partition(&self, topic_id: Id, partition: i32) -> Partition<'_> {
        Partition { archive: self, topic_id, partition }
    }

    /// Makes sure that the topic has its record.
    ///
    /// # Errors
    /// [`Error::Mistaken`] where there is one of another name or cluster.
    pub async fn add_topic(&self, topic: &TopicRecord) -> Result<()> {
        let name = names::topic(topic.topic_id);
        let damaged = self.shelf.damaged(&name);
        let bytes = topic.encode().map_err(&damaged)?;
        let Created::Other(found) = self.shelf.create(&name, Bytes::from(bytes)).await? else {
            return Ok(());
        };
        let found = TopicRecord::decode(&found).map_err(&damaged)?;
        let same = |t: &TopicRecord| (t.topic_id, t.topic.clone(), t.cluster_id.clone());
        if same(&found) == same(topic) {
            return Ok(());
        }
        let shown = |t: &TopicRecord| format!("{} ({}) of cluster {}", t.topic, t.topic_id, t.cluster_id);
        Err(Error::mistaken(self.shelf.place(&name), shown(topic), shown(&found)))
    }

    /// # Errors
    /// Of the store; [`Error::Mistaken`] for the record of another topic.
    pub async fn topic(&self, topic_id: Id) -> Result<Option<TopicRecord>> {
        let name = names::topic(topic_id);
        let Some((record, _)) = self.shelf.record::<TopicRecord>(&name).await? else { return Ok(None) };
        if record.topic_id == topic_id {
            return Ok(Some(record));
        }
        Err(Error::mistaken(self.shelf.place(&name), topic_id, record.topic_id))
    }

    /// A part of the map of a restore's offsets.
    ///
    /// # Errors
    /// [`Error::Mistaken`] where there is another one.
    pub async fn keep_map(&self, restore_id: Id, part: u32, lines: Bytes) -> Result<()> {
        self.keep(&names::restore_map(restore_id, part), lines).await
    }

    /// Says that the map is whole: its parts come before.
    ///
    /// # Errors
    /// As [`Archive::keep_map`].
    pub async fn keep_restore(&self, restore: &RestoreRecord) -> Result<()> {
        let name = names::restore(restore.restore_id);
        let bytes = restore.encode().map_err(self.shelf.damaged(&name))?;
        self.keep(&name, Bytes::from(bytes)).await
    }

    async fn keep(&self, name: &str, bytes: Bytes) -> Result<()> {
        match self.shelf.create(name, bytes).await? {
            Created::Ours => Ok(()),
            Created::Other(found) => {
                let found = format!("{} bytes of another", found.len());
                Err(Error::mistaken(self.shelf.place(name), "what this restore has", found))
            }
        }
    }

    /// The next topic behind `after` in the order of names: found by skips, one request or two for each,
    /// however many objects there are.
    ///
    /// # Errors
    /// Of the store.
    pub async fn next_topic(&self, after: Option<Id>) -> Result<Option<Id>> {
        let after = after.map(|id| format!("{}{id}/{}", names::TOPICS, names::SKIP));
        let parse = |name: &str| match names::parse_topic_name(name)? {
            TopicName::About(id) | TopicName::Partition(id, _) => Some(id),
        };
        Ok(self.shelf.first(names::TOPICS, after, parse).await?.map(|(id, _)| id))
    }

    /// The next partition of a topic behind `after` that has objects, in the order of names.
    ///
    /// # Errors
    /// Of the store.
    pub async fn next_partition(&self, topic_id: Id, after: Option<i32>) -> Result<Option<i32>> {
        let prefix = format!("{}{topic_id}/", names::TOPICS);
        let after = after.map(|p| format!("{}{}", names::partition_prefix(topic_id, p), names::SKIP));
        let parse = |name: &str| match names::parse_topic_name(name)? {
            TopicName::Partition(_, partition) => Some(partition),
            TopicName::About(_) => None,
        };
        Ok(self.shelf.first(&prefix, after, parse).await?.map(|(partition, _)| partition))
    }
}
