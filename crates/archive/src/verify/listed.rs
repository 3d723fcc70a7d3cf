//! A chain's listing beside the entries of a snapshot.

use std::collections::VecDeque;

use crate::error::Result;
use crate::partition::Partition;

/// A listing of a chain that is read along with its entries.
pub(super) struct Listed {
    from: i64,
    ready: VecDeque<(i64, u64)>,
    more: bool,
    /// What is there between two entries.
    pub(super) strays: Vec<i64>,
}

impl Listed {
    pub(super) fn new(from: i64) -> Self {
        Self { from, ready: VecDeque::new(), more: true, strays: Vec::new() }
    }

    /// The size of the object at `first_offset`; `None` if there is none. Offsets ascend.
    pub(super) async fn size_at(
        &mut self,
        partition: &Partition<'_>,
        branch: u32,
        first_offset: i64,
    ) -> Result<Option<u64>> {
        loop {
            match self.ready.front() {
                Some((first, _)) if *first > first_offset => return Ok(None),
                Some((first, size)) => {
                    let (first, size) = (*first, *size);
                    self.ready.pop_front();
                    if first == first_offset {
                        return Ok(Some(size));
                    }
                    self.strays.push(first);
                }
                None if !self.more => return Ok(None),
                None => {
                    let (page, more) = partition.page(branch, self.from).await?;
                    self.more = more;
                    self.from = page.last().map_or(self.from, |(first, _)| first.saturating_add(1));
                    self.ready = page.into_iter().map(|(first, meta)| (first, meta.size_bytes)).collect();
                }
            }
        }
    }
}
