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

impl Archive {
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
                    view.bundles = view.bundles.saturating_add(1);
                    for entry in index.entries.iter().filter(|e| wanted(e.topic_id, e.partition)) {
                        let of = view.entries.entry((entry.topic_id, entry.partition)).or_default();
                        of.push(entry.in_snapshot(&name));
                    }
                }
            }
            if ended {
                return Ok(view);
            }
        }
    }
}
