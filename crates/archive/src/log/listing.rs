//! A chain as the store has it now: by names, page by page, each with its footer.

use std::collections::VecDeque;

use futures::{StreamExt, TryStreamExt, stream};
use varve_store::ObjectMeta;

use crate::error::Result;
use crate::head::ObjectHead;
use crate::names;
use crate::partition::Partition;
use crate::prune::Pruned;

/// Footers that are fetched at once.
const PARALLEL: usize = 8;

/// See the module. Objects that were pruned are passed over, whether they are there or not.
#[derive(Debug)]
pub(super) struct ChainListing {
    branch: u32,
    /// Where the next page begins.
    from: i64,
    more: bool,
    names: VecDeque<(i64, ObjectMeta)>,
    ready: VecDeque<(ObjectHead, ObjectMeta)>,
}

impl ChainListing {
    /// From the object on that holds `offset`. `known` is where some object of the chain begins, at or below it.
    pub(super) async fn from(partition: Partition<'_>, branch: u32, known: i64, offset: i64) -> Result<Self> {
        let (page, more) = partition.page(branch, known).await?;
        let last = page.last().map_or(known, |(first, _)| *first);
        if !more || last >= offset {
            let before = page.partition_point(|(first, _)| *first <= offset).saturating_sub(1);
            let names: VecDeque<_> = page.into_iter().skip(before).collect();
            let from = last.saturating_add(1);
            return Ok(Self { branch, from, more, names, ready: VecDeque::new() });
        }
        let from = last_at_or_below(partition, branch, last, offset).await?;
        Ok(Self { branch, from, more: true, names: VecDeque::new(), ready: VecDeque::new() })
    }

    pub(super) async fn next(
        &mut self,
        partition: Partition<'_>,
        pruned: &Pruned,
    ) -> Result<Option<(ObjectHead, ObjectMeta)>> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Ok(Some(found));
            }
            if self.names.is_empty() {
                if !self.more {
                    return Ok(None);
                }
                let (page, more) = partition.page(self.branch, self.from).await?;
                self.more = more;
                self.from = page.last().map_or(self.from, |(first, _)| first.saturating_add(1));
                self.names = page.into();
            }
            let gone = |first| pruned.holds(partition.topic_id, partition.partition, self.branch, first);
            let batch: Vec<_> = (0..PARALLEL)
                .map_while(|_| self.names.pop_front())
                .filter(|(first, _)| !gone(*first))
                .collect();
            let branch = self.branch;
            let heads = stream::iter(batch).map(|(first, meta)| async move {
                let name = names::object(partition.topic_id, partition.partition, branch, first);
                let head = partition.head(branch, first).await;
                let head = head.map_err(|e| e.at_offsets(first, first.saturating_add(1)))?;
                let missing = || partition.missing(&name).at_offsets(first, first.saturating_add(1));
                Ok::<_, crate::error::Error>((head.ok_or_else(missing)?, meta))
            });
            self.ready = heads.buffered(PARALLEL).try_collect::<Vec<_>>().await?.into();
        }
    }
}

/// The largest first offset of the chain that is not above `offset`, by bisection. `low` is one.
async fn last_at_or_below(partition: Partition<'_>, branch: u32, low: i64, offset: i64) -> Result<i64> {
    let (mut low, mut high) = (low, offset);
    while low < high {
        // Above `low`, and so never `low` again.
        let middle = high.saturating_sub(high.saturating_sub(low) / 2);
        match partition.first_from(branch, middle).await? {
            Some(first) if first <= high => low = first,
            _ => high = middle.saturating_sub(1),
        }
    }
    Ok(low)
}
