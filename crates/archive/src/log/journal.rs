//! The journal as it is now, by partition.
//!
//! It is to be read **before** the chains' ends are looked for: a bundle that expires meanwhile is then covered by
//! what is found of the chain. Memory is an entry for each object in a bundle that was not expired.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use varve_format::Id;

use crate::archive::Archive;
use crate::error::Result;
use crate::journal::BundleName;
use crate::record::bundle::BundleIndex;
use crate::record::snapshot::SnapshotRecord;
use crate::record::state::JournalEntry;

const PARALLEL: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct JournalView {
    entries: HashMap<(Id, i32), Vec<JournalEntry>>,
    bundles: u64,
}

impl JournalView {
    /// Entries of a partition, of all branches, in no order.
    pub fn entries(&self, topic_id: Id, partition: i32) -> &[JournalEntry] {
        self.entries.get(&(topic_id, partition)).map_or(&[], Vec::as_slice)
    }

    /// Partitions that the journal has something of.
    pub fn partitions(&self) -> impl Iterator<Item = (Id, i32)> {
        self.entries.keys().copied()
    }

    pub fn bundles(&self) -> u64 {
        self.bundles
    }
}

impl JournalView {
    fn add(&mut self, name: &BundleName, index: &BundleIndex, wanted: &impl Fn(Id, i32) -> bool) {
        self.bundles = self.bundles.saturating_add(1);
        for entry in index.entries.iter().filter(|e| wanted(e.topic_id, e.partition)) {
            self.entries.entry((entry.topic_id, entry.partition)).or_default().push(entry.in_snapshot(name));
        }
    }
}

impl Archive {
    /// Entries that a snapshot's bundles hold, of the partitions that `wanted` takes. A bundle that expired, or
    /// another under its name, has none: the chains have what was in it.
    ///
    /// # Errors
    /// Of the store; manifests that are damaged.
    pub async fn journal_of(
        &self,
        snapshot: &SnapshotRecord,
        wanted: impl Fn(Id, i32) -> bool,
    ) -> Result<JournalView> {
        let named = match &snapshot.bundles {
            Some(list) => self.named_bundles(list).await?,
            None => Vec::new(),
        };
        let read = stream::iter(named).map(|(name, expected)| async move {
            let found = self.named_bundle(&name, &expected).await?;
            Ok::<_, crate::error::Error>(found.map(|index| (name, index)))
        });
        let mut read = Box::pin(read.buffer_unordered(PARALLEL));
        let mut view = JournalView::default();
        while let Some(found) = read.try_next().await? {
            if let Some((name, index)) = found {
                view.add(&name, &index, &wanted);
            }
        }
        Ok(view)
    }

    /// Entries of the partitions that `wanted` takes.
    ///
    /// # Errors
    /// Of the store; what makes a bundle none.
    pub async fn journal(&self, wanted: impl Fn(Id, i32) -> bool) -> Result<JournalView> {
        let mut view = JournalView::default();
        let mut names: Vec<BundleName> = Vec::new();
        let mut last: Option<BundleName> = None;
        loop {
            let next = self.next_bundle(last.as_ref()).await?;
            let ended = next.is_none();
            names.extend(next.clone());
            last = next;
            if ended || names.len() >= PARALLEL {
                let read = stream::iter(std::mem::take(&mut names)).map(|name| async move {
                    let index = self.bundle(&name).await?;
                    Ok::<_, crate::error::Error>((name, index))
                });
                let found: Vec<_> = read.buffer_unordered(PARALLEL).try_collect().await?;
                for (name, index) in found {
                    // Gone meanwhile: the chains have it.
                    let Some(index) = index else { continue };
                    view.add(&name, &index, &wanted);
                }
            }
            if ended {
                return Ok(view);
            }
        }
    }
}
