//! Whether the chains have what the journal has: the very records, not just their offsets.
//!
//! A chain may have gone on with another leader's data, or with a gap, over offsets that a bundle holds. So it has
//! them only if it reaches their end, no gap overlaps them, and its epoch before their end is theirs: within one
//! epoch an offset has but one history before it.

use std::collections::{BTreeMap, HashMap};

use varve_format::Id;

use crate::archive::Archive;
use crate::error::{Kind, Result};
use crate::partition::Partition;
use crate::record::branch::{EpochEntry, epoch_before};
use crate::record::bundle::BundleEntry;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    pub topic_id: Id,
    pub partition: i32,
    pub branch: u32,
    pub first_offset: i64,
    pub end_offset: i64,
    /// The last epoch before the end.
    pub last_epoch: Option<i32>,
}

impl Stay {
    pub fn of(entry: &BundleEntry) -> Self {
        Self {
            topic_id: entry.topic_id,
            partition: entry.partition,
            branch: entry.branch,
            first_offset: entry.first_offset,
            end_offset: entry.end_offset,
            last_epoch: epoch_before(&entry.leader_epochs, entry.end_offset),
        }
    }
}

/// What was looked at of the chains. Objects never change, so it may be kept for as long as wanted.
#[derive(Debug)]
pub struct Coverage<'a> {
    archive: &'a Archive,
    chains: HashMap<(Id, i32, u32), BTreeMap<i64, Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    end_offset: i64,
    gap: bool,
    epochs: Vec<EpochEntry>,
}

impl<'a> Coverage<'a> {
    pub fn new(archive: &'a Archive) -> Self {
        Self { archive, chains: HashMap::new() }
    }

    /// # Errors
    /// Of the store. A damaged object has nothing.
    pub async fn has(&mut self, stay: &Stay) -> Result<bool> {
        let partition = self.archive.partition(stay.topic_id, stay.partition);
        let chain = self.chains.entry((stay.topic_id, stay.partition, stay.branch)).or_default();
        let mut at = stay.first_offset;
        loop {
            let known = chain.range(..=at).next_back().map(|(_, seen)| seen).filter(|s| s.end_offset > at);
            let object = match known {
                Some(seen) => seen.clone(),
                None => match look(&partition, stay.branch, at).await? {
                    Some((first, seen)) => {
                        chain.insert(first, seen.clone());
                        seen
                    }
                    None => return Ok(false),
                },
            };
            if object.gap {
                return Ok(false);
            }
            if object.end_offset >= stay.end_offset {
                return Ok(epoch_before(&object.epochs, stay.end_offset) == stay.last_epoch);
            }
            at = object.end_offset;
        }
    }
}

/// The object of a chain that holds `offset`.
async fn look(partition: &Partition<'_>, branch: u32, offset: i64) -> Result<Option<(i64, Seen)>> {
    let Some(first) = partition.last_at_or_below(branch, offset).await? else { return Ok(None) };
    let head = match partition.head(branch, first).await {
        Err(e) if e.kind() == Kind::Corrupt => None,
        found => found?,
    };
    let Some(head) = head.filter(|h| h.end_offset() > offset) else { return Ok(None) };
    let epochs = head.epochs().iter().copied().map(EpochEntry::from).collect();
    Ok(Some((first, Seen { end_offset: head.end_offset(), gap: head.gap, epochs })))
}
